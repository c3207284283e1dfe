"""Makes answers as bytes: the driver's own, and a function's Response."""

from fob.errors import Failure
from fob.values import render

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed",
           409: "Conflict", 413: "Content Too Large", 422: "Unprocessable Content",
           431: "Request Header Fields Too Large", 500: "Internal Server Error"}  # fmt: skip
HOP_BY_HOP = frozenset(("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"))
TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
CONTROLS = frozenset(map(chr, (*range(9), *range(10, 32), 127)))
BODYLESS = (204, 304)
FIELDS, HEAD = 90, 60 << 10  # headers of a Response, and their bytes, at most; the dispatcher accepts few more


def plain(status, body, more=b""):
    """Makes an answer of JSON bytes."""
    if status == 200:
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    reason = REASONS.get(status, "Error").encode()
    head = b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
    return head % (status, reason, more, len(body), body)


def refusal(failure):
    """Makes an answer of a Failure."""
    return plain(failure.status, render(failure.document), b"Fob-Error: %b\r\n" % failure.code.encode())


def own(response):
    """Makes an answer of a function's Response whose body is whole."""
    body = response.body
    text = isinstance(body, str)
    if text:
        body = body.encode("utf-8", "backslashreplace")
    elif body is None:
        body = b""
    elif isinstance(body, (bytearray, memoryview)):
        body = bytes(body)
    elif not isinstance(body, bytes):
        raise bad(f"its body is {type(body).__name__}, not bytes or text")
    head = own_head(response, text, b"Content-Length: %d\r\n" % len(body))
    return head if response.status in BODYLESS else head + body


def own_head(response, text, framing):
    """Makes the head of a Response. text says whether its body is text. framing is the header line that says where the body ends."""
    status, headers = response.status, response.headers
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise bad(f"its status is {status!r}, not a number from 200 to 599")
    try:
        pairs = headers.items() if hasattr(headers, "items") else headers
        pairs = [(n, v) for n, values in pairs for v in (values if isinstance(values, (list, tuple)) else [values])]
    except Exception:  # noqa: B902, the function may have put anything there
        raise bad("its headers are not a mapping, nor pairs of name and value") from None
    lines, typed = [], False
    for name, value in pairs:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = f"{value}"
        if not isinstance(name, str) or not name or not TOKEN.issuperset(name):
            raise bad(f"{name!r} is no header name")
        if not isinstance(value, str) or not CONTROLS.isdisjoint(value):
            raise bad(f"its header {name} is not one line of text")
        lower = name.lower()
        typed = typed or lower == "content-type"
        if lower in HOP_BY_HOP or lower == "content-length" or lower.startswith("fob-"):
            continue
        try:
            lines.append(b"%b: %b\r\n" % (name.encode(), value.encode("latin-1")))
        except UnicodeEncodeError:
            raise bad(f"its header {name} has characters beyond Latin-1") from None
    if len(lines) > FIELDS or sum(map(len, lines)) > HEAD:
        raise bad(f"it has more than {FIELDS} headers, or more than {HEAD >> 10} KiB of them")
    if text and not typed:
        lines.append(b"Content-Type: text/plain; charset=utf-8\r\n")
    if status not in BODYLESS:
        lines.append(framing)
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, REASONS.get(status, "Own").encode(), b"".join(lines))


def marked(answer, mark, last):
    """Puts lines first into an answer's head, that with the call's token and that with its cost, and adds whether the connection ends with it."""
    more = mark + b"Connection: close\r\n" if last else mark
    return answer.replace(b"\r\n", b"\r\n" + more, 1) if more else answer


def bad(why):
    return Failure(500, "bad_result", f"callme returned a Response that is none: {why}")
