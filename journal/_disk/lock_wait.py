"""The wait for a directory's lock, with the time limit that flock(2) lacks."""

from __future__ import annotations

from contextvars import ContextVar

from journal import _time as time
from journal._disk.disk import Directory
from journal._mutex import Alarm
from journal._waits import warn_in_event_loop
from journal.errors import LockedError

_DELAY_S_MIN, _DELAY_S_MAX = 0.005, 0.1

# Ends the wait of the call that runs in this context. None: nothing ends it early.
giving_up: ContextVar[Alarm | None] = ContextVar("journal.giving_up", default=None)


def lock_within(directory: Directory, timeout_s: float | None) -> None:
    """Take the writer's lock within `timeout_s` seconds (0: at once or never, None: no limit).

    Raises LockedError. The exception of a signal handler ends the wait.
    """
    until_s = None if timeout_s is None else time.monotonic() + timeout_s
    delay_s, given_up = _DELAY_S_MIN, giving_up.get()
    while True:
        try:
            directory.lock()
            return
        except LockedError:
            remaining_s = _DELAY_S_MAX if until_s is None else until_s - time.monotonic()
            if remaining_s <= 0:
                raise
            warn_in_event_loop("an open with lock_timeout_s", "aopen(...)")
            delay_s = min(2 * delay_s, _DELAY_S_MAX, remaining_s)
            if given_up is None:
                time.sleep(delay_s)
            elif given_up.sleep(delay_s):
                raise
