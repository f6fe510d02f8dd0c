"""Giving way: pauses of a thread that reads a large file beside other threads.

A thread that reads gives up the interpreter at each read, but only for some microseconds. A thread
that waits for the interpreter wakes too late each time, and waits anew: CPython makes a thread give
way only to one that has slept for 5 ms. In a measurement, others waited for up to 200 ms while a
checkpoint of 300 MB was read. A real pause lets them run.
"""

from __future__ import annotations

from threading import active_count, local

from journal._time import sleep, thread_time_ns

_STEP_NS = 1_000_000  # of processor time
_PAUSE_S = 50e-6


class _LastPause(local):
    at_ns = 0  # of this thread's processor time


_last_pause = _LastPause()


def give_way() -> None:
    """Pause if this thread has used the processor for a step since its last pause, and is not the
    only one."""
    now_ns = thread_time_ns()
    # A forked child has what its parent noted, and a clock that begins at 0 again.
    if abs(now_ns - _last_pause.at_ns) >= _STEP_NS and active_count() > 1:
        sleep(_PAUSE_S)
        _last_pause.at_ns = now_ns
