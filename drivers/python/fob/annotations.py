"""Converts text arguments as a function's annotations say."""

import types

from fob import File
from fob.errors import clip


def _int(text):
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{clip(text, 80)!r} is not an int") from None


def _float(text):
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{clip(text, 80)!r} is not a float") from None


def _bool(text):
    value = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    try:
        return value[text.lower()]
    except KeyError:
        raise ValueError(f"{clip(text, 80)!r} is not a bool: use true or false") from None


SCALARS = {int: _int, float: _float, bool: _bool}


def converter(annotation, scope):
    """Returns a function that converts a text as an annotation says, or None, and whether it converts a list.

    That function raises ValueError for a text that does not fit.
    """
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, dict(scope))
        except Exception:  # noqa: B902, for names that only a type checker knows
            return None, False
    try:
        if annotation in SCALARS:
            return _of_text(SCALARS[annotation]), False
    except TypeError:  # not hashable, so not a type
        return None, False
    inner = getattr(annotation, "__args__", ())
    if annotation is list or getattr(annotation, "__origin__", None) is list:
        of = inner[0] if len(inner) == 1 else str
        convert, many = converter(of, scope)
        if many or convert is None and of not in (str, File) and str(of) != "typing.Any":
            return None, False
        return (lambda values: [convert(value) for value in values]) if convert else list, True
    if isinstance(annotation, types.UnionType) or str(getattr(annotation, "__origin__", "")) == "typing.Union":
        inner = [a for a in annotation.__args__ if a is not type(None)]
        if len(inner) == 1 and len(annotation.__args__) == 2:
            convert, many = converter(inner[0], scope)
            if many:
                return (lambda values: None if values == [""] else convert(values)), True
            return convert and (lambda text: convert(text) if text else None), False
    return None, False


def _of_text(convert):
    def checked(value):
        if type(value) is not str:
            raise ValueError("it is a file, not a text")
        return convert(value)

    return checked
