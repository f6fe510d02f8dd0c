"""Interrupts at every point of a transaction of tables."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from journal import FailedError, Tables, Transaction
from journal.testing import SimulatedDisk
from tests.kernel.interrupt_support import in_other_thread, monitored, point_numbers, struck
from tests.tables.tables_large_support import LARGE
from tests.tables.tables_large_support import open_tables as open_small
from tests.tables.tables_support import open_tables, rows

__all__ = ["monitored", "point_numbers"]  # fixtures
pytestmark = pytest.mark.usefixtures("monitored", "few_to_collect")


def set_both(t: Transaction, app: Tables, value: Any) -> None:
    t[app.table("t")]["x"] = value
    t[app.table("u")]["x"] = value


def transact(app: Tables, value: Any) -> None:
    """Write two rows in one transaction."""
    with app.transaction() as t:
        set_both(t, app, value)


def write(app: Tables, value: Any) -> None:
    """Write both rows under the lock."""
    app.update(lambda t: set_both(t, app, value))


def retry(app: Tables, value: Any) -> None:
    """Write both rows, and retry after a conflict."""
    app.transact(lambda t: set_both(t, app, value))


WRITES = [
    transact,
    pytest.param(write, marks=pytest.mark.slow),
    pytest.param(retry, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(
    ("large", "point_numbers"),
    [(False, 1), pytest.param(True, 4, marks=pytest.mark.slow)],
    ids=["small", "large"],
    indirect=["point_numbers"],
)
@pytest.mark.parametrize("action", WRITES)
def test_an_interrupted_transaction_is_whole_or_absent(
    action: Callable[[Tables, Any], None], large: bool, point_numbers: range
) -> None:
    """P3: it wrote both rows or none, in memory and after a reopen. Later writes of the same thread
    are not refused, and pieces that were written for it are dropped."""
    for nth in point_numbers:
        disk = SimulatedDisk()
        app = (open_small if large else open_tables)(disk)
        value = LARGE if large else 1

        def act(app: Tables = app, value: Any = value) -> None:
            action(app, value)

        has_struck = struck(act, nth)
        gc.collect()  # the interrupt's traceback keeps the transaction
        t, u = app.table("t"), app.table("u")
        try:
            assert rows(t) == rows(u)
            t["after"] = u["after"] = 1
            action(app, value)
            assert not app._machine.uploads.ids()
        except FailedError:  # it struck while the writes were being applied
            pass
        else:
            assert rows(t) == rows(u) == {"x": value, "after": 1}
        in_other_thread(app.close)
        with (open_small if large else open_tables)(disk) as app:
            assert rows(app.table("t")) == rows(app.table("u"))
            assert not app._machine.uploads.ids()
        if not has_struck:
            break
    else:
        raise AssertionError("too many points")
