"""Tables as a part of a Composite: transactions that also change other parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    BufferFullError,
    Composite,
    ConflictError,
    DurableState,
    FailedError,
    FormatVersionError,
    JournalError,
    RecordError,
    Tables,
    Transaction,
    TransactionTooLargeError,
    pack,
)
from journal.testing import SimulatedDisk
from tests.engine.state_support import state_on
from tests.support import PATH, TIMEOUT_S
from tests.support import Table as Jobs
from tests.tables.tables_support import open_tables, rows


def open_state(disk: SimulatedDisk) -> DurableState[Composite]:
    """Open a state of jobs and tables."""
    return state_on(disk, Composite(jobs=Jobs(), tables=Tables.machine()))


@pytest.fixture
def state(disk: SimulatedDisk) -> Iterator[DurableState[Composite]]:
    """Yield an empty state of jobs and tables."""
    with open_state(disk) as opened:
        yield opened


@pytest.fixture
def app(state: DurableState[Composite]) -> Tables:
    return Tables.in_state(state, "tables")


def app_of(state: DurableState[Composite]) -> Tables:
    """Return tables of the state that share nothing with others."""
    return Tables.in_state(state, "tables")


def jobs(state: DurableState[Composite]) -> Any:
    return state.machine["jobs"].content()


def test_a_transaction_also_changes_another_part(
    disk: SimulatedDisk, state: DurableState[Composite], app: Tables
) -> None:
    """P3: A record of another part is in one batch with the writes, and `lsn` is the LSN
    of the last one."""
    users = app.table("users")
    with app.transaction() as t:
        t[users]["ada"] = {"job": "a"}
        t.also("jobs", ["a", 1])
        t.also("jobs", pack(["b", 1]))
    assert t.lsn == state.journal.last_lsn == 3
    state.close()
    for _ in range(2):
        with open_state(disk) as again:
            assert jobs(again) == {"a": 1, "b": 1}
            assert rows(Tables.in_state(again, "tables").table("users")) == {"ada": {"job": "a"}}
            again.compact()


def test_a_record_that_depends_on_its_part(state: DurableState[Composite], app: Tables) -> None:
    """A function that returns a record gets the part's machine. If it returns None, only the tables
    change."""
    table = app.table("t")
    for _ in range(2):
        with app.transaction() as t:
            t[table]["n"] = t[table].get("n", 0) + 1
            t.also("jobs", lambda machine: None if "a" in machine.rows else ["a", 1])
    assert (jobs(state), rows(table), state.journal.last_lsn) == ({"a": 1}, {"n": 2}, 3)


def test_a_transaction_of_other_parts_alone(state: DurableState[Composite], app: Tables) -> None:
    """Reads of tables are checked even if only other parts are changed."""
    table = app.table("t")
    with app.transaction() as t:
        assert "n" not in t[table]
        t.also("jobs", ["a", 1])
    with pytest.raises(ConflictError), app.transaction() as t:
        assert "n" not in t[table]
        app_of(state).table("t")["n"] = 1
        t.also("jobs", ["a", 2])
    assert jobs(state) == {"a": 1}


@pytest.mark.parametrize(
    ("part", "record", "error"),
    [
        ("jobs", lambda machine: 1 // 0, ZeroDivisionError),
        ("jobs", {1, 2}, RecordError),
        ("jobs", lambda machine: {1, 2}, RecordError),
        ("job", ["a", 1], ValueError),
        ("job", lambda machine: ["a", 1], ValueError),
    ],
)
def test_a_record_that_fails_leaves_all_as_it_was(
    state: DurableState[Composite], app: Tables, part: str, record: Any, error: type[Exception]
) -> None:
    """P3: A record that can't be made leaves the tables and the other parts as they were."""
    table = app.table("t")
    with pytest.raises(error), app.transaction() as t:
        t[table]["a"] = 1
        t.also("jobs", ["a", 1])
        t.also(part, record)

    def change(t: Transaction) -> None:
        t[table]["a"] = 1
        t.also(part, record)

    with pytest.raises(error):
        app.update(change)
    assert (rows(table), jobs(state), state.journal.last_lsn) == ({}, {}, 0)
    table["a"] = 1


