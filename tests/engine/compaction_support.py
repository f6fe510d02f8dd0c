"""Helpers that the tests of compaction share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from journal import Checkpoint, Journal, Options
from journal.testing import SimulatedDisk
from tests.support import PATH, IdleObserver, Table, frozen, names, options


def checkpoint_lsns(disk: SimulatedDisk) -> list[int]:
    return [int(name[11:31]) for name in names(disk, ".json")]


def first_lsns(disk: SimulatedDisk) -> list[int]:
    return [int(name[:20]) for name in names(disk, ".seg")]


def setting(key: str, value: int | None, _: Table) -> list[Any]:
    return [key, value]


def compact(journal: Journal, *items: Any) -> Checkpoint:
    return journal.compact(frozen(journal, *items))


def small() -> Options:
    """Return options with compaction due after 4,000 bytes of log, and with updates held soon
    after."""
    return options(checkpoint_min_bytes=4000, flush_bytes=1000)


def open_small(disk: SimulatedDisk) -> Journal:
    return Journal.open(PATH, options=small(), disk=disk)


def raising(error: BaseException) -> Callable[[], Any]:
    """Return a freeze that raises `error` each time."""

    def freeze() -> Any:
        raise error

    return freeze


class RecordingObserver(IdleObserver):
    """An observer that counts compactions and records their failures."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.compactions = 0

    def compacted(self, lsn: int, count: int, size_bytes: int, duration_ns: int) -> None:
        self.compactions += 1

    def compaction_failed(self, error: BaseException) -> None:
        self.failures.append(repr(error))


class FailsOnce:
    """A freeze of everything that was appended to `journal`. The first attempt raises `error`."""

    def __init__(self, journal: Journal, error: BaseException) -> None:
        self._journal = journal
        self._error = error
        self.attempts = 0

    def __call__(self) -> tuple[int, list[Any]]:
        self.attempts += 1
        if self.attempts == 1:
            raise self._error
        return self._journal.last_lsn, ["good"]
