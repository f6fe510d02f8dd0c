"""WakePolicy: how long a commit waits for more waiters, and how it wakes the ones it has.

If syncs are slow, a commit waits for the waiters that the last one released, so that they share its
sync. It does not wait for those that can return during its own sync, because they share the next
one. So it waits only for the rest of a crowd that is larger than that.

Next to threads that compute, a thread may need 5 ms to get the interpreter's lock. There, waiters
that are woken in turn (see Gate) would pay that one after the other, so all are woken at once and
pay it together. Elsewhere, that is half as fast as waking them in turn.
"""

from __future__ import annotations

from journal import _time as time

# After a sync longer than `_SLOW_SYNC_S`, it pays to wait for a third of its duration, if twice as
# many waiters then share the next sync.
_SLOW_SYNC_S, _GATHER_S_MAX = 0.001, 0.005
_GATHERS_MAX = 3  # while they come back, a commit waits for up to this many times as long
_RETURN_S = 10e-6  # waiters come back one after the other, and each one takes this long
_LANE_PART = 0.9  # of the waiters a lane expects; those that come too late take the next one
# Waking a waiter in turn takes 10 to 60 us; next to a thread that computes, at least 1 ms.
_SLOW_PASS_NS, _SLOW_NS_MIN = 500_000, 2_000_000
_BATCHES_AT_ONCE = 16  # after these, waking in turn is tried again


class WakePolicy:
    """Predicts the waiters of each commit from those of the last. It never waits itself.

    The log buffer's lock guards it; `last_waiters` may be read, and `note_passed` called, without
    the lock.
    """

    def __init__(self) -> None:
        self.last_waiters = 0  # the number of waiters of the last batch
        self.expected_waiters = 0  # the number of waiters expected for the next one
        self.enough_waiters = 0  # the number with which it begins
        self._gather_s = 0.0  # for a slow sync
        self._late = 0  # the number of waiters that come back during a sync
        self._came_back = 0  # the number that waited when a commit was last put off
        self._batches_at_once = 0  # how many batches are still woken all at once
        self.released_ns = 0  # when the last waiters were released
        self._passed_ns: list[int] = []  # when each of them ran that has run since
        self.note_passed = self._passed_ns.append  # one step

    @property
    def wakes_all_at_once(self) -> bool:
        """True if the waiters of a batch are to be woken at the same time, not in turn."""
        return self._batches_at_once > 0

    def due_s(self, waiting: int) -> float:
        """Return the seconds until the next commit, if `waiting` threads wait for it."""
        if waiting >= self.enough_waiters:
            return 0
        since_s = self.since_release_s()
        left_s = self._gather_s - since_s
        if left_s > 0 or waiting <= self._came_back or since_s > _GATHERS_MAX * self._gather_s:
            return left_s
        self._came_back = waiting
        return self._gather_s / 4

    def since_release_s(self) -> float:
        """Return the seconds since waiters were last released."""
        return (time.perf_counter_ns() - self.released_ns) / 1e9

    def note_sync(self, sync_s: float) -> None:
        """Note how long a sync took."""
        self._gather_s = 0.0
        if sync_s > _SLOW_SYNC_S:
            self._late = int(sync_s / _RETURN_S)
            self._gather_s = min(sync_s / 3, _GATHER_S_MAX)

    def note_release(self, waiters: int, waiting: int, *, lanes: int = 1) -> None:
        """Note that a commit released `waiters` threads while `waiting` others await the next, or a
        sync in flight. `lanes`: the number of syncs that may be."""
        expected = waiters + waiting
        if lanes > 1:  # those that are on their way back are not counted
            expected = max(expected, self.expected_waiters * 7 // 8)
        self.last_waiters, self.expected_waiters = waiters, expected
        self.enough_waiters = self._came_back = 0
        if self._gather_s:
            if lanes > 1:
                expected = int(expected / lanes * _LANE_PART)
            self.enough_waiters = expected - self._late if self._late < expected else expected
        self.released_ns = time.perf_counter_ns()
        self._passed_ns.clear()

    def note_begin(self) -> None:
        """Note that a commit begins. If the waiters of the last one were slow to run, wake those of
        the next batches all at once."""
        if self._batches_at_once:
            self._batches_at_once -= 1
        elif self._passed_ns and self.last_waiters > 1:
            took_ns = self._passed_ns[-1] - self.released_ns
            if took_ns > max(_SLOW_NS_MIN, len(self._passed_ns) * _SLOW_PASS_NS):
                self._batches_at_once = _BATCHES_AT_ONCE
