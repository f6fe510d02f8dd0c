"""Exporting: the figures for monitoring systems, and their names, without any system's own API."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from journal._format.wrong_place import short_repr
from journal.errors import JournalError
from journal.metrics import Histogram, LockStats, Stats, StatsSource

_NS = 1e-9
QUANTILES: tuple[tuple[float, Callable[[Histogram], float]], ...] = (
    (0.5, lambda histogram: histogram.p50),
    (0.99, lambda histogram: histogram.p99),
    (0.999, lambda histogram: histogram.p99_9),
    (1.0, lambda histogram: histogram.max),
)


class Figure(NamedTuple):
    """A figure of Stats. A counter only grows. `unit` is written as in UCUM: s, By, 1."""

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    description: str
    value: Callable[[Stats], float]


class MirrorFigure(NamedTuple):
    """A figure of Stats that only a journal with a mirror has."""

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    description: str
    value: Callable[[Stats], float | None]


class Distribution(NamedTuple):
    """A histogram of Stats or LockStats. Its values, multiplied by `scale`, are in `unit`."""

    name: str
    unit: str
    description: str
    scale: float
    histogram: Callable[[Stats, LockStats | None], Histogram | None]


def _hold(stats: Stats, lock: LockStats | None) -> Histogram | None:
    return lock.hold if lock else None


def _wait(stats: Stats, lock: LockStats | None) -> Histogram | None:
    return lock.wait if lock else None


FIGURES = (
    Figure("commits", "counter", "1", "Commits, each of one or more records.", lambda s: s.commits),
    Figure("records", "counter", "1", "Records committed.", lambda s: s.records),
    Figure("log_bytes", "counter", "By", "Bytes written to the log.", lambda s: s.bytes),
    Figure("syncs", "counter", "1", "Syncs of the log.", lambda s: s.syncs),
    Figure(
        "stalls",
        "counter",
        "1",
        "Appends refused, commits without disk space, waits for a compaction.",
        lambda s: s.stalls,
    ),
    Figure("compactions", "counter", "1", "Compactions that succeeded.", lambda s: s.compactions),
    Figure(
        "compaction_failures",
        "counter",
        "1",
        "Compactions that failed.",
        lambda s: s.compaction_failures,
    ),
    Figure(
        "compaction_time",
        "counter",
        "s",
        "Time that successful compactions took.",
        lambda s: s.compaction_ns * _NS,
    ),
    Figure(
        "checkpoint_bytes",
        "counter",
        "By",
        "Bytes of the checkpoints written.",
        lambda s: s.checkpoint_bytes,
    ),
    Figure(
        "buffered_bytes",
        "gauge",
        "By",
        "Bytes appended but not yet committed.",
        lambda s: s.buffered_bytes,
    ),
    Figure(
        "backlog_records",
        "gauge",
        "1",
        "Records appended but not yet durable.",
        lambda s: s.backlog_records,
    ),
    Figure("last_lsn", "gauge", "1", "LSN of the last record.", lambda s: s.last_lsn),
    Figure(
        "durable_lsn",
        "gauge",
        "1",
        "LSN up to which every record is durable.",
        lambda s: s.durable_lsn,
    ),
    Figure(
        "synced_lsn",
        "gauge",
        "1",
        "LSN up to which every record survives a power cut.",
        lambda s: s.synced_lsn,
    ),
    Figure("segments", "gauge", "1", "Segments on disk.", lambda s: s.segments),
    Figure("disk_bytes", "gauge", "By", "Bytes on disk.", lambda s: s.disk_bytes),
    Figure(
        "unreadable_records",
        "gauge",
        "1",
        "Damaged records that the open passed over, because its checkpoint covers them.",
        lambda s: s.unreadable_records,
    ),
)
MIRROR_FIGURES = (
    MirrorFigure(
        "mirrored_lsn",
        "gauge",
        "1",
        "LSN up to which the mirror has every record.",
        lambda s: s.mirrored_lsn,
    ),
    MirrorFigure(
        "mirror_lag",
        "gauge",
        "s",
        "Time that the oldest synced record that the mirror lacks has waited, at most.",
        lambda s: s.mirror_lag_s,
    ),
    MirrorFigure(
        "mirror_lag_bytes",
        "gauge",
        "By",
        "Bytes of the synced log that the mirror lacks.",
        lambda s: s.mirror_lag_bytes,
    ),
    MirrorFigure(
        "mirror_requests", "counter", "1", "Requests to the mirror.", lambda s: s.mirror_requests
    ),
    MirrorFigure(
        "mirror_retries",
        "counter",
        "1",
        "Uploads to the mirror that were repeated.",
        lambda s: s.mirror_retries,
    ),
    MirrorFigure(
        "mirror_stalls",
        "counter",
        "1",
        "Periods in which the mirror could not be reached.",
        lambda s: s.mirror_stalls,
    ),
)
DISTRIBUTIONS = (
    Distribution("sync_time", "s", "Duration of a sync.", _NS, lambda s, lock: s.sync_ns),
    Distribution(
        "wait_time", "s", "Time that a thread waited for a commit.", _NS, lambda s, lock: s.wait_ns
    ),
    Distribution(
        "commit_records", "1", "Records in a commit.", 1, lambda s, lock: s.commit_records
    ),
    Distribution("commit_bytes", "By", "Bytes of a commit.", 1, lambda s, lock: s.commit_bytes),
    Distribution("lock_hold_time", "s", "Time that a thread held the owner's lock.", _NS, _hold),
    Distribution(
        "lock_wait_time", "s", "Time that a thread waited for the owner's lock.", _NS, _wait
    ),
)


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {short_repr(name)}")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"name has half a surrogate pair: {short_repr(name)}") from None


def _check_source(source: object) -> None:
    rule = "source must be an open journal, state, tables or manager, or another StatsSource"
    has_figures = hasattr(source, "closed") and callable(getattr(source, "stats", None))
    if isinstance(source, type) or not has_figures:
        raise TypeError(f"{rule}, not {short_repr(source)}")
    try:
        weakref.ref(source)
    except TypeError as error:
        raise TypeError(
            f"{rule} that can have weak references, not {short_repr(source)}"
        ) from error


class Watched:
    """The watched sources by name.

    A source is left out if it was dropped, is closed, was opened by another process, or has a
    directory that can't be read now.
    """

    def __init__(self) -> None:
        self._sources: weakref.WeakValueDictionary[str, StatsSource] = weakref.WeakValueDictionary()

    def add(self, name: str, source: StatsSource) -> None:
        """Watch `source` under `name`.

        Raises TypeError or ValueError for what could never be exported, and ValueError if another
        open source has that name.
        """
        _check_name(name)
        _check_source(source)
        other = self._sources.get(name, source)
        if other is not source and not other.closed:
            raise ValueError(f"a journal named {name!r} is already watched; choose another name")
        self._sources[name] = source

    def stats(self) -> Iterator[tuple[str, Stats, LockStats | None]]:
        """Yield the name, the figures and the lock's figures of each readable source."""
        for name, source in sorted(self._sources.items()):
            if source.closed:
                continue
            try:
                lock_stats = getattr(source, "lock_stats", None)
                yield name, source.stats(), lock_stats() if lock_stats else None
            except (JournalError, OSError):
                continue
