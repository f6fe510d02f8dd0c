"""The commit turn on its own: which thread may take it, and how it is left, also by an
interrupt."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from msgpack import packb

from journal import Journal
from journal._commit.backpressure import Backpressure
from journal._commit.buffer import LogBuffer
from journal._commit.commit_turn import CommitTurn, LoneWaiter
from journal._commit.gate import Gate
from journal._commit.wake_policy import WakePolicy
from journal.testing import ManualOptions, SimulatedDisk
from tests.engine.waiting_support import Log, log_of
from tests.support import (
    PATH,
    TIMEOUT_S,
    put,
    reopened,
)


@pytest.mark.parametrize(
    ("meanwhile", "woken"),
    [
        pytest.param(lambda log: log.append_and_wait(2), True, id="a wait"),
        pytest.param(lambda log: log.buffer.append(2), True, id="an append"),
        pytest.param(lambda log: log.buffer.close(), True, id="a close"),
        pytest.param(lambda log: None, False, id="nothing"),
    ],
)
def test_leaving_the_commit_turn_wakes_the_flusher(
    pool: ThreadPoolExecutor, meanwhile: Callable[[Log], object], woken: bool
) -> None:
    """P2: A flusher that finds the turn taken sleeps again. The waiter that leaves the turn wakes
    it if there is something to do by then."""
    log, waiter = log_of(ManualOptions()), LoneWaiter()
    batch = log.take_alone(1, waiter)
    assert batch is not None
    pool.submit(meanwhile, log).result(TIMEOUT_S)
    log.is_woken()  # the flusher finds the turn taken, and sleeps again
    log.turn.committed(batch, 0, 0)
    log.turn.leave(waiter, is_done=True)
    assert log.is_woken() is woken


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "where",
    [(WakePolicy, "note_begin"), (Backpressure, "begin_commit"), (LogBuffer, "begin_batch")],
    ids=lambda where: where[1],
)
def test_the_flusher_takes_the_batch_of_an_interrupted_waiter(
    monkeypatch: pytest.MonkeyPatch, where: tuple[type, str]
) -> None:
    """P2: If an interrupt strikes while a waiter takes the turn, the batch stays open for appends
    until somebody takes it out of the log buffer."""
    log, waiter = log_of(ManualOptions()), LoneWaiter()
    with monkeypatch.context() as patch:
        patch.setattr(*where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.take_alone(1, waiter)
    log.is_woken()  # by the record
    log.turn.leave(waiter, is_done=False)
    assert log.is_woken()
    log.buffer.append(2)
    batch = log.turn.take()
    assert batch is not None
    assert batch.records == [packb(1), packb(2)]
    log.buffer.append(3)
    assert (batch.last_lsn, log.buffer.used_bytes) == (2, 3)


def test_the_flusher_repeats_a_commit_whose_waiter_could_not_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P2: A waiter that is interrupted while it leaves the turn has left it all the same, and its
    thread may wait again."""
    log, waiter = log_of(ManualOptions()), LoneWaiter()
    batch = log.take_alone(1, waiter)
    assert batch is not None
    log.turn.committed(batch, 0, 0)
    with monkeypatch.context() as patch:
        patch.setattr(CommitTurn, "_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.turn.leave(waiter, is_done=True)
    is_committing = [log.turn.is_committing_here]
    waiter.has_left = True
    is_committing.append(log.turn.is_committing_here)
    assert is_committing == [True, False]
    for _ in range(2):
        log.turn.leave(waiter, is_done=False)
    assert log.is_woken()
    assert log.take_alone(2) is None
    assert log.turn.take() is batch


@pytest.mark.parametrize(
    "wait",
    [
        pytest.param(lambda log: log.turn.gate(1), id="a wait"),
        pytest.param(lambda log: log.turn.room_gate(), id="a wait for room"),
        pytest.param(lambda log: log.turn.request_commit(1), id="a request"),
    ],
)
@pytest.mark.parametrize("has_left", [True, False])
def test_a_wait_lets_the_flusher_check_on_a_lone_waiter(
    pool: ThreadPoolExecutor, wait: Callable[[Log], object], has_left: bool
) -> None:
    """P2: Two interrupts can prevent a lone waiter from waking the flusher when it leaves, and the
    flusher may sleep for `flush_interval_s`. A wait wakes it, and from then on it looks by
    itself."""
    log, waiter = log_of(ManualOptions(buffer_bytes=100)), LoneWaiter()
    batch = log.take_alone("x" * 60, waiter)
    assert batch is not None
    log.is_woken()  # the flusher has seen the record, and sleeps again
    waiter.has_left = has_left
    pool.submit(wait, log).result(TIMEOUT_S)
    assert log.is_woken()
    if has_left:
        assert log.turn.take() is batch


def test_repeated_interrupts_do_not_block_the_commit_turn(
    disk: SimulatedDisk, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: Signals may arrive faster than a lone waiter can handle them, so that it makes no
    progress. The flusher commits, and all threads can wait as before."""
    committed = CommitTurn.committed

    def interrupted_here(turn: CommitTurn, *args: Any) -> tuple[Gate | None, ...]:
        if turn.is_committing_here:
            raise KeyboardInterrupt
        return committed(turn, *args)

    with Journal.open(PATH, options=ManualOptions(), disk=disk) as journal:
        put(journal, 1)
        with monkeypatch.context() as patch:
            patch.setattr(CommitTurn, "committed", interrupted_here)
            patch.setattr(CommitTurn, "leave", interrupted)
            with pytest.raises(KeyboardInterrupt):
                journal.wait_durable(journal.append(2))
        put(journal, 3)
        pool.submit(put, journal, 4).result(TIMEOUT_S)
    assert reopened(disk) == [1, 2, 3, 4]
