"""The compactor's thread: when it compacts, and what it does after a failure."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from journal._commit.commit_turn import CommitTurn
from journal._commit.gate import Gate
from journal._log import settle
from journal.testing import SimulatedDisk
from tests.engine.compaction_support import FailsOnce, checkpoint_lsns, compact
from tests.support import (
    PATH,
    TIMEOUT_S,
    Held,
    frozen,
    names,
    open_on,
    put,
    put_lines,
    reopened,
    until,
)


def test_the_thread_compacts_when_the_log_has_grown(disk: SimulatedDisk) -> None:
    """P8: A compaction is due when the log has grown by `checkpoint_min_bytes`, and by
    `checkpoint_growth` times the checkpoint's size, so that all bytes written stay proportional to
    those appended."""
    with open_on(disk, checkpoint_min_bytes=3000, checkpoint_growth=2.0) as journal:
        journal.start_compaction(frozen(journal, "x" * 5000))
        put_lines(journal, 2, size=1000)
        assert journal.stats().compactions == 0
        put_lines(journal, 1, size=1000)
        until(lambda: journal.stats().compactions == 1, "the first compaction")
        put_lines(journal, 8, size=1000)  # less than twice the checkpoint's 5,000 bytes
        assert journal.stats().compactions == 1
        put_lines(journal, 4, size=1000)
        until(lambda: journal.stats().compactions == 2, "the second compaction")
        assert journal.stats().compaction_ns > 0
    assert len(checkpoint_lsns(disk)) == 2


def test_a_compaction_by_hand_postpones_the_next(disk: SimulatedDisk) -> None:
    """P8: The next compaction is due when the log has grown enough since the one by hand."""
    with open_on(disk, checkpoint_min_bytes=5000) as journal:
        journal.start_compaction(frozen(journal, "state"))
        put_lines(journal, 5, size=700)
        journal.compact().close()
        put_lines(
            journal, 5, size=700
        )  # 7,000 bytes since the beginning, 3,500 since the compaction
        put_lines(journal, 3, size=700)
        until(lambda: journal.stats().compactions == 2, "the next compaction")
    assert [lsn >= 11 for lsn in checkpoint_lsns(disk)] == [False, True]


def test_log_growth_before_open_counts(disk: SimulatedDisk) -> None:
    """P8: If compaction was due when a process died, the next process compacts without being
    asked."""
    with open_on(disk) as journal:
        put_lines(journal, 20, size=700)
    with open_on(disk, checkpoint_min_bytes=10_000) as journal:
        journal.start_compaction(frozen(journal, 1))
        until(lambda: checkpoint_lsns(disk) == [20], "the compaction")


def failed_message(delay_s: int) -> str:
    return (
        f"{PATH}: a compaction failed: ZeroDivisionError: the owner's own. The log continues, and "
        f"grows until a compaction succeeds; the next attempt is in {delay_s} s. "
        "Fix `freeze`, or the items that it returns"
    )


def test_a_failing_compaction_is_retried_after_a_delay(
    disk: SimulatedDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread survives an error of the owner, logs it, and retries after a delay, while the log
    continues."""
    attempts: list[int] = []

    def freeze() -> tuple[int, list[Any]]:
        attempts.append(journal.last_lsn)
        raise ZeroDivisionError("the owner's own")

    with open_on(disk, checkpoint_min_bytes=1000) as journal:
        journal.start_compaction(freeze)
        put_lines(journal, 2, size=700)
        until(lambda: attempts, "the first attempt")
        put_lines(journal, 10, size=700)
        until(lambda: journal.stats().compaction_failures == 2, "the second attempt")
    assert (attempts[0], attempts[1]) == (2, 12)
    assert settle(TIMEOUT_S)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [failed_message(delay_s) for delay_s in (1, 2)]


@pytest.mark.usefixtures("impatient")
def test_a_failed_compaction_is_made_after_the_back_off(disk: SimulatedDisk) -> None:
    """P8: The thread compacts after the back-off, and whenever compaction is due afterwards."""
    with open_on(disk, checkpoint_min_bytes=1000) as journal:
        freeze = FailsOnce(journal, ZeroDivisionError("the owner's own"))
        journal.start_compaction(freeze)
        put_lines(journal, 2, size=700)
        until(lambda: journal.stats().compactions == 1, "the second attempt")
        put_lines(journal, 2, size=700)
        until(lambda: journal.stats().compactions == 2, "the next compaction")
    assert freeze.attempts == 3


