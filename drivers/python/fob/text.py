"""Text as its sender says, or its byte order mark."""

import codecs

from fob.errors import BadRequest

MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# What Python calls an encoding of text, and no sender's charset is.
NO_CHARSETS = frozenset(("charmap", "idna", "mbcs", "oem", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"))


def decode(data, charset=""):
    """Makes text of bytes, without a byte order mark. A BadRequest when that cannot be done."""
    try:
        name = codecs.lookup(charset or "utf-8").name
        if name.replace("_", "-") in NO_CHARSETS:
            raise LookupError
    except (LookupError, ValueError):
        raise BadRequest(f"the charset {charset[:80]!r} is unknown") from None
    for mark, marked in MARKS:
        if data.startswith(mark) and (not charset or marked.startswith(name)):
            name, data = marked, data[len(mark) :]
            break
    else:
        if name == "utf-16":
            name = "utf-16-le"  # as everybody writes it who leaves the mark out
    try:
        return data.decode(name)
    except LookupError:  # an encoding of other things than text
        raise BadRequest(f"the charset {charset[:80]!r} is unknown") from None
    except UnicodeError:
        raise BadRequest(f"the text is not {charset[:80] or 'UTF-8, and no charset is given'}") from None


def parameter(header, name):
    """Returns a parameter of a header such as Content-Type, or None."""
    import re  # the traceback module has loaded it

    for key, quoted, bare in re.findall(r';\s*([^\s;="]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))', header):
        if key.lower() == name:
            # Nothing else is escaped: old browsers send paths with backslashes.
            return quoted.replace('\\"', '"').replace("\\\\", "\\") or bare
    return None


def charset_of(content_type):
    return parameter(content_type, "charset") or ""
