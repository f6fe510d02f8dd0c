"""Recorder: histograms that cost their callers one append."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from typing import TYPE_CHECKING

from journal._mutex import HandlerSafeLock, is_raised_by_call

if TYPE_CHECKING:  # imported once figures are asked for: making its classes takes 2 ms
    from journal.metrics import Histogram


def _bounds() -> list[int]:
    bounds = [0, 1]
    while bounds[-1] < 1 << 62:
        bounds.append(max(bounds[-1] + 1, bounds[-1] * 21 // 20))
    return bounds


_BOUNDS = _bounds()  # a bucket holds the values up to its bound
PENDING_MAX = 4096


class Recorder:
    """Collects values from any thread; `add` is one append to a list.

    The values are `pending` there until someone who is in no hurry folds them into the buckets,
    which is worth it when there are more than `PENDING_MAX`.
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
        """Call it with no other lock held."""
        with self._lock.checked():
            self._fold()

    def fold_if_free(self) -> None:
        """Fold unless somebody reads the figures, for whom a committing thread must not wait."""
        if self._lock.is_held_here():  # this thread reads them, and was interrupted
            return
        try:
            if self._lock.acquire(blocking=False):
                self._fold()
        finally:
            try:
                self._lock.release()  # first of all: another interrupt may strike after it
            except RuntimeError as error:  # somebody else has it
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
        # Sorted, they are counted a bucket at a time: a search for each would cost twice as much.
        values = self.pending[:]
        del self.pending[: len(values)]  # what others add meanwhile comes after those
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
        left = fraction * count
        for bucket in sorted(self._counts):
            left -= self._counts[bucket]
            if left <= 0:
                return min(_BOUNDS[bucket], self._max)
        return self._max
