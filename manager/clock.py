"""Clock: the time of a manager's changes, durations, and pauses.

Tests of a program may stop, move or replace the functions of `time`, as freezegun does. That moves
the times of changes, but stops no time limit: freezegun replaces no partial of a function.
"""

from __future__ import annotations

import time
from functools import partial

monotonic = partial(time.monotonic)
sleep = partial(time.sleep)


def now_ms() -> int:
    """Return the time in Unix milliseconds, or 0 before 1970: no record has a negative time."""
    return max(time.time_ns() // 1_000_000, 0)
