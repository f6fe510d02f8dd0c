"""WakePolicy: who waits for one commit after the other, and what that says of the next.

On a disk that is slow to sync a commit waits for those whom the last one let go, so that they share
it. And beside threads that compute, each time that a thread takes the interpreter's lock may cost
5 ms: there those who wait one behind the other (see Gate) would pay that in turn, and are woken all
at once, so that they pay it together. Elsewhere that is half as fast.
"""

from __future__ import annotations

import time

# So long a sync is worth a third of its time, if that lets twice as many share the next one.
_SLOW_SYNC_S, _GATHER_S_MAX = 0.001, 0.005
# One behind the other is 10 to 60 us each; beside a thread that computes a ms at least.
_SLOW_PASS_NS, _SLOW_NS_MIN = 500_000, 2_000_000
_BATCHES_AT_ONCE = 16  # then it is tried again


class WakePolicy:
    """Guarded by the log buffer's lock; `size` may be read without.

    Those who are let go say so without it, for it costs too much: how many have `passed`, and when
    (`passed_ns`) the latest. One may be lost among others, so it is an estimate.
    """

    def __init__(self) -> None:
        self.size = 0  # waiters of the last batch
        self._all_back = 0  # so many waiters, and nobody more is expected
        self._gather_s = 0.0
        self._batches_at_once = 0
        self._let_go_ns = self.passed = self.passed_ns = 0

    @property
    def goes_at_once(self) -> bool:
        """Whether all who wait for a batch are to be woken at the same time."""
        return self._batches_at_once > 0

    def synced(self, sync_s: float) -> None:
        """A sync took so long."""
        self._gather_s = min(sync_s / 3, _GATHER_S_MAX) if sync_s > _SLOW_SYNC_S else 0.0

    def let_go(self, waiters: int, waiting: int) -> None:
        """So many have been, and so many wait already for the next batch."""
        self.size = waiters
        self._all_back = waiters + waiting
        self._let_go_ns, self.passed = time.perf_counter_ns(), 0

    def is_last(self, waiting: int) -> bool:
        """Whether the one who came as so many wait is the last that is expected."""
        return waiting == self._all_back

    def due_s(self, waiting: int) -> float:
        """Seconds until the next commit, as so many wait for it."""
        if waiting >= self._all_back:
            return 0
        return self._gather_s - (time.perf_counter_ns() - self._let_go_ns) / 1e9

    def begins(self) -> None:
        """The next commit begins: how fast have those passed whom the last one has let go?"""
        if self._batches_at_once:
            self._batches_at_once -= 1
        elif self.size > 1:
            took_ns = self.passed_ns - self._let_go_ns
            if took_ns > max(_SLOW_NS_MIN, self.passed * _SLOW_PASS_NS):
                self._batches_at_once = _BATCHES_AT_ONCE
