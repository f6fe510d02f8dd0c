"""Ctrl-C at every point of a trim, of an open with a retention, and of a compaction that gives
space back at once."""

from __future__ import annotations

from functools import partial

import pytest

from journal import DurableState, Journal
from journal.testing import SimulatedDisk
from tests.engine.compaction_support import first_lsns
from tests.kernel.interrupt_support import (
    SPARSE,
    TIMEOUT_S,
    in_other_thread,
    monitored,
    point_numbers,
    struck,
)
from tests.support import PATH, Table, names, open_on, options, put

__all__ = ["monitored", "point_numbers"]  # fixtures
pytestmark = pytest.mark.usefixtures("monitored")

LARGE = "x" * 3000  # one record of this size takes a segment


def update(state: DurableState[Table], record: list[object]) -> None:
    state.update(lambda _: record)
    state.wait_durable()


@SPARSE
def test_an_interrupted_trim_keeps_what_stays(point_numbers: range) -> None:
    """P1, P5: After an interrupt anywhere in a trim, the journal takes records, a repeated trim
    finishes, and an open yields every record from `before_lsn` on."""
    for nth in point_numbers:
        disk = SimulatedDisk()
        journal = open_on(disk)
        put(journal, *([n, LARGE] for n in range(1, 7)))
        has_struck = struck(partial(journal.trim, 5), nth)
        in_other_thread(partial(put, journal, "after"))
        assert [entry.lsn for entry in journal.replay(4)] == [5, 6, 7]
        in_other_thread(partial(journal.trim, 5))
        assert first_lsns(disk)[0] == 4
        in_other_thread(journal.close)
        with open_on(disk) as journal:
            assert [entry.lsn for entry in journal.replay()] == [5, 6, 7]
        if not has_struck:
            break
    assert nth > 50


@SPARSE
def test_an_interrupted_compaction_fills_whole_or_not_at_all(point_numbers: range) -> None:
    """P1, P6: After an interrupt anywhere in a compaction of an idle state, updates continue, and
    the state is the same after an open."""
    for nth in point_numbers:
        disk = SimulatedDisk()
        state = DurableState.open(PATH, Table(), options=options(), disk=disk)
        for n in range(6):
            update(state, ["a", str(n) * 3000])
        has_struck = struck(state.compact, nth)
        in_other_thread(partial(update, state, ["b", 1]))
        in_other_thread(state.compact)
        assert len(names(disk, ".seg")) <= 2
        in_other_thread(state.close)
        with DurableState.open(PATH, Table(), options=options(), disk=disk) as state:
            assert state.machine.content() == {"a": "5" * 3000, "b": 1}
            assert state.journal.last_lsn in (7, 8, 9)
        with Journal.open(PATH, options=options(application="table/1"), disk=disk) as journal:
            fillers = sum(entry.is_filler for entry in journal.replay(journal.first_lsn - 1))
            assert fillers <= 2
        if not has_struck:
            break
    assert nth > 50


def test_opening_with_a_retention_survives_an_interrupt_anywhere(point_numbers: range) -> None:
    """P5: An interrupted open of a journal with a retention releases the lock."""
    retaining = options(retain_bytes=1 << 20)
    for nth in point_numbers:
        disk = SimulatedDisk()
        opened: list[Journal] = []
        where = struck(
            lambda: opened.append(Journal.open(PATH, options=retaining, disk=disk)),  # noqa: B023
            nth,
        )
        for journal in opened:
            journal.close()
        with Journal.open(PATH, options=retaining, disk=disk, lock_timeout_s=TIMEOUT_S):
            pass
        if not where:
            break
    assert nth > 50