def test_close_abandons_a_running_compaction(disk: SimulatedDisk) -> None:
    """Close does not wait for the checkpoint of a large state: it abandons it without a trace."""
    reached = threading.Event()

    def items() -> Iterator[int]:
        for n in itertools.count():
            yield n
            reached.set()

    journal = open_on(disk, checkpoint_min_bytes=1000)
    journal.start_compaction(lambda: (journal.last_lsn, items()))
    put_lines(journal, 2, size=700)
    assert reached.wait(TIMEOUT_S)
    journal.close(timeout_s=TIMEOUT_S)
    assert (names(disk, ".json"), names(disk, ".tmp")) == ([], [])
    assert len(reopened(disk)) == 2


def test_compact_waits_for_a_running_compaction(disk: SimulatedDisk) -> None:
    """P10: Compactions run one at a time, so that no older state replaces a newer one."""
    with open_on(disk) as journal, ThreadPoolExecutor(4) as pool:
        put(journal, 1)
        with Held(disk, "rename", ".json") as held:
            first = pool.submit(compact, journal, "first")
            held.wait_reached()
            put(journal, 2)
            second = pool.submit(compact, journal, "second")
            put(journal, 3)
            assert checkpoint_lsns(disk) == []
            held.release_one()
            held.wait_reached()
            assert checkpoint_lsns(disk) == [1]
        assert first.result(TIMEOUT_S).lsn == 1
        assert second.result(TIMEOUT_S).lsn in (2, 3)
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert list(journal.checkpoint.items()) == ["second"]


def test_a_compaction_blocks_no_append(disk: SimulatedDisk) -> None:
    """P7: Records are appended and become durable while a checkpoint is written and synced."""
    with open_on(disk) as journal, ThreadPoolExecutor(2) as pool:
        put(journal, 1)
        with Held(disk, "sync", ".json") as held:
            compacting = pool.submit(compact, journal, *range(1000))
            held.wait_reached()
            put_lines(journal, 20, size=700)
            assert journal.durable_lsn == 21
            assert not compacting.done()
        assert compacting.result(TIMEOUT_S).lsn == 1


def test_items_are_encoded_with_pauses(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: The encoder sleeps after every few items, and hurries only when the log outgrows it.
    Here, an item takes 10 us."""
    pauses: list[float] = []
    cpu_ns = 0
    monkeypatch.setattr("journal._engine.compactor.time.sleep", pauses.append)
    monkeypatch.setattr("journal._engine.compactor.time.thread_time_ns", lambda: cpu_ns)
    monkeypatch.setattr("journal._engine.compaction_schedule._IDLE_AFTER_S", TIMEOUT_S)
    with open_on(disk, checkpoint_min_bytes=100_000) as journal:

        def items(grows: bool) -> Iterator[int]:
            nonlocal cpu_ns
            for n in range(1000):
                if n == 100 and grows:
                    put_lines(journal, 30, size=4000)
                cpu_ns += 10_000
                yield n

        put(journal, 1)
        journal.compact(lambda: (1, items(grows=False)))
        relaxed, pauses[:] = len(pauses), []
        assert relaxed == 500
        put(journal, 2)
        journal.compact(lambda: (2, items(grows=True)))
        assert 0 < len(pauses) < relaxed / 2
    assert set(pauses) <= {0.0002}


def test_room_granted_at_the_end_of_a_commit_is_not_lost(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A waiter for room appends nothing, so no later commit would correct a lost grant."""
    with open_on(disk) as journal:
        committer, committed = journal._core.committer, CommitTurn.committed

        def granted_first(turn: CommitTurn, *commit: Any) -> tuple[Gate | None, ...]:
            committer.hold_from(float("inf"))
            return committed(turn, *commit)

        committer.hold_from(1)
        monkeypatch.setattr(CommitTurn, "committed", granted_first)
        put(journal, 1)
        journal.wait_room(timeout_s=0)