def test_an_update_also_changes_another_part(state: DurableState[Composite], app: Tables) -> None:
    """An update changes other parts, too, and returns the function's result."""
    table = app.table("t")

    def change(t: Transaction) -> str:
        t[table]["a"] = 1
        t.also("jobs", ["a", 1])
        return "done"

    assert app.update(change) == "done"
    assert (rows(table), jobs(state), state.journal.last_lsn) == ({"a": 1}, {"a": 1}, 2)


def test_records_count_in_the_limit(state: DurableState[Composite]) -> None:
    """Records of other parts count in the limit of keys."""
    app = Tables.in_state(state, "tables", transaction_keys_max=3)
    with pytest.raises(TransactionTooLargeError), app.transaction() as t:
        for n in range(4):
            t.also("jobs", ["a", n])
    assert jobs(state) == {}


def test_an_ended_transaction_takes_no_record(state: DurableState[Composite], app: Tables) -> None:
    """A transaction that has ended takes no record."""
    with app.transaction() as t:
        pass
    with pytest.raises(JournalError, match="has ended"):
        t.also("jobs", ["a", 1])


def test_tables_alone_have_no_other_parts(disk: SimulatedDisk) -> None:
    """Tables alone refuse records of other parts, and a state names the part that has no tables."""
    with open_tables(disk) as app, pytest.raises(ValueError, match=r"see Tables\.in_state"):
        with app.transaction() as t:
            t.also("jobs", ["a", 1])
    with state_on(SimulatedDisk(), Composite(jobs=Jobs())) as state:
        for name in ("jobs", "tables"):
            with pytest.raises(ValueError, match=f"'{name}' is not a part with tables"):
                Tables.in_state(state, name)


def test_in_state_takes_a_durable_state(app: Tables, disk: SimulatedDisk) -> None:
    """`in_state` names a state of any other type, such as tables, a machine or a path."""
    states: list[Any] = [None, 5, PATH, app, Composite(tables=Tables.machine()), DurableState]
    for state in states:
        with pytest.raises(TypeError, match=r"^state must be a DurableState, not ") as refused:
            Tables.in_state(state, "tables")
        assert repr(state)[:20] in str(refused.value)


def test_records_of_tables_are_made_by_the_tables_alone(
    state: DurableState[Composite], app: Tables
) -> None:
    """Records of a part with tables are refused, because nothing would check them."""
    with pytest.raises(ValueError, match="'tables' has tables; write to them as in"):
        with app.transaction() as t:
            t.also("tables", ["rows", ["t", b"no key", b"no value"]])
    assert state.journal.last_lsn == 0
    with pytest.raises(ValueError, match="transaction_keys_max is 0"):
        Tables.in_state(state, "tables", transaction_keys_max=0)


def test_tables_alone_do_not_open_a_composite(disk: SimulatedDisk) -> None:
    """A journal of a Composite is refused by Tables alone, with and without a checkpoint."""
    with open_state(disk) as state:
        app_of(state).table("t")["a"] = 1
    with pytest.raises(FormatVersionError):
        open_tables(disk)
    with open_state(disk) as state:
        state.compact()
    with pytest.raises(FormatVersionError):
        open_tables(disk)


def test_everything_else_is_as_for_tables_alone(
    state: DurableState[Composite], app: Tables
) -> None:
    """Single writes, waits and `close` work as for tables alone, and `close` closes the state."""
    table = app.table("t")
    table["a"] = 1
    state.update(lambda c: c.part("jobs", ["rows", 1]))
    table.replace("a", 2, expected=1)
    with pytest.raises(ConflictError):
        table.insert("a", 3)
    assert table.update("a", lambda n: n + 1) == 3
    table.delete("a")
    app.sync(timeout_s=TIMEOUT_S)
    assert app.compact().application == state.machine.application
    assert (app.names(), app.journal.path) == ([], PATH)
    app.close()
    assert state.closed
    assert app.closed


KEYS = st.sampled_from("abc")
STEPS = st.lists(
    st.tuples(st.sampled_from(["tables", "jobs"]), KEYS, st.integers(0, 3) | st.none()), max_size=4
)


