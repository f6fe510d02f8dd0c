"""Every crash, in every outcome, of programs that use Tables and a DurableDict."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal import ConflictError, DurableDict, Tables, Transaction
from journal._tables.machine import TablesMachine
from journal.testing import Bounds, Owner, explore
from journal.testing.owner import ManualOptions
from tests.tiers import slow_unless

OPTIONS = ManualOptions(record_bytes_max=192)
LARGE = "large " * 40  # takes three pieces
Call = Callable[[Owner[TablesMachine], Tables], object]


def tables(owner: Owner[TablesMachine]) -> Tables:
    """Return the tables of an owner that was just opened."""
    return Tables._opened(owner.state, 100)


def conflict(app: Tables, value: Any) -> None:
    """Try to write a row for which a transaction has read another one, which is then changed."""
    table, outside = app.table("t"), copy_context()

    def copy(t: Transaction) -> None:
        t[table]["copy"] = [t[table].get("a"), value]
        outside.run(table.update, "a", lambda n: [n])

    with pytest.raises(ConflictError):
        app.transact(copy, attempts=1)


def transactions(owner: Owner[TablesMachine]) -> None:
    """Write to two tables at once, conflict, expire, compact, and reopen."""
    owner.disk.clock_ns = owner.disk.tick_ns = 0
    app = tables(owner)
    t_rows, u_rows = app.table("t"), app.table("u")
    with app.transaction() as t:
        t[t_rows]["a"] = 1
        t[u_rows].set("b", 2, expires_at=5)
    app.sync()
    app.transact(lambda t: t[t_rows].replace("a", t[u_rows]["b"], expected=1))
    conflict(app, LARGE)
    app.sync()
    owner.disk.clock_ns = 6 * 10**9
    app.update(lambda t: t[t_rows].insert("c", LARGE))  # removes the expired row, too
    owner.compact()
    t_rows.delete("a")
    owner.kill()
    owner.reopen()
    app = tables(owner)
    app.table("u")["b"] = "again"
    owner.wait()
    owner.reopen()


def dict_calls(owner: Owner[TablesMachine]) -> None:
    """Change a DurableDict by each of its methods."""
    items = DurableDict(tables(owner))
    items.update(a=1, b=[2], c=LARGE)
    items.sync()
    assert items.setdefault("a", 2) == 1
    items["d"] = items.pop("b")
    items.sync()
    assert items.popitem() == ("d", [2])
    items.update("a", lambda n: n + 1)
    items.sync()
    owner.compact()
    more: dict[Any, Any] = {"e": 5, ("e", 1): b"\xff"}
    items |= more
    items.clear()
    owner.wait()
    owner.reopen()


@pytest.mark.parametrize(
    ("work", "states"),
    slow_unless(lambda work, states: work is dict_calls, [(transactions, 1400), (dict_calls, 800)]),
)
def test_every_crash_of_a_program(
    work: Callable[[Owner[TablesMachine]], None], states: int
) -> None:
    """P1 to P6: each crash of a program leaves a prefix of its transactions, each of them whole."""
    assert explore(TablesMachine, work, options=OPTIONS).states > states


def wait(owner: Owner[TablesMachine], _: Tables) -> None:
    owner.disk.clock_ns += 10**9


def set_row(key: str, value: Any, lifetime_s: int | None) -> Call:
    """Return a call that sets a row of one table, and one of another in the same transaction."""

    def call(owner: Owner[TablesMachine], app: Tables) -> None:
        now_s = owner.disk.clock_ns // 10**9
        with app.transaction() as t:
            expires_at = None if lifetime_s is None else now_s + lifetime_s
            t[app.table("t")].set(key, value, expires_at=expires_at)
            t[app.table("u")][key] = 1

    return call


KEYS = st.sampled_from("abc")
CALLS: st.SearchStrategy[Call] = (
    st.builds(set_row, KEYS, st.sampled_from([1, LARGE]), st.sampled_from([None, 1, 2]))
    | st.sampled_from([
        wait,
        lambda _, app: app.update(lambda t: t[app.table("u")].set("n", list(t[app.table("t")]))),
        lambda _, app: app.table("t").update("a", lambda value: [value]),
        lambda _, app: [app.table("t").delete(key) for key, _ in app.table("t").range(limit=1)],
        lambda _, app: conflict(app, LARGE),
    ])
    | st.sampled_from([
        lambda owner, _: owner.wait(),
        lambda owner, _: owner.compact(),
        lambda owner, _: owner.reopen(),
        lambda owner, _: (owner.kill(), owner.reopen()),
        lambda owner, _: (owner.power_cut(), owner.reopen()),
    ])
)  # fmt: skip


@pytest.mark.slow
@given(st.lists(CALLS, min_size=3, max_size=12))
@settings(max_examples=10)
def test_every_crash_of_any_program(calls: list[Call]) -> None:
    """P1 to P6 hold after every crash of any series of calls."""

    def work(owner: Owner[TablesMachine]) -> None:
        owner.disk.clock_ns = owner.disk.tick_ns = 0
        state, app = owner.state, tables(owner)
        for call in calls:
            call(owner, app)
            if owner.state is not state:
                state, app = owner.state, tables(owner)
                assert app._machine.uploads.ids() == []
        owner.wait()

    explore(TablesMachine, work, options=OPTIONS, bounds=Bounds(outcomes_max=32))
