"""Metrics: the figures that `stats()` returns, and the observer of events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from journal._public import public


@public
@dataclass(frozen=True, slots=True)
class Histogram:
    """A summary of measured values. All fields are 0 if there are no values."""

    count: int = 0
    """The number of values."""

    p50: int = 0
    """The median, at most 5 % too high."""

    p99: int = 0
    """The 99th percentile, at most 5 % too high."""

    p99_9: int = 0
    """The 99.9th percentile, at most 5 % too high."""

    max: int = 0
    """The largest value, exactly."""

    mean: float = 0.0
    """The mean, exactly."""


@public
@dataclass(frozen=True, slots=True)
class LockStats:
    """Figures of an owner's lock. Every hold counts, including those of reads."""

    hold: Histogram
    """The times for which the lock was held, in nanoseconds."""

    wait: Histogram
    """The times for which a thread waited for the lock, in nanoseconds; 0 if it was free."""

    def __repr__(self) -> str:
        return f"LockStats(hold: {_times(self.hold)}; wait: {_times(self.wait)})"


def _times(ns: Histogram) -> str:
    parts = (("p50", ns.p50), ("p99", ns.p99), ("p99.9", ns.p99_9), ("max", ns.max))
    return f"{ns.count} times, " + ", ".join(f"{name} {_duration(value)}" for name, value in parts)


def _duration(ns: int) -> str:
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)):
        if ns >= size:
            return f"{ns / size:.1f} {unit}"
    return f"{ns} ns"


@public
@dataclass(frozen=True, slots=True)
class Stats:
    """A journal's figures since it was opened."""

    commits: int
    """The number of commits."""

    records: int
    """The number of records in those commits."""

    bytes: int
    """The number of bytes written to the log: frames and segment headers."""

    syncs: int
    """The number of syncs of the log."""

    commit_records: Histogram
    """The number of records in each commit."""

    commit_bytes: Histogram
    """The size of each commit, in bytes."""

    sync_ns: Histogram
    """The duration of each sync, in nanoseconds."""

    wait_ns: Histogram
    """The time for which each thread blocked in `wait_durable`, in nanoseconds. Waits in an event
    loop are not measured."""

    buffered_bytes: int
    """The number of bytes that are appended but not yet committed."""

    backlog_records: int
    """The number of records that are appended but not yet durable."""

    durable_lsn: int
    """The LSN up to which every record is acknowledged."""

    synced_lsn: int
    """The LSN up to which every record survives a power cut. With durability "os" it may be
    lower than `durable_lsn`."""

    last_lsn: int
    """The LSN of the last record that was appended."""

    segments: int
    """The number of segments in the directory now."""

    disk_bytes: int
    """The size of all files in the directory now, in bytes, preallocated space included."""

    compactions: int
    """The number of compactions that succeeded."""

    compaction_ns: int
    """The time that those took, in nanoseconds."""

    checkpoint_bytes: int
    """The size of the checkpoints that they wrote, in bytes."""

    compaction_failures: int
    """The number of compactions that failed, in the compactor's thread or in a call of `compact`.
    A compaction that was given up because the journal closed does not count."""

    last_compaction_error: str
    """The type and the message of the last failed compaction's error; "" if none has failed. A
    later success does not clear it."""

    stalls: int
    """The number of times that writers were held up: appends refused with BufferFullError because
    the buffer was full, commits that found no space on the disk (each counts once, however often it
    was retried), and periods without room because a compaction was overdue. Callers that waited for
    room do not count."""

    unreadable_records: int
    """The number of records that the open passed over, because they are damaged and its checkpoint
    holds the state after them. The state is complete, but `replay` can't read these records."""

    mirrored_lsn: int | None = None
    """The LSN up to which the mirror has every record. This and the fields below are None for a
    journal without a mirror."""

    mirror_lag_s: float | None = None
    """An upper bound of the time, in seconds, for which the oldest synced record that the mirror
    lacks has waited; 0 if it lacks none. If this machine is lost now, the synced records of that
    time are lost, too."""

    mirror_lag_bytes: int | None = None
    """The size of the synced log that the mirror lacks, in bytes."""

    mirror_requests: int | None = None
    """The number of requests to the mirror's store, those of the open included."""

    mirror_retries: int | None = None
    """The number of uploads that were repeated because one had failed or was not answered."""

    mirror_stalls: int | None = None
    """The number of periods in which the mirror could not be reached."""


@public
class StatsSource(Protocol):
    """An object whose figures can be exported, such as a Journal, a DurableState or a manager."""

    @property
    def closed(self) -> bool:
        """True if it has no more figures to export."""

    def stats(self) -> Stats:
        """Return its figures since open."""


@public
class Observer(Protocol):
    """A receiver of events, called in the flusher's or the compactor's thread shortly after each.

    A callback must not wait for a commit, and its updates must be `urgent`: a call that would wait
    for the callback's own thread raises InterruptedCallError. If the callback raises anything, even
    SystemExit, the exception is logged, and the engine continues.
    """

    def committed(self, records: int, size_bytes: int, sync_ns: int) -> None:
        """Receive a commit: `records` records in frames of `size_bytes`, now durable.

        `sync_ns` is how long its sync took, or 0 if it was not synced.
        """

    def stalled(self, error: OSError) -> None:
        """Receive the error of a commit that found no space. It is retried until there is space."""

    def compacted(self, lsn: int, count: int, size_bytes: int, duration_ns: int) -> None:
        """Receive a compaction, which published a checkpoint as of `lsn` in `duration_ns`.

        The checkpoint has `count` items in `size_bytes`.
        """

    def compaction_failed(self, error: BaseException) -> None:
        """Receive the error of a failed compaction. The log continues, and the thread tries again.

        An observer may lack this method. Don't keep `error`: its frames keep the owner's state
        alive.
        """
        return

    def failed(self, error: BaseException) -> None:
        """Receive the error that stopped the journal. Calls raise FailedError from it."""


@public
class MirrorObserver(Observer, Protocol):
    """An observer that also receives the events of a mirror. One that lacks these methods receives
    the others only."""

    def mirrored(self, lsn: int, size_bytes: int, duration_ns: int) -> None:
        """Receive an upload of `size_bytes`, after which the mirror has every record up to `lsn`.

        `duration_ns` is the time that the upload took, its retries included.
        """

    def mirror_stalled(self, error: BaseException) -> None:
        """Receive the MirrorError of the first upload that failed. It is repeated until it
        succeeds."""
