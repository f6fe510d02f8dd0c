"""An estimate of how long a value takes to serialize, which an event loop can afford."""

from __future__ import annotations

from collections.abc import Iterable
from operator import index
from typing import Any

LARGE_BYTES = 32_768  # serializing this many takes some 50 us
_PARTS_MAX = 256  # of a value that are looked at
_PART_BYTES = 32


def is_large(value: object) -> bool:
    """Return whether `value` may take long to serialize. Looks at a bounded number of its parts."""
    size, seen = 0, 0
    waiting: list[Any] = [value]
    while waiting:
        part = waiting.pop()
        seen += 1
        kind = type(part)
        if kind in (str, bytes, bytearray):
            size += len(part)
        elif kind in (list, tuple, set, frozenset, dict):
            size += _PART_BYTES * len(part)
            if size <= LARGE_BYTES:
                waiting += part.values() if kind is dict else part
        elif kind not in (int, float, bool, type(None)):
            own_bytes, attributes = _contents(part)
            size += _PART_BYTES + own_bytes
            waiting += attributes
        if size > LARGE_BYTES or seen > _PARTS_MAX:
            return True
    return False


def _contents(part: object) -> tuple[int, Iterable[Any]]:
    """Return the number of bytes that an array states, and the attributes of another object."""
    try:
        own = getattr(part, "__dict__", None)
        if own is None:
            return index(getattr(part, "nbytes", 0)), ()
        return 0, own.values() if type(own) is dict else ()
    except Exception:  # the object's code is the caller's; a serializer may not need it
        return 0, ()
