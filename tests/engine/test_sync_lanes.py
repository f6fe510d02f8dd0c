"""Syncs side by side: what is acknowledged when, and how the lanes begin and end."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from journal import FailedError, Journal, Options
from journal._commit.commit_turn import CommitTurn, LoneWaiter
from journal.testing import SimulatedDisk, lose
from journal.testing.disk import SimulatedFile
from tests.engine.waiting_support import wait_in
from tests.lanes_support import LANES, HeldSyncs, in_flight, side_by_side, without_lone_waiters
from tests.support import (
    TIMEOUT_S,
    Watched,
    frozen,
    names,
    on_disk,
    open_on,
    put,
    reopened,
    until,
)

TAKE_ALONE = CommitTurn.take_alone


@pytest.fixture(autouse=True)
def _lanes() -> Iterator[None]:
    with side_by_side(), without_lone_waiters():
        yield


@pytest.fixture
def held(disk: SimulatedDisk) -> Iterator[HeldSyncs]:
    held = HeldSyncs(disk)
    yield held
    held.release_all()


@pytest.fixture
def journal(disk: SimulatedDisk, held: HeldSyncs) -> Iterator[Journal]:
    """Yield a journal whose first record is durable, and whose syncs are held from then on."""
    journal = open_on(disk, segment_bytes=1 << 16)
    put(journal, 0)
    held.hold()
    yield journal
    held.release_all()
    if not journal.closed:
        with suppress(FailedError):
            journal.close(timeout_s=TIMEOUT_S)


def begin(
    journal: Journal, pool: ThreadPoolExecutor, held: HeldSyncs, count: int
) -> list[Future[None]]:
    """Commit `count` records, and wait until all their syncs are in flight."""
    waiting: list[Future[None]] = []
    for _ in range(count):
        begun = len(held.all)
        waiting.append(wait_in(pool, journal, journal.append(journal.last_lsn)))
        held.wait_for(begun + 1)
    return waiting


def lsns_done(waiting: list[Future[None]]) -> list[bool]:
    return [future.done() for future in waiting]


def test_a_commit_is_acknowledged_after_all_earlier_ones(
    journal: Journal, pool: ThreadPoolExecutor, held: HeldSyncs
) -> None:
    """P2: A sync that ends before an earlier one releases nobody: the earlier one may fail."""
    waiting = begin(journal, pool, held, 3)
    held.all[2].release()
    held.all[1].release()
    until(lambda: not any(lane.pending for lane in journal._core.committer._lanes._lanes[1:]), "")
    assert (lsns_done(waiting), journal.durable_lsn) == ([False] * 3, 1)
    held.all[0].release()
    for future in waiting:
        future.result(TIMEOUT_S)
    assert journal.durable_lsn == 4


def test_a_waiter_that_comes_during_the_syncs_waits_for_its_own(
    journal: Journal, pool: ThreadPoolExecutor, held: HeldSyncs
) -> None:
    """P2: Two commits are in flight, and each has waiters of its own."""
    begin(journal, pool, held, 2)
    late = [wait_in(pool, journal, lsn) for lsn in (2, 3)]
    until(lambda: [each.gate is not None for each in journal._turn._syncing] == [True] * 2, "")
    held.all[0].release()
    late[0].result(TIMEOUT_S)
    assert not late[1].done()
    held.all[1].release()
    late[1].result(TIMEOUT_S)


def test_the_bytes_of_all_syncs_in_flight_count(
    journal: Journal, pool: ThreadPoolExecutor, held: HeldSyncs
) -> None:
    """They are in memory until they are acknowledged, within `buffer_bytes`."""
    begin(journal, pool, held, 2)
    assert journal._buffer.used_bytes == 2
    held.all[0].release()
    until(lambda: journal._buffer.used_bytes == 1, "one byte")
    held.all[1].release()
    until(lambda: journal._buffer.used_bytes == 0, "no bytes")


def test_at_most_so_many_syncs_are_in_flight(
    journal: Journal, pool: ThreadPoolExecutor, held: HeldSyncs
) -> None:
    """A further commit waits for the oldest sync, and gathers records meanwhile."""
    begin(journal, pool, held, LANES)
    more = [wait_in(pool, journal, journal.append("more")) for _ in range(2)]
    held.all[1].release()  # it is not the oldest
    until(lambda: journal._buffer.filling.waiters == 2, "two waiters")
    time.sleep(0.02)  # in which nothing may happen
    assert (in_flight(journal), len(held.all)) == (LANES, LANES)
    held.all[0].release()
    held.wait_for(LANES + 1)
    held.release_all()
    for future in more:
        future.result(TIMEOUT_S)


@pytest.mark.parametrize("failing", range(3))
@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "broken"), OSError(errno.ENOSPC, "broken"), MemoryError("broken")]
)
def test_a_failed_sync_fails_all_that_are_not_acknowledged(
    journal: Journal,
    disk: SimulatedDisk,
    pool: ThreadPoolExecutor,
    held: HeldSyncs,
    failing: int,
    error: Exception,
) -> None:
    """P2: A failed sync may have dropped what the others were to store, earlier ones included."""
    waiting = begin(journal, pool, held, 3)
    held.all[failing].release(error)
    for future in waiting:
        with pytest.raises(FailedError, match="broken"):
            future.result(TIMEOUT_S)
    held.release_all()
    with pytest.raises(FailedError, match="broken"):
        journal.close(timeout_s=TIMEOUT_S)
    assert journal.durable_lsn == 1
    disk.power_cut(lose)
    assert reopened(disk)[:1] == [0]


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda journal: journal.close(timeout_s=TIMEOUT_S), id="close"),
        pytest.param(lambda journal: journal.compact(frozen(journal)), id="compact"),
        pytest.param(lambda journal: put(journal, "x" * (1 << 16)), id="roll"),
    ],
)
def test_whatever_needs_a_whole_log_waits_for_the_syncs_in_flight(
    journal: Journal, disk: SimulatedDisk, pool: ThreadPoolExecutor, held: HeldSyncs, end: Any
) -> None:
    """P2, P5: A close, a checkpoint and a new segment state that all before them is durable."""
    waiting = begin(journal, pool, held, 2)
    call = pool.submit(end, journal)
    held.all[1].release()
    time.sleep(0.02)  # in which nothing may happen
    assert not call.done()
    assert len(held.all) == 2
    assert (journal.durable_lsn, names(disk, ".ckpt"), len(names(disk, ".seg"))) == (1, [], 1)
    held.release_all()
    call.result(TIMEOUT_S)
    for future in waiting:
        future.result(TIMEOUT_S)
    assert on_disk(disk)[:3] == [0, 1, 2]


def test_an_idle_log_is_marked_after_the_syncs_in_flight(
    disk: SimulatedDisk,
    pool: ThreadPoolExecutor,
    held: HeldSyncs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P4: The mark states that the last commit is durable, so it comes after its sync."""
    monkeypatch.setattr(Options, "idle_s", 0.01)
    with open_on(disk) as journal:
        put(journal, 0)
        held.hold()
        waiting = begin(journal, pool, held, 2)
        held.all[1].release()
        time.sleep(0.05)  # longer than the log has to be idle
        recorded_lsn = journal._core.committer._writer._segment.recorded_lsn  # type: ignore[union-attr]
        assert recorded_lsn <= 1
        held.release_all()
        for future in waiting:
            future.result(TIMEOUT_S)
        until(lambda: journal._core.committer._writer._segment.recorded_lsn == 3, "the mark")  # type: ignore[union-attr]


