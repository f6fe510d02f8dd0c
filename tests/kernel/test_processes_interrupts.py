"""Interrupts in an open and in a compaction, and two interrupts."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from journal import DurableState, FormatVersionError, Journal, JournalError, Options
from journal.testing import SimulatedDisk
from manager import AgentResult, SubAgentManager, UnknownAgentError
from tests.kernel.interrupt_support import (
    SPARSE,
    TIMEOUT_S,
    TWICE,
    in_other_thread,
    monitored,
    point_numbers,
    struck,
)
from tests.kernel.test_interrupt import OPTIONS, UPDATES, Counter, put, strike_change
from tests.support import PATH, Table, logged, names, on_disk, until

__all__ = ["monitored", "point_numbers"]  # fixtures
pytestmark = pytest.mark.usefixtures("monitored")
GAPS = range(8)  # handling an interrupt has no more points


def compact(journal: Journal) -> None:
    journal.compact(lambda: (1, [1, 2, 3])).close()


def test_compact_survives_an_interrupt_anywhere(point_numbers: range) -> None:
    """P5, P10: An interrupted compaction is abandoned. The next one works, and so does close."""
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


def strike_and_close(action: Callable[[Journal], None], nth: int, *gaps: int) -> list[str]:
    """Close a journal after `action` was struck, and return the functions in which it was."""
    journal = Journal.open(PATH, options=OPTIONS, disk=SimulatedDisk())
    journal.append(1)
    where = struck(partial(action, journal), nth, *gaps)
    in_other_thread(journal.close)
    return where


@pytest.mark.parametrize("action", [Journal.close, compact], ids=["close", "compact"])
def test_close_works_after_an_interrupt(
    action: Callable[[Journal], None], point_numbers: range
) -> None:
    """P5: A close ends, at whatever point an interrupt has ended the call before it."""
    assert any(not strike_and_close(action, nth) for nth in point_numbers)


def test_open_survives_an_interrupt_anywhere(point_numbers: range) -> None:
    """P5: An interrupted open releases the lock, and leaves no thread."""
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
    except FormatVersionError as error:  # the interrupt counts as an error of `load` or `apply`
        raise (error.__cause__ or error) from None


@SPARSE
@pytest.mark.filterwarnings("ignore:.* was never closed:ResourceWarning")
def test_opening_a_state_survives_an_interrupt_anywhere(point_numbers: range) -> None:
    """P5, P6: An interrupted open of a state releases the lock, and the next one loses nothing."""
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
    gc.collect()  # an interrupt's traceback may keep a journal, whose warning is ignored only here
    assert nth > 50


def test_an_interrupted_batch_takes_no_space_in_the_buffer(point_numbers: range) -> None:
    """P8: Records that an interrupt kept out of the log buffer do not count as buffered."""
    small = Options(buffer_bytes=1 << 16, segment_bytes=1 << 16)
    batch = ["x" * 20_000, "y" * 20_000]  # more than half of the buffer
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


def use_manager(disk: SimulatedDisk, nth: int, ended: list[bool]) -> None:
    """Use everything that takes a lock of the manager, with a waiter and a reader of changes."""
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


@SPARSE
def test_an_interrupted_manager_is_closed_by_its_with(point_numbers: range) -> None:
    """P5: Ctrl-C leaves the `with` of a manager, which closes it while the exception is alive."""
    for nth in point_numbers[::3]:
        disk = SimulatedDisk()
        ended: list[bool] = []
        in_other_thread(partial(use_manager, disk, nth, ended))
        SubAgentManager.open("/w", disk=disk).close()
        if ended == [True]:
            break
    assert nth > 300


# --- two interrupts: the second one while the first one propagates ---


@TWICE
def test_two_interrupts_leave_no_waiter_waiting(point_numbers: range) -> None:
    """P1, P2: After a second Ctrl-C, the waits of others and close still work."""
    strikes = 0
    numbers = [nth for nth in point_numbers if nth < 90]
    for gap in GAPS:
        journal = Journal.open(PATH, options=OPTIONS, disk=SimulatedDisk())
        for nth in numbers:
            where = struck(lambda: put(journal, "struck"), nth, gap)  # noqa: B023
            in_other_thread(partial(put, journal, "after"))
            strikes += len(where) == 2
        log = logged(journal)
        in_other_thread(journal.close)
        assert log.count("after") == len(numbers)
        assert len(log) == journal.last_lsn
    assert strikes > 2 * len(numbers)


@SPARSE
@TWICE
@pytest.mark.parametrize("change", UPDATES.values(), ids=UPDATES.keys())
def test_two_interrupts_keep_log_and_state_in_agreement(
    change: Callable[[DurableState[Any]], object], point_numbers: range
) -> None:
    """P6: After a second interrupt during the handling of the first, the state agrees or stops."""
    for gap in GAPS:
        assert any(not strike_change(change, nth, gap) for nth in point_numbers)


@SPARSE
@TWICE
@pytest.mark.parametrize("change", UPDATES.values(), ids=UPDATES.keys())
def test_a_state_closes_after_two_interrupts_of_a_change(
    change: Callable[[DurableState[Any]], object], point_numbers: range
) -> None:
    """P5: The close after a change that two interrupts have ended does not wait for it."""

    def strike_and_close_state(*strikes: int) -> list[str]:
        state = DurableState.open(PATH, Counter(), options=OPTIONS, disk=SimulatedDisk())
        where = struck(partial(change, state), *strikes)
        in_other_thread(state.close)
        return where

    for gap in GAPS:
        assert any(not strike_and_close_state(nth, gap) for nth in point_numbers)


@SPARSE
@TWICE
@pytest.mark.parametrize("action", [Journal.close, compact], ids=["close", "compact"])
def test_close_works_after_two_interrupts(
    action: Callable[[Journal], None], point_numbers: range
) -> None:
    """P5: A last close ends and releases the lock, whatever calls two interrupts have ended."""
    for gap in GAPS:
        assert any(not strike_and_close(action, nth, gap) for nth in point_numbers)
