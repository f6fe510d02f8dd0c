"""Batch: records that are committed together, from the first one that is appended on."""

from __future__ import annotations

from typing import NamedTuple

from journal._commit.gate import Gate


class Commit(NamedTuple):
    """Bytes with their place: writing them twice is writing them once."""

    data: bytes
    offset: int
    log_bytes: int  # written since open, these included


class Batch:
    """Records that share a commit. Guarded by the buffer's lock while it fills."""

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

    @property
    def last_lsn(self) -> int:
        return self.first_lsn + len(self.records) - 1

    @property
    def has_work(self) -> bool:
        return bool(self.records) or self.sync


NEWS = Batch(0)  # what the flusher gets where there is nothing to commit, and something to tell