def test_a_full_disk_is_waited_for(
    disk: SimulatedDisk, pool: ThreadPoolExecutor, held: HeldSyncs
) -> None:
    """P8: A write that finds no space is repeated at the same place, after the syncs in flight."""
    with open_on(disk, segment_bytes=1 << 16) as journal:
        put(journal, 0)
        held.hold()
        waiting = begin(journal, pool, held, 1)
        calls = Watched(disk)
        disk.fail("write", errno.ENOSPC, times=2)
        full = disk.before
        assert full is not None
        waiting.append(wait_in(pool, journal, journal.append(1)))
        until(lambda: journal.stats().stalls == 1, "the stall")
        held.release_all()
        for future in waiting:
            future.result(TIMEOUT_S)
        assert calls.of("sync") == 0
    assert reopened(disk) == [0, 1, 1]


def test_a_waiter_commits_nothing_beside_the_lanes(
    journal: Journal, pool: ThreadPoolExecutor, held: HeldSyncs
) -> None:
    """P2: A lone waiter's commit would be acknowledged before an earlier one."""
    begin(journal, pool, held, 1)
    lsn = journal.append("nobody waits for this")
    waiter = LoneWaiter()
    taken = TAKE_ALONE(journal._turn, lsn, waiter)
    journal._turn.leave(waiter, is_done=False)
    held.release_all()
    assert taken is None


def test_an_interrupted_commit_is_repeated_at_its_place(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: A lone waiter that has written its commit leaves it to the flusher, which syncs it by
    itself."""
    monkeypatch.setattr(CommitTurn, "take_alone", TAKE_ALONE)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with open_on(disk) as journal:
        put(journal, 0)
        with monkeypatch.context() as patch:
            patch.setattr(CommitTurn, "leave", interrupted)
            patch.setattr(SimulatedFile, "is_linked", interrupted)
            with pytest.raises(KeyboardInterrupt):
                journal.wait_durable(journal.append(1))
        put(journal, 2)
    assert reopened(disk) == [0, 1, 2]


def test_observers_see_the_commits_in_their_order(
    disk: SimulatedDisk, pool: ThreadPoolExecutor, held: HeldSyncs
) -> None:
    """P10: A lane reports a commit before the flusher commits the next one by itself."""
    sizes: list[int] = []

    observer: Any = SimpleNamespace(committed=lambda records, *_: sizes.append(records))
    with open_on(disk) as journal:
        journal.observe(observer)
        put(journal, 0)
        held.hold()
        waiting = begin(journal, pool, held, 1)
        journal.append_batch([b"x" * 50] * 100)  # begins a segment, so no lane syncs it
        last = wait_in(pool, journal)
        until(lambda: journal._turn._committing is not None, "the next commit")
        held.release_all()
        for future in (*waiting, last):
            future.result(TIMEOUT_S)
        until(lambda: len(sizes) == 3, "three events")
    assert sizes == [1, 1, 100]
