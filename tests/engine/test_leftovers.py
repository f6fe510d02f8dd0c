"""Calls that fail, end early or are abandoned leave no lock, open file or memory."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest

from journal import Journal, Options
from journal._commit.gate import Gate
from journal._engine import core
from journal._state.owner_lock import OwnerLock
from journal.testing import SimulatedDisk
from tests.engine.compaction_support import compact
from tests.engine.test_close import drop
from tests.engine.waiting_support import log_of
from tests.kernel.interrupt_support import monitored, struck
from tests.support import PATH, open_on, put, reopened, sized, until

__all__ = ["monitored"]  # a fixture


@contextmanager
def no_thread_starts() -> Iterator[None]:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield


def test_a_flusher_that_does_not_start_leaves_no_lock(disk: SimulatedDisk) -> None:
    """P5: An open that can't start its flusher fails, and the next open gets the lock."""
    with no_thread_starts(), pytest.raises(RuntimeError, match="can't start new thread"):
        open_on(disk)
    with open_on(disk) as journal:
        put(journal, 1)
    assert reopened(disk) == [1]


def test_an_open_that_is_interrupted_at_its_end_leaves_no_lock(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5: An interrupt may strike when the flusher runs and the caller has no journal yet."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "__init__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_on(disk)
    until(lambda: disk.open_directory(PATH, write=False).lock_holder() is None, "the unlock", 5.0)


def test_a_compactor_that_does_not_start_leaves_no_lock(disk: SimulatedDisk) -> None:
    """P5: A dropped journal releases its lock even if its compactor could not start."""

    def make() -> Journal:
        journal = open_on(disk)
        with no_thread_starts(), pytest.raises(RuntimeError, match="can't start new thread"):
            journal.start_compaction(lambda: (0, []))
        return journal

    drop(make)
    until(lambda: disk.open_directory(PATH, write=False).lock_holder() is None, "the unlock", 5.0)


def test_close_closes_the_checkpoint_that_recovery_started_from(disk: SimulatedDisk) -> None:
    """A program that opens many journals in turn doesn't keep a checkpoint of each open."""
    with open_on(disk) as journal:
        put(journal, 1)
        compact(journal, "state").close()
    with open_on(disk) as journal:
        checkpoint = journal.checkpoint
        assert checkpoint is not None
        assert list(checkpoint.items()) == ["state"]
    with pytest.raises(OSError, match="EBADF"):
        list(checkpoint.items())


def test_a_wait_that_ends_early_leaves_its_gate_empty() -> None:
    """P8: A caller that polls with a time limit, or cancels its waits, costs no memory while the
    disk hangs."""
    gate = Gate()
    for _ in range(3):
        assert gate.wait(0) is False

    async def give_up() -> None:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(gate.passed(), 0.001)

    asyncio.run(give_up())
    assert gate._wakers == []
    assert not any(gate._loops.values())


def test_an_exit_on_a_full_disk_does_not_hang(
    disk: SimulatedDisk, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: A disk that stays full does not hang the interpreter's exit. After a few seconds, here
    none, the exit gives up."""
    monkeypatch.setattr(core, "_EXIT_TIMEOUT_S", 0.01)
    with open_on(disk) as journal:
        put(journal, 1)
        disk.fail("write", errno.ENOSPC, times=None)
        journal.append(2)
        ending = pool.submit(journal._core.finish)
        try:
            ending.result(5.0)
        finally:
            disk.before = None
    assert reopened(disk) == [1, 2]


def test_the_owner_lock_waits_once_for_an_heir_that_is_gone() -> None:
    """P7: Interrupts may end a thread for which the owner's lock is reserved. Later holders wait
    for that thread once, and don't reserve the lock for it again."""
    lock = OwnerLock()
    lock._heir = -1  # a thread that never comes
    for _ in range(3):
        lock.run(int, 0)
    assert (lock._holder, lock._heir) == (0, 0)


@pytest.mark.usefixtures("monitored")
def test_an_interrupted_append_takes_no_room() -> None:
    """P8: An interrupt may strike after a record's bytes were counted and before the record is in
    the buffer. Those bytes must not stay counted: no commit would ever free them, and waiters for
    room would wait forever."""
    appended = []
    for nth in range(30):
        log = log_of(Options(buffer_bytes=1000))
        struck(partial(log.buffer.append, sized(600)), nth)
        appended.append(log.buffer.last_lsn)
        assert (log.turn.room_gate() is None) == (log.buffer.last_lsn == 0)
    assert {*appended} == {0, 1}
