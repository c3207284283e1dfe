"""Decodes text as its sender says, or as its byte order mark says."""

import codecs

from fob.errors import BadRequest

MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# Python has these as text encodings, but they are nobody's charset.
NO_CHARSETS = frozenset(("charmap", "idna", "mbcs", "oem", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"))


def decode(data, charset=""):
    """Decodes bytes, and drops a byte order mark. Raises a BadRequest if that is impossible."""
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
            name = "utf-16-le"  # which everybody means who leaves out the mark
    try:
        return data.decode(name)
    except LookupError:  # not an encoding of text
        raise BadRequest(f"the charset {charset[:80]!r} is unknown") from None
    except UnicodeError:
        raise BadRequest(f"the text is not {charset[:80] or 'UTF-8, and no charset is given'}") from None


def parameter(header, name):
    """Returns a parameter of a header such as Content-Type, or None."""
    import re  # the traceback module has imported it

    for key, quoted, bare in re.findall(r';\s*([^\s;="]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))', header):
        if key.lower() == name:
            # Nothing else is escaped: old browsers send paths with backslashes.
            return quoted.replace('\\"', '"').replace("\\\\", "\\") or bare
    return None


def charset_of(content_type):
    return parameter(content_type, "charset") or ""
