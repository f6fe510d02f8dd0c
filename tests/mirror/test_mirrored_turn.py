"""The turn of the waiters of a mirrored journal."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from journal import FailedError
from journal._commit.mirrored_turn import MirroredTurn
from journal._mirror import rolling_up, shipper
from journal._mirror.memory_store import MemoryStore
from journal.testing import ManualOptions
from tests.engine.waiting_support import log_of
from tests.mirror.stores import TIMEOUT_S, SilentStore, opened, write
from tests.support import until


def test_a_lone_waiter_is_expected_once(tmp_path: Path) -> None:
    """P7: no commit or upload waits for a second waiter after one that committed in its own
    thread."""
    with opened(tmp_path / "a", MemoryStore(), ack="remote") as journal:
        for _ in range(4):
            write(journal)
            turn = journal._turn
            assert isinstance(turn, MirroredTurn)
            assert turn._expected_waiters == turn.wake_policy.expected_waiters == 1


def test_an_upload_waits_for_as_long_as_the_missing_waiters_are_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: after a release, an upload waits for the part of the last one that the missing waiters
    are of all, at least a quarter, and for no one if all are there."""
    with opened(tmp_path / "a", MemoryStore(), ack="remote") as journal:
        turn = journal._turn
        assert isinstance(turn, MirroredTurn)
        monkeypatch.setattr(turn.wake_policy, "since_release_s", lambda: 0.001)
        monkeypatch.setattr(turn, "_expected_waiters", 10)
        for waiting, upload_s, limit_s in ((4, 0.03, 0.018), (9, 0.03, 0.0075), (1, 9.0, 0.05)):
            monkeypatch.setattr(turn, "_upload_s", upload_s)
            monkeypatch.setattr(MirroredTurn, "waiting", waiting)
            assert turn.gather_s() == pytest.approx(limit_s - 0.001)
        monkeypatch.setattr(MirroredTurn, "waiting", 10)
        assert turn.gather_s() == 0


def test_a_waiter_that_comes_as_a_commit_ends_learns_of_a_failure(
    tmp_path: Path, store: SilentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: a waiter that takes the gate of a commit after it was synced, and goes on after the
    journal has failed, gets the failure and does not wait forever."""
    with opened(tmp_path / "a", store, ack="remote") as journal:
        store.fall_silent()
        turn, committer = journal._turn, journal._committer
        assert isinstance(turn, MirroredTurn)
        is_synced, may_end = threading.Event(), threading.Event()
        wake_mirror = committer._wake_mirror

        def synced() -> None:
            is_synced.set()
            assert may_end.wait(TIMEOUT_S)
            committer._wake_mirror = wake_mirror

        committer._wake_mirror = synced
        lsn = journal.append("x")
        held_gate, looked = turn._held_gate, list[int]()

        def look(lsn: int) -> Any:
            looked.append(lsn)
            if len(looked) == 1:  # before the commit
                assert is_synced.wait(TIMEOUT_S)
                return None
            if len(looked) == 2:  # after the next commit has failed
                may_end.set()
                until(lambda: turn._committing is None, "the end of the commit")
                committer.stop(OSError("no disk"))
            return held_gate(lsn)

        monkeypatch.setattr(turn, "_held_gate", look)
        with pytest.raises(FailedError):
            journal.wait_durable(lsn, timeout_s=1)
        store.answer()


def test_an_upload_that_ends_as_the_wait_for_it_does_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait whose time is over just before the mirror has the record returns."""
    with opened(tmp_path / "a", MemoryStore()) as journal:
        mirroring = journal._mirroring()
        wait = mirroring.wait

        def wait_too_briefly(lsn: int, timeout_s: float | None) -> bool:
            assert wait(lsn, TIMEOUT_S)
            return False

        monkeypatch.setattr(mirroring, "wait", wait_too_briefly)
        lsn = journal.append("in time")
        journal.wait_mirrored(lsn, timeout_s=TIMEOUT_S)
        assert journal.mirrored_lsn >= lsn


def test_an_acknowledgement_wakes_the_flusher() -> None:
    """P7: The flusher may wait for the waiters that an earlier acknowledgement released, which are
    more than the new one lets it expect."""
    log = log_of(ManualOptions(), MirroredTurn)
    log.append_and_wait("waited for")
    batch = log.turn.take()
    assert batch is not None
    log.turn.committed(batch, 0, 0)
    log.is_woken()
    assert isinstance(log.turn, MirroredTurn)
    log.turn.acknowledge(1, 0)
    assert log.is_woken()


class TrimsSlowly(MemoryStore):
    """A store that trims one entry after the other, and each only once `goes_on` is released."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.goes_on = threading.Semaphore(0)

    def trim(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.begun.set()
            assert self.goes_on.acquire(timeout=TIMEOUT_S)
            super().trim([number])


@pytest.mark.parametrize("ack", ["local", "remote"])
def test_a_close_waits_for_no_backlog_of_the_upkeep(
    ack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A close ends although the mirror still has many entries to trim, which some stores do one by
    one. It does not report that the mirror lacks anything."""
    monkeypatch.setattr(rolling_up, "ROLL_UP_ENTRIES", 10)
    monkeypatch.setattr(shipper, "_UPKEEP_S_MAX", 0.05)
    store = TrimsSlowly()
    journal = opened(tmp_path / "a", store, ack=ack)
    for _ in range(20):
        journal.wait_mirrored(write(journal), timeout_s=TIMEOUT_S)
    assert store.begun.wait(TIMEOUT_S)
    assert journal._core.mirroring is not None
    appender = journal._core.mirroring._shipper._linked.appender

    def end_trim() -> None:
        until(lambda: not appender.trims, "the close gives up the trims to come")
        store.goes_on.release()

    with ThreadPoolExecutor(1) as pool, caplog.at_level(logging.WARNING, "journal"):
        ending = pool.submit(end_trim)
        journal.close(timeout_s=TIMEOUT_S)
        ending.result()
    assert caplog.records == []
