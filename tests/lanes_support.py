"""Helpers for tests of syncs side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from journal import Journal
from journal._commit import committer
from journal._commit.commit_turn import CommitTurn
from journal.testing import SimulatedDisk
from journal.testing.disk import Operation
from tests.support import TIMEOUT_S, until

LANES = 3


class AlwaysBeside:
    """A LanePolicy that allows `LANES` syncs in flight, whatever they take."""

    def __init__(self, lanes_max: int) -> None:
        self.lanes = min(LANES, lanes_max)

    def note_alone(self, sync_ns: int, return_ns: int, crowd: int) -> None:
        pass

    def note_beside(self, sync_ns: int, crowd: int, *, has_company: bool) -> None:
        pass


@contextmanager
def side_by_side() -> Iterator[None]:
    """Let the flusher's commits sync side by side, in journals that are opened in the `with`."""
    with patch.object(committer, "LanePolicy", AlwaysBeside):
        yield


@contextmanager
def without_lone_waiters() -> Iterator[None]:
    """Let the flusher commit everything."""
    with patch.object(CommitTurn, "take_alone", lambda turn, lsn, waiter: None):
        yield


class HeldSync:
    """A sync of the log that waits in `SimulatedDisk.before` until it may go on, or fail."""

    def __init__(self) -> None:
        self._may_go = threading.Event()
        self._error: Exception | None = None
        self.has_ended = False  # in the order of the log or not

    def wait(self) -> None:
        assert self._may_go.wait(TIMEOUT_S), "the test never released it"
        if self._error is not None:
            raise self._error

    def release(self, error: Exception | None = None) -> None:
        self._error, self.has_ended = error, True
        self._may_go.set()


class HeldSyncs:
    """Holds each sync of a segment, from `hold` on, until it is released by itself."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk
        self.all: list[HeldSync] = []  # in the order in which they began

    def hold(self) -> None:
        self._disk.before = self._before

    def _before(self, operation: Operation, path: str) -> None:
        if operation == "sync" and ".seg" in path:
            sync = HeldSync()
            self.all.append(sync)
            sync.wait()

    def wait_for(self, count: int) -> None:
        """Wait until `count` syncs have begun."""
        until(lambda: len(self.all) == count, f"sync {count}")

    def release_all(self) -> None:
        self._disk.before = None
        for sync in self.all:
            sync.release()


def in_flight(journal: Journal) -> int:
    """Return the number of commits whose sync is in flight, or that wait for an earlier one."""
    return len(journal._turn._syncing)
