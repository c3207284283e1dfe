"""JSON in and out."""

import json

from fob.errors import Failure, text_of


def _no_constant(name):
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def parse_object(data, what):
    """Reads bytes as a JSON object; anything else is a bad_request."""
    try:
        value = _decode(data.decode("utf-8"))
    except RecursionError:
        raise Failure(400, "bad_request", f"{what} is nested too deeply") from None
    except ValueError as e:
        raise Failure(400, "bad_request", f"{what} is not JSON: {e}") from None
    if type(value) is not dict:
        raise Failure(400, "bad_request", f"{what} must be a JSON object, not {json_type(value)}")
    return value


def json_type(value):
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def render(document):
    """Writes a document of the driver's own as JSON bytes."""
    # backslashreplace writes a lone surrogate as \udXXX, which is JSON's own escape for it.
    return _encode(document).encode("utf-8", "backslashreplace")


def render_result(value):
    return b'{"result": %b}' % render_value(value)


def render_value(value):
    """Writes a value of the function's as JSON bytes; a bad_result when JSON cannot hold it."""
    try:
        return render(value)
    except RecursionError:
        why = "it is nested too deeply"
    except ValueError as e:
        why = str(e)
        if "Circular" in why:
            why = "it contains itself, a cycle"
        elif "range" in why:
            why = f"it contains {_constant(value)}"
    except BaseException as e:  # noqa: B902, keys() of the function's own types may raise anything
        why = text_of(e)
    raise Failure(500, "bad_result", f"JSON cannot hold what callme returned: {why}")


def _constant(value):
    """Names the float in value that JSON has no word for."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            todo += item.keys()
            todo += item.values()
        elif isinstance(item, (list, tuple)):
            todo += item
        elif isinstance(item, float):
            if item != item:
                return "NaN"
            if item in (float("inf"), -float("inf")):
                return "Infinity" if item > 0 else "-Infinity"
    return "NaN or Infinity"
