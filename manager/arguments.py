"""Arguments: checks of callers' arguments. An error names the argument, its value and the rule."""

from __future__ import annotations

import math
import os
import threading
from typing import TypeVar

from manager import clock

T = TypeVar("T")

_SHOWN_CHARS = 80


def short_repr(value: object) -> str:
    """Return a short form of `value` for a message: its repr, cut at 80 characters, or only its
    type if it has no repr, like a huge integer.
    """
    try:
        text = repr(value)
    except Exception:
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


def instance(where: str, value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AO" else "a"
        raise TypeError(f"{where} must be {article} {kind.__name__}, not {short_repr(value)}")
    return value


def lsn(where: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where} must be an LSN, a whole number, not {short_repr(value)}")
    if value < 0:
        raise ValueError(f"{where} must be an LSN, at least 0, not {short_repr(value)}")
    return value


def optional_lsn(where: str, value: object) -> int | None:
    return None if value is None else lsn(where, value)


def seconds(where: str, value: object, *, low: float = -math.inf, high: float = math.inf) -> float:
    rule = "a number of seconds" + ("" if low == -math.inf else f", at least {low}")
    rule += "" if high == math.inf else f" and at most {high:g}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{where} must be {rule}, not {short_repr(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.nan
    if not low <= number <= high:
        raise ValueError(f"{where} must be {rule}, not {short_repr(value)}")
    return number


def optional_seconds(where: str, value: object) -> float | None:
    return None if value is None else seconds(where, value, low=0)


def path(where: str, value: object) -> str:
    name = value
    if isinstance(value, os.PathLike):
        name = os.fspath(value)
    if not isinstance(name, str):
        raise TypeError(f"{where} must be a str or a path object, not {short_repr(value)}")
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError as error:
        raise ValueError(f"{where} must be a path, not {short_repr(value)}: {error}") from None
    if b"\0" in encoded:
        raise ValueError(f"{where} must be a path without NUL, not {short_repr(value)}")
    return name


def remaining_s(until: float | None) -> float | None:
    """Return the seconds until the monotonic time `until`, within the range that a lock accepts.

    Return None, which means no limit, if `until` is None.
    """
    if until is None:
        return None
    return min(max(until - clock.monotonic(), 0), threading.TIMEOUT_MAX)
