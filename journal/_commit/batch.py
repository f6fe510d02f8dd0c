"""Batch: records that are committed together, from the first one that is appended on."""

from __future__ import annotations

from typing import NamedTuple

from journal._commit.gate import Gate


class Commit(NamedTuple):
    """Bytes with their place: writing them twice is writing them once."""

    data: bytes
    offset: int
    last_lsn: int
    log_bytes: int  # written since open, these included


class CommitBatch:
    """Records that share a commit.

    While it fills, the log buffer's lock guards it, and the log buffer adds its records.
    """

    __slots__ = (
        "bytes",
        "commit",
        "first_lsn",
        "gate",
        "groups",
        "records",
        "since",
        "sync",
        "waiters",
    )

    def __init__(self, first_lsn: int) -> None:
        self.first_lsn = first_lsn
        self.records: list[bytes] = []
        self.groups: list[tuple[int, int]] = []  # from, to: indices that share a frame
        self.bytes = 0
        self.since = 0.0
        self.waiters = 0
        self.sync = False  # someone waits for the log itself, whatever the durability
        self.gate: Gate | None = None
        self.commit: Commit | None = None  # once it has its place on disk

    @classmethod
    def of(cls, first_lsn: int, records: list[bytes]) -> CommitBatch:
        """Return a batch of packed `records`, all at once."""
        batch = cls(first_lsn)
        batch.records, batch.bytes = records, sum(map(len, records))
        return batch

    @property
    def last_lsn(self) -> int:
        return self.first_lsn + len(self.records) - 1

    @property
    def has_work(self) -> bool:
        return bool(self.records) or self.sync

    def add_waiter(self) -> int:
        """Count one more waiter, and return how many there are."""
        self.waiters += 1
        return self.waiters

    def require_sync(self) -> None:
        """Have the commit end with a sync, whatever the durability."""
        self.sync = True

    def waiters_gate(self, *, wakes_all_at_once: bool) -> Gate:
        """Return the gate that the batch's waiters wait at. The first one decides how it wakes."""
        if self.gate is None:
            self.gate = Gate(wakes_all_at_once=wakes_all_at_once)
        return self.gate

    def place(self, commit: Commit) -> None:
        """Note the bytes to write, and where. A commit that is repeated writes the same there."""
        self.commit = commit


EVENTS_ONLY = CommitBatch(0)  # nothing to commit, but events to report