@given(transactions=st.lists(st.tuples(STEPS, st.sampled_from(["", "fail", "compact", "reopen"]))))
def test_parts_change_together_or_not_at_all(transactions: list[Any]) -> None:
    """P3, P6: Two parts equal plain dicts after transactions, failures, checkpoints and opens."""
    disk = SimulatedDisk()
    state = open_state(disk)
    model: dict[str, dict[str, Any]] = {"tables": {}, "jobs": {}}
    for steps, then in transactions:
        app = app_of(state)
        after = {name: dict(part) for name, part in model.items()}
        try:
            with app.transaction() as t:
                for part, key, value in steps:
                    after[part].pop(key, None)
                    if value is not None:
                        after[part][key] = value
                    if part == "jobs":
                        t.also("jobs", [key, value])
                    elif value is not None:
                        t[app.table("t")][key] = value
                    elif key in t[app.table("t")]:
                        del t[app.table("t")][key]
                if then == "fail":
                    t.also("jobs", lambda _: 1 // 0)
            model = after
        except ZeroDivisionError:
            pass
        if then == "compact":
            state.compact()
        if then == "reopen":
            state.close()
            state = open_state(disk)
        assert jobs(state) == model["jobs"]
        assert rows(app_of(state).table("t")) == model["tables"]
    state.close()


@pytest.mark.parametrize(
    "record", [["rows", ["t", b"\x20k", b"\xc1"]], ["rows", ["t", b"?", None]], [1, 2], "x"]
)
@pytest.mark.parametrize("after_a_write", [False, True])
def test_a_record_that_tables_did_not_make_is_checked(
    disk: SimulatedDisk, record: Any, after_a_write: bool
) -> None:
    """P4: A wrong record of tables that is given to the state itself stops the state, and is not in
    the journal, which opens again."""
    with suppress(FailedError), open_state(disk) as state:
        table = Tables.in_state(state, "tables").table("t")
        if after_a_write:
            table["k"] = 1
        with pytest.raises((TypeError, ValueError)):
            state.update(lambda c: c.part("tables", record))
        with pytest.raises(FailedError):
            table["k"] = 2
    with open_state(disk) as state:
        assert rows(Tables.in_state(state, "tables").table("t")) == (
            {"k": 1} if after_a_write else {}
        )


WRONG_KEY = ["rows", ["t", b"?", None]]


def test_a_record_after_a_refused_write_is_checked(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P4: A write that was refused before it was applied lets no wrong record pass unchecked."""
    with suppress(FailedError), open_state(disk) as state:
        table = Tables.in_state(state, "tables").table("t")

        def refuse(*_: object) -> None:
            raise BufferFullError("no room")

        with monkeypatch.context() as patch:
            patch.setattr(state._buffer, "admit", refuse)
            with pytest.raises(BufferFullError):
                table["k"] = 1
        with pytest.raises(ValueError, match="key"):
            state.update(lambda c: c.part("tables", WRONG_KEY))
    with open_state(disk) as state:
        assert rows(Tables.in_state(state, "tables").table("t")) == {}


def test_a_record_of_another_thread_is_checked_before_a_refused_write_returns(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P4: Another thread may get the lock when a refused write has only just released it. Its wrong
    record is checked."""
    with suppress(FailedError), open_state(disk) as state, ThreadPoolExecutor(1) as pool:
        table, update = Tables.in_state(state, "tables").table("t"), state.update

        def update_before_another_thread(*arguments: Any, **options: Any) -> int | None:
            try:
                return update(*arguments, **options)
            finally:
                other = pool.submit(update, lambda c: c.part("tables", WRONG_KEY))
                with pytest.raises(ValueError, match="key"):
                    other.result(TIMEOUT_S)

        monkeypatch.setattr(state, "update", update_before_another_thread)
        monkeypatch.setattr(state._buffer, "admit", refused_once(state._buffer.admit))
        with pytest.raises(BufferFullError):
            table["k"] = 1
    with open_state(disk) as state:
        assert rows(Tables.in_state(state, "tables").table("t")) == {}


def refused_once(admit: Callable[..., int]) -> Callable[..., int]:
    """Return `admit`, which refuses its first call."""
    calls = iter((True,))

    def refuse(*arguments: Any) -> int:
        if next(calls, False):
            raise BufferFullError("no room")
        return admit(*arguments)

    return refuse
