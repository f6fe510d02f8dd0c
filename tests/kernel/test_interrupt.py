"""Ctrl-C: a KeyboardInterrupt at every point that can raise one, and the promises that hold after
it."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from journal import CowTable, DurableState, FailedError, Journal, Options, pack
from journal._recorder import Recorder
from journal.testing import SimulatedDisk
from tests.kernel.interrupt_support import (
    MANY,
    TIMEOUT_S,
    in_other_thread,
    monitored,
    point_numbers,
    run_with_handler,
    struck,
)

__all__ = ["monitored", "point_numbers"]  # fixtures
pytestmark = pytest.mark.usefixtures("monitored")

POINTS = 170  # more points than an append and a wait have
OPTIONS = Options(flush_interval_s=0.001, segment_bytes=4096)


def test_the_tracer_finds_points_to_interrupt() -> None:
    """The tracer sees the engine's points: an append alone has several."""
    with Journal.open("/j", disk=SimulatedDisk()) as journal:
        strikes = sum(bool(struck(lambda: journal.append(1), nth)) for nth in range(5))
    assert strikes > 2


@pytest.mark.parametrize("size", [1, 3], ids=["append", "append_batch"])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside another waiter"])
def test_append_and_wait_survive_an_interrupt_anywhere(alone: bool, size: int) -> None:
    """P1, P2, P3: No LSN is skipped, no record is lost or duplicated, and no waiter hangs."""
    disk = SimulatedDisk()
    journal = Journal.open("/j", options=OPTIONS, disk=disk)
    expected: list[Any] = []
    strikes = 0
    for nth in range(POINTS):  # the number of points depends on the committing thread
        before = journal.last_lsn
        records = [["interrupted", nth, part] for part in range(size)]

        def action(records: list[Any] = records) -> None:
            journal.wait_durable(
                journal.append_batch(records) if size > 1 else journal.append(records[0])
            )

        if not alone:
            lsn = journal.append(["other", nth])
            other = threading.Thread(target=journal.wait_durable, args=(lsn,), daemon=True)
            other.start()
            expected.append(["other", nth])
            before = lsn
        strikes += bool(struck(action, nth))
        if journal.last_lsn > before:
            assert journal.last_lsn == before + size
            expected.extend(records)
        in_other_thread(partial(put, journal, ["after", nth]))
        expected.append(["after", nth])
        if not alone:
            other.join(TIMEOUT_S)
            assert not other.is_alive(), "the other waiter hangs"
    assert strikes > 20
    assert [entry.record for entry in journal.replay()] == expected
    in_other_thread(journal.close)
    disk.kill()
    with Journal.open("/j", disk=disk) as reopened:
        assert [entry.record for entry in reopened.replay()] == expected


def test_a_failed_sync_is_never_repeated() -> None:
    """P2: A failed sync is not repeated, even if an interrupt strikes the waiter that made it.

    The kernel may consider the lost pages written, so a second sync would acknowledge lost records.
    """
    strikes = 0
    for nth in range(POINTS):
        disk = SimulatedDisk()
        journal = Journal.open("/j", options=OPTIONS, disk=disk)
        in_other_thread(partial(put, journal, "safe"))
        disk.fail("sync", errno.EIO, path=".seg")
        where: list[str] = []
        with suppress(FailedError):
            where = struck(partial(put, journal, "lost"), nth)
        with pytest.raises(FailedError):
            in_other_thread(partial(put, journal, "after"))
        with suppress(FailedError):
            in_other_thread(journal.close)
        strikes += bool(where)
    assert strikes > 20


def put(journal: Journal, record: Any) -> None:
    journal.wait_durable(journal.append(record))


def update(state: DurableState[Any], decide: Callable[[Any], Any]) -> None:
    state.wait_durable(state.update(decide))


class Counter:
    """A state machine that shows whether a record was applied twice or not at all."""

    application = "counter/1"

    def __init__(self) -> None:
        self.table: CowTable[str, dict[str, Any]] = CowTable()

    def load(self, item: Any) -> None:
        self.table[item["id"]] = item

    def apply(self, lsn: int, record: Any) -> None:
        seen = self.table[record]["seen"] if record in self.table else 0
        self.table[record] = {"id": record, "seen": seen + 1, "lsn": lsn}

    def freeze(self) -> Any:
        return self.table.freeze()


PACKED = pack("a")
UPDATES: dict[str, Callable[[DurableState[Any]], object]] = {
    "update": lambda state: state.update(lambda _: "a"),
    "update_batch": lambda state: state.update_batch(lambda _: ["a", "b", "a"]),
    "update, packed": lambda state: state.update(lambda _: PACKED),
    "update_batch, packed": lambda state: state.update_batch(lambda _: ["b", PACKED, "a"]),
}


def strike_change(change: Callable[[DurableState[Any]], object], *strikes: int) -> list[str]:
    """Check P6: after a strike, the live state is that of a replay, or refuses every call."""
    disk = SimulatedDisk()
    state = DurableState.open("/j", Counter(), options=OPTIONS, disk=disk)
    state.update(lambda _: "a")
    where = struck(partial(change, state), *strikes)
    live_table = None
    with suppress(FailedError):
        in_other_thread(partial(update, state, lambda _: "b"))
        live_table = dict(state.machine.table)
    in_other_thread(state.close)
    with DurableState.open("/j", Counter(), disk=disk) as replayed:
        assert live_table in (None, dict(replayed.machine.table)), (strikes, where)
    return where


@pytest.mark.parametrize("change", UPDATES.values(), ids=UPDATES.keys())
def test_update_survives_an_interrupt_anywhere(
    change: Callable[[DurableState[Any]], object], point_numbers: range
) -> None:
    """P6: After an interrupt, the live state is that of a replay, or refuses every call."""
    point_count = next(nth for nth in point_numbers if not strike_change(change, nth))
    assert point_count > 10


def leave_with(journal: Journal) -> None:
    with journal:
        pass


@pytest.mark.parametrize("close", [Journal.close, leave_with], ids=["close", "with"])
def test_close_survives_an_interrupt_anywhere(close: Callable[[Journal], None]) -> None:
    """P2, P5: An interrupted close can be repeated, releases the lock, and has lost nothing."""
    for nth in range(MANY):
        disk = SimulatedDisk()
        journal = Journal.open("/j", options=OPTIONS, disk=disk)
        journal.append(nth)
        where = struck(partial(close, journal), nth)
        in_other_thread(journal.close)
        with Journal.open("/j", disk=disk) as reopened:
            assert [entry.record for entry in reopened.replay()] == [nth], where
        if not where:
            break
    assert nth > 5


def test_an_interrupt_releases_the_lock_of_the_counts() -> None:
    """A commit that adds up recorded values releases their lock wherever an interrupt strikes."""
    for nth in range(MANY):
        recorder = Recorder()
        recorder.add(1)
        where = struck(recorder.fold_if_free, nth)
        in_other_thread(recorder.histogram)
        if not where:
            break
    assert nth > 3


def test_a_commit_in_a_signal_handler_counts_each_value_once() -> None:
    """A commit in a handler that interrupts a reader of the values counts each value once."""
    for nth in range(MANY):
        recorder = Recorder()
        for value in range(20):
            recorder.add(value)
        where = run_with_handler(recorder.histogram, recorder.fold_if_free, nth)
        histogram = recorder.histogram()
        assert (histogram.count, histogram.mean, histogram.max) == (20, 9.5, 19), where
        if not where:
            break
    assert nth > 3
