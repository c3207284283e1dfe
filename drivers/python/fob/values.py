"""Reads JSON, and writes plain values as JSON. fob.convert makes other values plain."""

import json
import re
from itertools import islice
from json.encoder import c_make_encoder, encode_basestring

from fob.errors import BadRequest, Failure


def _no_constant(name):
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode
MOST = 500_000  # objects, arrays and members of objects in a document, each of which takes up to 240 bytes
_MARKS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{\[:]', re.DOTALL)
LEAVES = frozenset((str, int, float, bool, type(None)))
SMALL = 1 << 10  # bytes of JSON up to which checking every key is fast enough
DIGITS_AS_0 = bytes(b"0"[0] if byte in b"0123456789" else byte for byte in range(256))


def _unknown(value):
    raise TypeError  # fob.convert will know what to do


if c_make_encoder is None:  # a Python without the accelerator
    _encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_unknown).encode
else:

    def _encode(value):
        # Like JSONEncoder.encode, but without its preparations for slower ways.
        return "".join(c_make_encoder({}, _unknown, encode_basestring, None, ": ", ", ", False, False, False)(value, 0))


def parse_object(data, what):
    """Parses bytes as a JSON object. Anything else is a bad_request."""
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except ValueError as e:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            e = UTF16
        raise BadRequest(f"{what} is not JSON: {e}") from None
    if text[:2].count("\0") == 1:
        raise BadRequest(f"{what} is not JSON: {UTF16}")
    value = parse_json(text, what)
    if type(value) is not dict:
        raise BadRequest(f"{what} must be a JSON object, not {json_type(value)}")
    return value


UTF16 = "it is UTF-16, and JSON is sent as UTF-8"


def parse_json(text, what):
    """Parses text as JSON. Raises a BadRequest if it is not JSON, or would fill a sandbox."""
    if len(text) > MOST and crowded(text):
        raise BadRequest(f"{what} has more than {MOST} objects, arrays and members of objects")
    try:
        return _decode(text)
    except RecursionError:
        raise BadRequest(f"{what} is nested too deeply") from None
    except ValueError as e:
        raise BadRequest(f"{what} is not JSON: {e}") from None


def crowded(text):
    """Reports whether JSON has more than MOST things in it that take memory beyond its text."""
    if text.count("{") + text.count("[") + text.count(":") <= MOST:
        return False
    # In a string, for example one of code, these characters mean nothing.
    found = (m for m in _MARKS.finditer(text) if text[m.start()] != '"')
    return next(islice(found, MOST, None), None) is not None


def json_type(value):
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def render(value):
    """Writes a plain value as JSON bytes."""
    # backslashreplace writes a lone surrogate as \udXXX, which is also how JSON escapes it.
    return _encode(value).encode("utf-8", "backslashreplace")


def render_result(value):
    return b'{"result": %b}' % render_value(value)


def render_value(value):
    """Writes a value from the function as JSON bytes, or raises a bad_result if JSON cannot hold it."""
    try:
        data = render(value)
        if not _may_collide(data) or _is_plain(value):
            return data
    except (TypeError, ValueError, RecursionError):
        pass  # the slower way finds out why
    from fob.convert import render_any

    return render_any(value)


def _may_collide(data):
    """Tells whether a key may have been something other than text, by the JSON that came out.

    For large JSON that is faster than checking all keys.
    """
    if len(data) < SMALL:
        return True
    if b'": ' not in data:
        return False
    return b'0": ' in data.translate(DIGITS_AS_0) or b'"true": ' in data or b'"false": ' in data or b'"null": ' in data


def _is_plain(value):
    """Tells whether JSON can hold a value unchanged: dictionaries with text keys, lists, tuples, text, numbers, bool and None."""
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or type(item) not in LEAVES and not _is_plain(item):
                return False
        return True
    if kind is list or kind is tuple:
        for item in value:
            if type(item) not in LEAVES and not _is_plain(item):
                return False
        return True
    return kind in LEAVES
