"""Parses forms: the fields and files of a body, in either of the two types that HTML has."""

from urllib.parse import unquote_to_bytes as _unquote

from fob import File
from fob.errors import BadRequest
from fob.text import charset_of, decode, parameter

URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
PARTS = 1000  # fields and files in a form
HEADERS = 8 << 10  # bytes of a part's headers
BOUNDARY = 70  # bytes, as RFC 2046 has it
AT_ONCE = 64 << 10  # bytes that are unquoted at a time: a list of millions of escapes would fill the sandbox


def parse(content_type, body):
    """Returns the names and values of a form, in order. Values are text or File. The result is empty if the body is not a form."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == URLENCODED:
        return list(urlencoded(body, charset_of(content_type) or "utf-8"))
    if kind == MULTIPART:
        return list(multipart(body, parameter(content_type, "boundary")))
    return []


def urlencoded(body, charset):
    if body.count(b"&") >= PARTS:
        raise BadRequest(f"the form has more than {PARTS} fields")
    for part in body.split(b"&"):
        if part:
            name, _, value = part.replace(b"+", b" ").partition(b"=")
            yield decode(unquote(name), charset), decode(unquote(value), charset)


def unquote(data):
    """Decodes percent escapes. Malformed ones stay as they are."""
    if b"%" not in data:
        return data
    out, at = bytearray(), 0
    while at < len(data):
        end = at + AT_ONCE
        last = data.rfind(b"%", end - 2, end)
        if last > at:
            end = last  # do not cut an escape in two
        out += _unquote(data[at:end])
        at = end
    return bytes(out)


def multipart(body, boundary):
    if not boundary or len(boundary) > BOUNDARY:
        raise BadRequest("the form's Content-Type names no proper boundary")
    line = b"--" + boundary.encode("utf-8")
    _, begin = delimiter(body, line, 0)
    count = 0
    while begin is not None:
        count += 1
        if count > PARTS:
            raise BadRequest(f"the form has more than {PARTS} fields and files")
        about, begin = part_head(body, begin)
        # The line break before a delimiter is part of the delimiter, even after the headers of an empty part.
        end, following = delimiter(body, line, begin - 2)
        part = field(about, body[begin:end])
        if part is not None:
            yield part
        begin = following


def delimiter(body, line, at):
    """Finds the next delimiter.

    Returns where the content before it ends and where the content after it begins,
    which is None after the last one.
    """
    end = 0 if at == 0 and body.startswith(line) else -1
    after = end + len(line)
    while True:
        if end < 0:
            end = body.find(b"\r\n" + line, at)
            if end < 0:
                raise BadRequest("the form ends before its last boundary")
            after = end + 2 + len(line)
        if body.startswith(b"--", after):
            return end, None
        while body[after : after + 1] in (b" ", b"\t"):
            after += 1
        if body.startswith(b"\r\n", after):
            return end, after + 2
        at, end = end + 1, -1  # the line only begins like a delimiter


def part_head(body, begin):
    """Returns a part's headers, names in lower case, and where its content begins."""
    if body.startswith(b"\r\n", begin):
        return {}, begin + 2
    end = body.find(b"\r\n\r\n", begin, begin + HEADERS)
    if end < 0:
        raise BadRequest("a part of the form has no proper headers, or more than 8 KB of them")
    headers = {}
    for header in decode(body[begin:end], "utf-8").split("\r\n"):
        name, colon, value = header.partition(":")
        if not colon:
            raise BadRequest("a part of the form has a malformed header")
        headers[name.strip().lower()] = value.strip()
    return headers, end + 4


def field(about, content):
    """Returns the name and value of a part, or None for a file input without a file."""
    disposition = about.get("content-disposition", "")
    name = parameter(disposition, "name")
    if disposition.partition(";")[0].strip().lower() != "form-data" or name is None:
        raise BadRequest("a part of the form has no name: Content-Disposition is form-data; name=…")
    if about.get("content-transfer-encoding", "binary").lower() not in ("7bit", "8bit", "binary"):
        raise BadRequest("a part of the form has a Content-Transfer-Encoding; send it as it is")
    filename = parameter(disposition, "filename")
    extended = parameter(disposition, "filename*")
    if extended is not None:
        charset, _, text = extended.partition("'")
        filename = decode(unquote(text.partition("'")[2].encode()), charset or "utf-8")
    elif filename is not None:
        filename = plain(filename)
    kind = about.get("content-type", "text/plain")
    if filename is None:
        return plain(name), decode(content, charset_of(kind) or "utf-8")
    if not filename and not content:
        return None
    return plain(name), File(plain(name), filename, kind, content)


def plain(text):
    """Undoes the escapes that browsers use in names, and nothing more."""
    return text.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


def arguments(content_type, body):
    """Returns a form's values as arguments by name. A name that is repeated, or ends with [], has a list."""
    args = {}
    for name, value in parse(content_type, body):
        bare = name.removesuffix("[]")
        if not bare:
            raise BadRequest("a field of the form has no name")
        if bare in args:
            before = args[bare]
            if type(before) is not list:
                args[bare] = before = [before]
            before.append(value)
        else:
            args[bare] = value if bare == name else [value]
    return args
