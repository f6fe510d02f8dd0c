"""An estimate of how long a value takes to serialize, which an event loop can afford."""

from __future__ import annotations

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
            size += _PART_BYTES
            own = getattr(part, "__dict__", None)
            size += 0 if own is not None else getattr(part, "nbytes", 0)
            waiting += own.values() if type(own) is dict else ()
        if size > LARGE_BYTES or seen > _PARTS_MAX:
            return True
    return False
