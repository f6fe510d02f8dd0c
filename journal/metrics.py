"""Figures: what `stats()` returns, and who is told of events."""

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
    """Figures of an owner's lock. Each time it was held counts, also for reads."""

    hold: Histogram
    """The times for which the lock was held, in nanoseconds."""

    wait: Histogram
    """The times for which a thread waited for the lock, in nanoseconds."""


@public
@dataclass(frozen=True, slots=True)
class Stats:
    """A journal's figures since it was opened."""

    commits: int
    """The number of commits."""

    records: int
    """The number of records in those commits."""

    bytes: int
    """The size of their frames, in bytes."""

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
    """The number of bytes that are appended and not yet committed now."""

    backlog_records: int
    """The number of records that are appended and not yet durable now."""

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
    One that was given up because the journal closed does not count."""

    last_compaction_error: str
    """The type and the message of the last failed compaction's error; "" if none has failed. A
    compaction that succeeds does not clear it."""

    stalls: int
    """The number of times that writers were held up: appends that were refused with BufferFullError
    at the buffer's bound, commits that found no space on the disk (each once, however often it was
    retried), and times that there was no room until a compaction had caught up. Callers that waited
    for room do not count."""


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
