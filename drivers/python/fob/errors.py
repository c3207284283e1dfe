"""Turns errors into the contract's error objects."""

import sys
from json.encoder import encode_basestring as _quote

from fob.environment import hide_text

FILE = "function.py"  # the name of the user's code in tracebacks
TYPE, MESSAGE, TRACEBACK = 256, 8 << 10, 64 << 10  # bytes shown at most, as JSON writes them

_HERE = __file__.rpartition("/")[0]


class Failure(Exception):
    """An error of the contract: a status and the members of its error object."""

    def __init__(self, status, code, message, **more):
        self.status = status
        self.code = code
        if "type" in more:
            more["type"] = clip(more["type"], TYPE)
        self.document = {"error": {"code": code, "message": clip(message, MESSAGE), **more}}


class TooLarge(Failure):
    """Raised when a function asks for the whole of a body that comes as a stream."""

    def __init__(self):
        super().__init__(413, "too_large", "the request's body is too large to be held whole; read request.stream()")

    def __str__(self):
        return self.document["error"]["message"]


class BadRequest(Failure, ValueError):
    """Raised when a function asks for a body in a form that it does not have."""

    def __init__(self, message):
        super().__init__(400, "bad_request", message)

    def __str__(self):
        return self.document["error"]["message"]


def clip(text, limit):
    """Shortens text, which has no secrets in it, to that many bytes of JSON."""
    text = hide_text(text)
    shown, size = text, _size(text)
    while size > limit:
        # In proportion, and repeatedly, because characters differ in how many bytes they take.
        shown = shown[: min(len(shown) - 1, len(shown) * (limit - 3) // size)]
        size = _size(shown) + 3
    return text if shown is text else shown + "…"


def _size(text):
    """Returns how many bytes JSON takes for text, without the quotes."""
    return len(_quote(text).encode("utf-8", "backslashreplace")) - 2


def text_of(e):
    try:
        return str(e)
    except BaseException:  # noqa: B902, the function's own __str__ may raise anything
        return "(its message cannot be shown)"


def _line(e):
    """Returns the innermost line of the user's code from which e came, or None."""
    line, tb = None, e.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code.co_filename == FILE:
            line = tb.tb_lineno
        tb = tb.tb_next
    return line


def _traceback(e):
    """Formats e and its causes, without the driver's frames."""
    import traceback  # imported after boot, because it would delay the socket

    def strip(shown, seen):
        if shown is None or id(shown) in seen:
            return
        seen.add(id(shown))
        shown.stack[:] = [f for f in shown.stack if not f.filename.startswith(_HERE)]
        for nested in (shown.__cause__, shown.__context__, *(shown.exceptions or ())):
            strip(nested, seen)

    try:
        shown = traceback.TracebackException(type(e), e, e.__traceback__, compact=True)
        shown.exceptions = getattr(shown, "exceptions", None)
        strip(shown, set())
        return clip("".join(shown.format()), TRACEBACK)
    except BaseException:  # noqa: B902, the function's own exception type may break it
        return clip(f"{type(e).__name__}: {text_of(e)}\n", TRACEBACK)


def _describe(e):
    about = {"type": type(e).__name__, "traceback": _traceback(e)}
    line = _line(e)
    if line is not None:
        about["line"] = line
    hint = _missing(e) if isinstance(e, ImportError) else None
    if hint is not None:
        about["hint"] = hint
    return about


def raised(status, code, e):
    """Turns an exception of the user's code into a Failure."""
    return Failure(status, code, text_of(e), **_describe(e))


def _missing(e):
    """Says what can be done about an import that failed, or None."""
    if "relative import" in text_of(e):
        return "a function is one file: put what it imports into it"
    name = e.name if isinstance(e, ModuleNotFoundError) else None
    if not isinstance(name, str):
        return None
    if name.partition(".")[0] in sys.stdlib_module_names:
        return f"the Python of this sandbox comes without {clip(name, 80)}"
    return "only Python's standard library is there: do it with that (urllib.request speaks HTTP), or paste what you need into the code"
