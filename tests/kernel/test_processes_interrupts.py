"""Interrupts where nobody expects them: in an open and a compaction, two at once, real signals."""

from __future__ import annotations

import ast
import gc
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import journal
import manager
from journal import DurableState, FormatVersionError, Journal, JournalError, Options
from journal._disk.posix import PosixFile
from journal.testing import SimulatedDisk
from manager import AgentResult, SubAgentManager, UnknownAgentError
from tests.kernel.interrupt_support import (
    TIMEOUT_S,
    TWICE,
    in_other_thread,
    monitored,
    point_numbers,
    struck,
)
from tests.kernel.test_interrupt import OPTIONS, UPDATES, agrees_after, put
from tests.support import PATH, Table, logged, names, on_disk, options, until

__all__ = ["monitored", "point_numbers"]  # fixtures
pytestmark = pytest.mark.usefixtures("monitored")
GAPS = range(8)  # an interrupt's own way out has no more points


def compact(journal: Journal) -> None:
    journal.compact(lambda: (1, [1, 2, 3])).close()


def test_compact_survives_an_interrupt_anywhere(point_numbers: range) -> None:
    """P5, P10: an interrupted compaction is given up; the next one works, and so does close."""
    for nth in point_numbers:
        disk = SimulatedDisk()
        journal = Journal.open(PATH, options=OPTIONS, disk=disk)
        journal.append(nth)
        where = struck(partial(compact, journal), nth)
        in_other_thread(partial(compact, journal))
        in_other_thread(journal.close)
        assert names(disk, ".tmp") == []
        with Journal.open(PATH, disk=disk) as reopened:
            assert logged(reopened) == [nth], where
        if not where:
            break
    assert nth > 50


def test_open_survives_an_interrupt_anywhere(point_numbers: range) -> None:
    """P5: an interrupted open gives the lock back, and leaves no thread behind."""
    before = set(threading.enumerate())
    for nth in point_numbers:
        disk = SimulatedDisk()
        with Journal.open(PATH, options=OPTIONS, disk=disk) as journal:
            journal.append(nth)
        opened: list[Journal] = []
        where = struck(lambda: opened.append(Journal.open(PATH, disk=disk)), nth)  # noqa: B023
        for journal in opened:
            journal.close()
        until(lambda: set(threading.enumerate()) <= before, "its threads end")  # noqa: B023
        with Journal.open(PATH, disk=disk) as reopened:
            assert logged(reopened) == [nth], where
        before |= set(threading.enumerate())
        if not where:
            break
    assert nth > 50


def open_table(disk: SimulatedDisk) -> DurableState[Table]:
    try:
        return DurableState.open(PATH, Table(), options=OPTIONS, disk=disk)
    except FormatVersionError as error:  # it counts as raised by `load` or `apply`
        raise (error.__cause__ or error) from None


@pytest.mark.filterwarnings("ignore:.* was never closed:ResourceWarning")
def test_opening_a_state_survives_an_interrupt_anywhere(point_numbers: range) -> None:
    """P5, P6: an interrupted open of a state releases the lock, and the next one has all of it."""
    before = set(threading.enumerate())
    for nth in point_numbers:
        disk = SimulatedDisk()
        with open_table(disk) as state:
            state.update(lambda _: ["a", 1])
            state.compact().close()
            state.update(lambda _: ["b", 2])
        opened: list[DurableState[Table]] = []
        where = struck(lambda: opened.append(open_table(disk)), nth)  # noqa: B023
        for state in opened:
            state.close()
        until(lambda: set(threading.enumerate()) <= before, "its threads end")  # noqa: B023
        with open_table(disk) as reopened:
            assert reopened.machine.content() == {"a": 1, "b": 2}, where
        before |= set(threading.enumerate())
        if not where:
            break
    assert nth > 50


def test_an_interrupted_batch_takes_no_room(point_numbers: range) -> None:
    """P8: what an interrupt kept out of the log buffer does not count as waiting in it."""
    small = Options(buffer_bytes=1 << 16, segment_bytes=1 << 16)
    batch = ["x" * 20_000, "y" * 20_000]  # over half
    for nth in point_numbers:
        disk = SimulatedDisk()
        journal = Journal.open(PATH, options=small, disk=disk)
        where = struck(partial(journal.append_batch, batch), nth)
        in_other_thread(partial(journal.wait_room, timeout_s=TIMEOUT_S))
        in_other_thread(partial(journal.append_batch, batch))
        in_other_thread(journal.close)
        assert on_disk(disk) in (batch, batch * 2)
        if not where:
            break
    assert nth > 5


