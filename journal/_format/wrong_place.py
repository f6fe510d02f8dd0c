"""Messages about values: the place that msgpack can't hold unchanged, and short reprs."""

from __future__ import annotations

from itertools import count
from typing import Any

import msgpack

_SCALARS = (type(None), bool, int, float, str, bytes, msgpack.ExtType, msgpack.Timestamp)
_CODES = range(128)  # of an ExtType
_LEVELS_MAX = 100
_SHOWN_CHARS = 80


class _Enough(Exception):  # noqa: N818 it ends a search
    """The end of a search that has looked at as many parts as it may."""


def wrong_place(value: Any, name: str, parts_max: int | None = None) -> str:
    """Return the place in the value `name` that msgpack can't hold, with the reason, such as
    "record['a'][3] is a set". Return "" if there is none.

    `parts_max` bounds the parts of the value that are looked at (None: all of them).
    """
    numbers = count() if parts_max is None else iter(range(parts_max))
    try:
        return _search(value, name, _LEVELS_MAX, numbers)
    except _Enough:
        return ""


def _search(value: Any, path: str, levels: int, numbers: Any) -> str:
    if next(numbers, None) is None:
        raise _Enough
    kind = type(value)
    if kind in _SCALARS or levels == 0:
        if kind is int and not -(1 << 63) <= value < 1 << 64:
            return f"{path} is an int of more than 64 bits"
        if kind is msgpack.ExtType and value[:1] and value[0] not in _CODES:  # by `_replace`
            return f"{path} is an ExtType of code {short_repr(value[0])}, not of 0 to 127"
        return _half_pair(value, path) if kind is str else ""
    if kind is dict or kind is list:
        # A copy, because another thread may change the dict meanwhile.
        for at, part in list(value.items()) if kind is dict else enumerate(value):
            if kind is dict and (problem := _search(at, f"a key of {path}", levels - 1, numbers)):
                return problem
            if problem := _search(part, f"{path}[{short_repr(at)}]", levels - 1, numbers):
                return problem
        return ""
    return f"{path} is {_article(kind.__name__)}"


def _half_pair(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        at = error.start
        return f"{path} has half a surrogate pair, {text[at]!r}, at {at}"
    return ""


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def short_repr(value: object) -> str:
    """Return a short repr of any object, even one whose own repr raises."""
    try:
        text = repr(value)
    except Exception:  # a user's class may define any repr, and an int may be too large for one
        return "an object without a repr"
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
