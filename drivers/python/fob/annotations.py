"""Conversion of text arguments by what a function's annotations say."""

import types

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


def converter(annotation, scope):
    """Returns what converts a text to an annotation, or None. It raises ValueError for a text that does not fit."""
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, dict(scope))
        except Exception:  # noqa: B902, names that exist for a type checker only
            return None
    convert = {int: _int, float: _float, bool: _bool}
    try:
        if annotation in convert:
            return convert[annotation]
    except TypeError:  # not hashable, so no type
        return None
    if isinstance(annotation, types.UnionType) or str(getattr(annotation, "__origin__", "")) == "typing.Union":
        inner = [a for a in annotation.__args__ if a is not type(None)]
        if len(inner) == 1 and len(annotation.__args__) == 2 and inner[0] in convert:
            return lambda text: convert[inner[0]](text) if text else None
    return None
