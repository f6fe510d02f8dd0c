"""The wait for a directory's lock, which flock(2) offers without a time limit only."""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar

from journal._disk.disk import Directory
from journal._waits import warn_in_event_loop
from journal.errors import LockedError

_DELAY_S_MIN, _DELAY_S_MAX = 0.005, 0.1

# Ends the waits of the call that runs in this context, if it is set. None: nothing ends them early.
giving_up: ContextVar[threading.Event | None] = ContextVar("journal.giving_up", default=None)


def lock_within(directory: Directory, timeout_s: float | None) -> None:
    """Take the writer's lock within `timeout_s` seconds (0: at once or never, None: no limit).

    Raises LockedError. The exception of a signal handler ends the wait.
    """
    until_s = None if timeout_s is None else time.monotonic() + timeout_s
    delay_s, given_up = _DELAY_S_MIN, giving_up.get()
    while True:
        try:
            directory.lock()
        except LockedError:
            remaining_s = _DELAY_S_MAX if until_s is None else until_s - time.monotonic()
            if remaining_s <= 0 or (given_up and given_up.is_set()):
                raise
        else:
            return
        warn_in_event_loop("an open with lock_timeout_s", "aopen(...)")
        delay_s = min(2 * delay_s, _DELAY_S_MAX)
        (given_up.wait if given_up else time.sleep)(min(delay_s, remaining_s))
