"""Batch: the records of one commit, from the append of the first one until they are durable."""

from __future__ import annotations

from typing import NamedTuple

from journal._commit.gate import Gate
from journal._format.frame import FILLER


class Filler(bytes):
    """A packed filler. Its type distinguishes it from a nil that an owner appends."""

    __slots__ = ()


FILLER_RECORD = Filler(FILLER)


class Commit(NamedTuple):
    """The bytes of a batch and their offset. Writing them twice changes nothing."""

    data: bytes
    offset: int
    last_lsn: int
    log_bytes: int  # written to the log since open, including `data`


class CommitBatch:
    """Records that share a commit.

    While the batch is filling, the log buffer adds records to it, and its lock guards the batch.
    """

    __slots__ = (
        "bytes",
        "commit",
        "first_lsn",
        "gate",
        "groups",
        "is_counted",
        "is_reported",
        "records",
        "since",
        "sync",
        "sync_ns",
        "waiters",
    )

    def __init__(self, first_lsn: int) -> None:
        self.first_lsn = first_lsn
        self.records: list[bytes] = []
        self.groups: list[tuple[int, int]] = []  # (begin, end): records that must share a frame
        self.bytes = 0
        self.since = 0.0  # when the first record was added
        self.waiters = 0
        self.sync = False  # whether the commit must sync, whatever the durability
        self.gate: Gate | None = None
        self.commit: Commit | None = None  # set when the batch has its place on disk
        self.sync_ns = 0  # how long the sync took; 0 if there was none
        self.is_counted = False  # in the figures
        self.is_reported = False  # to the observers, or about to be

    @classmethod
    def of(cls, first_lsn: int, records: list[bytes]) -> CommitBatch:
        batch = cls(first_lsn)
        batch.records, batch.bytes = records, sum(map(len, records))
        return batch

    @property
    def last_lsn(self) -> int:
        return self.first_lsn + len(self.records) - 1

    @property
    def size_bytes(self) -> int:
        """The number of bytes that the commit writes."""
        return len(self.commit.data) if self.commit else 0

    @property
    def has_work(self) -> bool:
        return bool(self.records) or self.sync

    def add_waiter(self) -> int:
        """Count one more waiter, and return how many there are."""
        self.waiters += 1
        return self.waiters

    def require_sync(self) -> None:
        """Make the commit end with a sync, whatever the durability."""
        self.sync = True

    def place(self, commit: Commit) -> None:
        """Set the bytes to write and their offset. A repeated commit writes the same again."""
        self.commit = commit


EVENTS_ONLY = CommitBatch(0)  # there is nothing to commit, only events to report