def work(disk: SimulatedDisk, nth: int, ended: list[bool]) -> None:
    """All that takes a lock of the manager's, with a waiter and a reader of changes."""
    manager = SubAgentManager.open("/w", options=OPTIONS, disk=disk)

    def agents() -> None:
        with manager:
            manager.changes()
            for name in "ab":
                manager.spawn("work", name=name)
                waiter = threading.Thread(target=wait_ended, args=(manager, name), daemon=True)
                waiter.start()
                manager.wait_durable(manager.update_from_result(name, AgentResult("done")).lsn)
                manager.wait_ended(name)
                waiter.join(TIMEOUT_S)

    ended.append(not struck(agents, nth))
    manager.close()


def wait_ended(manager: SubAgentManager, name: str) -> None:
    with suppress(JournalError, UnknownAgentError):
        manager.wait_ended(name)


def test_a_manager_is_closed_wherever_it_is_struck(point_numbers: range) -> None:
    """P5: Ctrl-C leaves the `with` of a manager, which closes it while the exception is alive."""
    for nth in point_numbers[::3]:
        disk = SimulatedDisk()
        ended: list[bool] = []
        in_other_thread(partial(work, disk, nth, ended))
        SubAgentManager.open("/w", disk=disk).close()
        if ended == [True]:
            break
    assert nth > 300


def test_no_lock_is_written_in_python() -> None:
    """An interrupt may strike in an Event or a Condition and leave its lock taken for ever: the
    engine and the manager wait on plain locks."""
    for package in (journal, manager):
        (folder,) = package.__path__
        for path in Path(folder).glob("**/*.py"):
            names = {
                n.attr
                for n in ast.walk(ast.parse(path.read_text()))
                if isinstance(n, ast.Attribute)
            }
            assert not names & {"Event", "Condition", "Semaphore", "Barrier"}, path


# --- two, the second while the first is on its way out ---


@TWICE
def test_two_interrupts_leave_no_waiter_behind(point_numbers: range) -> None:
    """P1, P2: whoever is impatient and hits Ctrl-C twice: others' waits and close go on."""
    strikes = 0
    few = [nth for nth in point_numbers if nth < 90]
    for gap in GAPS:
        journal = Journal.open(PATH, options=OPTIONS, disk=SimulatedDisk())
        for nth in few:
            where = struck(lambda: put(journal, "struck"), nth, gap)  # noqa: B023
            in_other_thread(partial(put, journal, "after"))
            strikes += len(where) == 2
        log = logged(journal)
        in_other_thread(journal.close)
        assert log.count("after") == len(few)
        assert len(log) == journal.last_lsn
    assert strikes > 2 * len(few)


@TWICE
@pytest.mark.parametrize("change", UPDATES.values(), ids=UPDATES.keys())
def test_two_interrupts_part_no_log_from_its_state(
    change: Callable[[DurableState[Any]], object], point_numbers: range
) -> None:
    """P6: struck again where the first interrupt is made good, the state agrees, or it stops."""
    for gap in GAPS:
        assert any(not agrees_after(change, nth, gap) for nth in point_numbers)


@TWICE
@pytest.mark.parametrize("action", [Journal.close, compact], ids=["close", "compact"])
def test_two_interrupts_let_close_end(
    action: Callable[[Journal], None], point_numbers: range
) -> None:
    """P5: however the calls were broken off, a last close ends and frees the lock."""
    for gap in GAPS:
        for nth in point_numbers:
            journal = Journal.open(PATH, options=OPTIONS, disk=SimulatedDisk())
            journal.append(1)
            where = struck(partial(action, journal), nth, gap)
            in_other_thread(journal.close)
            if not where:
                break


# --- real ones ---


class Terminated(BaseException):
    """What this test's handler of SIGTERM raises."""


def test_two_signals_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: SIGINT and SIGTERM come together while a lone waiter's sync takes its time. Both are
    raised, one after the other; the record is committed all the same, and others go on."""
    real, armed = PosixFile.sync, threading.Event()

    def sync(self: PosixFile) -> None:
        real(self)
        if armed.is_set() and threading.current_thread() is threading.main_thread():
            armed.clear()
            # Both wait for this thread, and its handlers run one by one.
            signals = {signal.SIGINT, signal.SIGTERM}
            signal.pthread_sigmask(signal.SIG_BLOCK, signals)
            for number in signals:
                signal.pthread_kill(threading.get_ident(), number)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    def terminate(*_: object) -> None:
        raise Terminated

    monkeypatch.setattr(PosixFile, "sync", sync)
    gc.disable()  # what is raised in a collection's callback is nobody's
    before = signal.signal(signal.SIGTERM, terminate)
    journal = Journal.open(tmp_path / "j", options=options())
    try:
        journal.wait_durable(journal.append(1))
        armed.set()
        with pytest.raises((KeyboardInterrupt, Terminated)):
            journal.wait_durable(journal.append(2))
        in_other_thread(journal.wait_durable)
        in_other_thread(partial(put, journal, 3))
        assert logged(journal) == [1, 2, 3]
    finally:
        gc.enable()
        signal.signal(signal.SIGTERM, before)
        in_other_thread(journal.close)
