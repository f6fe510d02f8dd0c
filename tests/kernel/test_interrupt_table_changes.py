"""Interrupts at every point of a read of changes, and of their close."""

from __future__ import annotations

import pytest

from journal import TableChange, Tables
from journal.testing import SimulatedDisk
from tests.kernel.interrupt_support import SPARSE, in_other_thread, monitored, point_numbers, struck
from tests.support import TIMEOUT_S
from tests.tables.tables_large_support import LARGE, open_tables

__all__ = ["monitored", "point_numbers"]  # fixtures
pytestmark = pytest.mark.usefixtures("monitored")


def filled() -> tuple[Tables, list[object]]:
    """Return tables with a durable transaction, and the values that it wrote."""
    app = open_tables(SimulatedDisk())
    table = app.table("t")
    values: list[object] = []
    with app.transaction() as t:
        for value in (1, LARGE):
            t[table][len(values)] = value
            values.append(value)
    app.sync(timeout_s=TIMEOUT_S)
    return app, values


@SPARSE
def test_an_interrupted_read_loses_no_change_and_repeats_none(point_numbers: range) -> None:
    """The changes that are read before and after an interrupt are all changes, in order."""
    app, values = filled()
    for nth in point_numbers:
        changes = app.changes(0)
        seen: list[TableChange] = []

        def act(changes: object = changes, seen: list[TableChange] = seen) -> None:
            while len(seen) < len(values):
                seen[len(seen) :] = [next(changes)]  # type: ignore[call-overload]

        has_struck = struck(act, nth)
        act()
        assert [change.value for change in seen] == values
        assert [change.last for change in seen] == [False, True]
        changes.close()
        if not has_struck:
            break
    in_other_thread(app.close)


def test_an_interrupted_close_ends_the_changes(point_numbers: range) -> None:
    """A close that an interrupt has struck ends the iteration, or can be called again."""
    app, _ = filled()
    for nth in point_numbers:
        changes = app.changes(0)
        next(changes)
        has_struck = struck(changes.close, nth)
        changes.close()
        assert list(changes) == []
        if not has_struck:
            break
    in_other_thread(app.close)
