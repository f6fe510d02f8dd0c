"""What the tests of compaction share."""

from __future__ import annotations

from typing import Any

from journal import (
    Checkpoint,
    Journal,
)
from journal.testing import SimulatedDisk
from tests.support import (
    Table,
    frozen,
    names,
)


def checkpoint_lsns(disk: SimulatedDisk) -> list[int]:
    return [int(name[11:31]) for name in names(disk, ".json")]


def first_lsns(disk: SimulatedDisk) -> list[int]:
    return [int(name[:20]) for name in names(disk, ".seg")]


def setting(key: str, value: int | None, _: Table) -> list[Any]:
    return [key, value]


def compact(journal: Journal, *items: Any) -> Checkpoint:
    return journal.compact(frozen(journal, *items))


class FailsOnce:
    """A freeze of all that was appended to `journal`, the first of which raises `error`."""

    def __init__(self, journal: Journal, error: BaseException) -> None:
        self._journal = journal
        self._error = error
        self.attempts = 0

    def __call__(self) -> tuple[int, list[Any]]:
        self.attempts += 1
        if self.attempts == 1:
            raise self._error
        return self._journal.last_lsn, ["good"]
