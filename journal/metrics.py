"""Figures: histograms that cost their callers one append, and what `stats()` returns."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from journal._mutex import HandlerSafeLock, is_raised_by_call
from journal._public import public


@public
@dataclass(frozen=True, slots=True)
class Histogram:
    """`count` values, and of them `p50`, `p99`, `p99_9` (at most 5 % over), `max`, `mean` (exact).

    All are 0 where there are no values.
    """

    count: int = 0
    p50: int = 0
    p99: int = 0
    p99_9: int = 0
    max: int = 0
    mean: float = 0.0


@public
@dataclass(frozen=True, slots=True)
class LockStats:
    """How long an owner's lock was held (`hold`) and waited for (`wait`), in ns.

    Every hold counts, reads too.
    """

    hold: Histogram
    wait: Histogram


@public
@dataclass(frozen=True, slots=True)
class Stats:
    """A journal's figures since it was opened.

    Sums: `commits` that wrote `records` in frames of so many `bytes`, and `syncs` of the log;
    `compactions`, which took `compaction_ns` and wrote `checkpoint_bytes`.

    `compaction_failures` counts failed compactions, by the thread and by hand. A compaction that
    was given up because the journal closed does not count.
    `last_compaction_error` is the type and the message of the last one's error, "" if none has
    failed. A compaction that succeeds does not clear it.

    Histograms: `commit_records` and `commit_bytes` a commit, `sync_ns` a sync, and `wait_ns`, how
    long a thread blocked in `wait_durable` (who waits in an event loop is not measured).

    As of now: `buffered_bytes` are appended and not yet committed, `backlog_records` not yet
    durable. `last_lsn` is the last one appended; up to `durable_lsn` all is acknowledged, up to
    `synced_lsn` it survives a power cut: with durability "os" that is less. The directory holds
    so many `segments`; all its files have `disk_bytes`, with what is preallocated.

    `stalls` counts what held writers up: each append that was refused with BufferFullError at the
    buffer's bound; each commit that found no space on the disk, once however often it tried
    again; each time that there was no room until a compaction had caught up. Who waited for room,
    and got it or gave up, is not counted.
    """

    commits: int
    records: int
    bytes: int
    syncs: int
    commit_records: Histogram
    commit_bytes: Histogram
    sync_ns: Histogram
    wait_ns: Histogram
    buffered_bytes: int
    backlog_records: int
    durable_lsn: int
    synced_lsn: int
    last_lsn: int
    segments: int
    disk_bytes: int
    compactions: int
    compaction_ns: int
    checkpoint_bytes: int
    compaction_failures: int
    last_compaction_error: str
    stalls: int


@public
class Observer(Protocol):
    """Told of what happens, in the flusher's or the compactor's thread, a moment after it happened.

    A callback must not wait for a commit, and its updates must be `urgent`. One that raises
    anything, SystemExit too, is skipped, and that is logged.
    """

    def committed(self, records: int, size_bytes: int, sync_ns: int) -> None:
        """So many records are durable now, in frames of `size_bytes`; `sync_ns` 0: unsynced."""

    def stalled(self, error: OSError) -> None:
        """There is no space for a commit, which is tried again until there is."""

    def compacted(self, lsn: int, count: int, size_bytes: int, duration_ns: int) -> None:
        """A checkpoint as of `lsn`, of `count` items in `size_bytes`, was published."""

    def compaction_failed(self, error: BaseException) -> None:
        """A compaction failed with `error`. The log goes on, and the thread tries again.

        An observer without this method is not told. Don't keep `error`: its frames keep the
        owner's state alive.
        """
        return

    def failed(self, error: BaseException) -> None:
        """The journal stopped for good: what it raises from now on is a FailedError from this."""


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
