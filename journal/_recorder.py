"""Recorder: histograms that cost their callers one append."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from typing import TYPE_CHECKING

from journal._mutex import HandlerSafeLock, is_raised_by_call

if TYPE_CHECKING:  # imported when figures are requested: creating its classes takes 2 ms
    from journal.metrics import Histogram


def _bounds() -> list[int]:
    bounds = [0, 1]
    while bounds[-1] < 1 << 62:
        bounds.append(max(bounds[-1] + 1, bounds[-1] * 21 // 20))
    return bounds


_BOUNDS = _bounds()  # a bucket holds the values up to its bound
PENDING_MAX = 4096


class Recorder:
    """Collects values from any thread. `add` is one append to a list.

    Values stay in `pending` until a thread that is not in a hurry folds them into the buckets. That
    pays off when there are more than `PENDING_MAX`.
    """

    def __init__(self) -> None:
        self.pending: list[int] = []
        self.add = self.pending.append
        # Guards the fields below. Never taken by `add`.
        self._lock = HandlerSafeLock()
        self._counts: Counter[int] = Counter()
        self._max = 0
        self._sum = 0

    def fold(self) -> None:
        """Move the pending values into the buckets. Call this with no other lock held."""
        with self._lock.checked():
            self._fold()

    def fold_if_free(self) -> None:
        """Fold, unless a reader holds the lock: a committing thread must not wait for it."""
        if self._lock.is_held_here():  # this thread is the reader, and was interrupted
            return
        try:
            if self._lock.acquire(blocking=False):
                self._fold()
        finally:
            try:
                self._lock.release()  # as the first call: another interrupt may strike after it
            except RuntimeError as error:  # another thread holds it
                if not is_raised_by_call(error):
                    raise

    def histogram(self) -> Histogram:
        """Return the figures of all values so far."""
        from journal.metrics import Histogram

        with self._lock.checked():
            self._fold()
            count = sum(self._counts.values())
            if not count:
                return Histogram()
            return Histogram(
                count,
                self._quantile(0.50, count),
                self._quantile(0.99, count),
                self._quantile(0.999, count),
                self._max,
                self._sum / count,
            )

    def _fold(self) -> None:
        # Sorted values are counted a bucket at a time; a search for each would take twice as long.
        values = self.pending[:]
        del self.pending[: len(values)]  # values added meanwhile come after these
        values.sort()
        begin = 0
        while begin < len(values):
            bucket = bisect_left(_BOUNDS, values[begin])
            end = bisect_right(values, _BOUNDS[bucket], begin)
            self._counts[bucket] += end - begin
            begin = end
        self._sum += sum(values)
        self._max = max([self._max, *values[-1:]])

    def _quantile(self, fraction: float, count: int) -> int:
        remaining = fraction * count
        for bucket in sorted(self._counts):
            remaining -= self._counts[bucket]
            if remaining <= 0:
                return min(_BOUNDS[bucket], self._max)
        return self._max
