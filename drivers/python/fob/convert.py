"""Turns results that are not plain JSON, such as dates, enumerations and dataclasses, into plain ones, or into a bad_result that says
where they are."""

import sys

from fob.errors import Failure, text_of
from fob.values import render

ADVICE = {
    "bytes": "return x.decode(), or fob.Response(x)",
    "bytearray": "return x.decode(), or fob.Response(bytes(x))",
    "memoryview": "return bytes(x).decode(), or fob.Response(bytes(x))",
    "timedelta": "return x.total_seconds()",
    "Response": "return it by itself",
    "coroutine": "await it",
    "Future": "await it",
    "Task": "await it",
    "set": "return list(x)",
    "frozenset": "return list(x)",
    "deque": "return list(x)",
    "range": "return list(x)",
    "generator": "return list(x)",
    "complex": "return str(x)",
    "PosixPath": "return str(x)",
}


def render_any(value):
    """Writes any value from the function as JSON bytes, or fails with a bad_result."""
    try:
        return render(_Plain().of(value, None))
    except (Failure, MemoryError):
        raise
    except RecursionError:
        why = "it is nested too deeply"
    except BaseException as e:  # noqa: B902, the function's own types may raise anything
        why = text_of(e)
    raise _bad(why)


def _bad(why):
    return Failure(500, "bad_result", f"JSON cannot hold what callme returned: {why}")


def _is(value, module, *names):
    """Tells whether value has a type of a module. It does not import the module."""
    module = sys.modules.get(module)
    return module is not None and isinstance(value, tuple(getattr(module, name) for name in names))


def _text(value):
    """Returns the text by which a value is usually written, or None if its type has none."""
    if _is(value, "datetime", "date", "time"):  # a datetime is a date, too
        return value.isoformat()
    if _is(value, "decimal", "Decimal") or _is(value, "uuid", "UUID"):
        return str(value)
    return None


class _Plain:
    """Makes a plain copy of one value."""

    def __init__(self):
        self.keys = []  # under which the present value was found, outermost first
        self.above = set()  # ids of the values that contain it

    def of(self, value, key):
        if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
            raise self.bad("NaN" if value != value else "Infinity" if value > 0 else "-Infinity", key)
        if _is(value, "enum", "Enum"):
            return self.of(value.value, key)
        if value is None or isinstance(value, (str, int, float)):
            return value
        if isinstance(value, dict):
            return self.inside(value, key, self.members, value.items())
        if isinstance(value, (list, tuple)):
            return self.inside(value, key, self.items)
        if hasattr(type(value), "__dataclass_fields__"):
            from dataclasses import fields  # the module that made it a dataclass

            return self.inside(value, key, self.members, ((f.name, getattr(value, f.name)) for f in fields(value)))
        text = _text(value)
        if text is None:
            name = type(value).__name__
            raise self.bad(name, key, ADVICE.get(name))
        return text

    def inside(self, value, key, make, *more):
        if id(value) in self.above:
            raise self.bad("itself, a cycle", key)
        self.above.add(id(value))
        self.keys.append(key)
        made = make(*more or (value,))
        self.keys.pop()
        self.above.remove(id(value))
        return made

    def items(self, value):
        return [self.of(item, i) for i, item in enumerate(value)]

    def members(self, pairs):
        made, given = {}, {}
        for key, value in pairs:
            name = self.name(key)
            if name in made:
                raise self.bad(f"two keys that JSON writes alike, {given[name]!r} and {key!r}", None)
            made[name] = self.of(value, name)
            given[name] = key
        return made

    def name(self, key):
        """Returns a dictionary's key as JSON spells it."""
        if _is(key, "enum", "Enum"):
            return self.name(key.value)
        if isinstance(key, str):
            return str.__str__(key)
        if key is None or isinstance(key, bool):
            return {None: "null", True: "true", False: "false"}[key]
        if isinstance(key, (int, float)):
            return render(self.of(key, None)).decode()
        text = _text(key)
        if text is None:
            raise self.bad(f"a key of type {type(key).__name__}", None, "keys are text or numbers")
        return text

    def bad(self, what, key, advice=None):
        path = "".join(
            f"[{k}]" if type(k) is int else f".{k}" if k.isidentifier() else f"[{render(k).decode()}]"
            for k in (*self.keys, key)
            if k is not None
        )
        where = f" at result{path}" if path else ""
        return _bad(f"it contains {what}{where}" + (f"; {advice}" if advice else ""))
