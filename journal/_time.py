"""Time: the functions of `time` that measure durations and pause, for `from journal import _time`.

Tests of a program may stop, move or replace those of `time`, as freezegun does, and unittest.mock.
Then no time limit would pass, and records that nobody waits for would not be committed. What is
bound here at the import keeps running. freezegun also replaces the functions in every module that
has imported them, but no partial of one. A call of the partial takes 46 ns in place of 43.

The time of day is not here: it decides only what a program may want to see moved, such as the
expiry of rows.
"""

from __future__ import annotations

import time
from functools import partial

monotonic = partial(time.monotonic)
perf_counter_ns = partial(time.perf_counter_ns)
sleep = partial(time.sleep)
thread_time_ns = partial(time.thread_time_ns)
