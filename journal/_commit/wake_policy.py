"""WakePolicy: how long a commit waits for more waiters, and how it wakes those it has.

On a disk that is slow to sync, a commit waits for the waiters that the last one released, so that
they share it. And beside threads that compute, each time that a thread takes the interpreter's lock
may cost 5 ms: waiters woken in turn (see Gate) would pay that one after the other, so they are
woken all at once, and pay it together. Elsewhere that is half as fast.
"""

from __future__ import annotations

import time

# A sync of more than `_SLOW_SYNC_S` is worth waiting a third of its time for, if that lets twice as
# many waiters share the next one.
_SLOW_SYNC_S, _GATHER_S_MAX = 0.001, 0.005
# Waking a waiter in turn takes 10 to 60 us; beside a thread that computes, 1 ms at least.
_SLOW_PASS_NS, _SLOW_NS_MIN = 500_000, 2_000_000
_BATCHES_AT_ONCE = 16  # then waking in turn is tried again


class WakePolicy:
    """Learns from each commit's waiters what to expect of the next. Does no waiting itself.

    Guarded by the log buffer's lock, except for `note_passed`; `last_waiters` may be read without.
    """

    def __init__(self) -> None:
        self.last_waiters = 0  # of the last batch that was released
        self.expected_waiters = 0  # of the next batch, after whom nobody else is expected
        self._gather_s = 0.0
        self._batches_at_once = 0  # still to be woken all at once
        # How many waiters have passed since the last release, and when the latest did. A waiter may
        # be lost among others that pass in the same moment, so both are estimates.
        self._released_ns = self._passed = self._passed_ns = 0

    @property
    def wakes_all_at_once(self) -> bool:
        """Return whether the waiters of a batch are to be woken at the same time, not in turn."""
        return self._batches_at_once > 0

    def due_s(self, waiting: int) -> float:
        """Return the seconds until the next commit, if `waiting` threads wait for it."""
        if waiting >= self.expected_waiters:
            return 0
        return self._gather_s - (time.perf_counter_ns() - self._released_ns) / 1e9

    def note_sync(self, sync_s: float) -> None:
        """Note how long a sync took."""
        self._gather_s = min(sync_s / 3, _GATHER_S_MAX) if sync_s > _SLOW_SYNC_S else 0.0

    def note_release(self, waiters: int, waiting: int) -> None:
        """Note that a commit released `waiters` while `waiting` others wait for the next one."""
        self.last_waiters = waiters
        self.expected_waiters = waiters + waiting
        self._released_ns, self._passed = time.perf_counter_ns(), 0

    def note_passed(self, now_ns: int) -> None:
        """Note that a waiter was released and runs. Takes no lock, which would cost too much."""
        self._passed += 1
        self._passed_ns = now_ns

    def note_begin(self) -> None:
        """Note that a commit begins. Wake its successors' waiters all at once if those of the last
        one were slow to pass."""
        if self._batches_at_once:
            self._batches_at_once -= 1
        elif self.last_waiters > 1:
            took_ns = self._passed_ns - self._released_ns
            if took_ns > max(_SLOW_NS_MIN, self._passed * _SLOW_PASS_NS):
                self._batches_at_once = _BATCHES_AT_ONCE
