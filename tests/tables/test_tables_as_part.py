"""Tables as a part of a Composite: large values, expiry, a dict, and reads without a lock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from journal import (
    Composite,
    ConflictError,
    DurableDict,
    DurableState,
    FormatVersionError,
    Tables,
    Transaction,
)
from journal._tables.pieces import DROP, PIECE
from journal._tables.publisher import Publisher
from journal.testing import SimulatedDisk
from tests.engine.state_support import state_on
from tests.support import PATH, TIMEOUT_S, logged
from tests.support import Table as Jobs
from tests.tables.tables_large_support import LARGE, UPLOAD
from tests.tables.tables_support import open_tables, rows


def open_state(disk: SimulatedDisk, **others: Any) -> DurableState[Composite]:
    """Open a state of jobs and tables whose records are small."""
    machine = Composite(jobs=Jobs(), tables=Tables.machine())
    return state_on(disk, machine, segment_bytes=1 << 20, record_bytes_max=256, **others)


def records(state: DurableState[Composite]) -> list[Any]:
    """Return each record in the log: its part, and its kind if it is one of tables."""
    state.wait_durable(timeout_s=TIMEOUT_S)
    return [name if name == "jobs" else record[0] for name, record in logged(state.journal)]


# --- large values ---


def test_a_large_value_and_another_part_change_together(disk: SimulatedDisk) -> None:
    """P3: A large value is published in one batch with the record of another part."""

    def change(t: Transaction) -> None:
        t[table][2] = LARGE
        t.also("jobs", ["b", 2])

    with open_state(disk) as state:
        app = Tables.in_state(state, "tables")
        table = app.table("t")
        with app.transaction() as t:
            t[table][1] = LARGE
            t.also("jobs", ["a", 1])
        app.update(change)
        kinds = records(state)
        assert kinds[-2:] == ["rows", "jobs"]
        assert (kinds.count(PIECE), kinds.count("rows"), kinds.count("jobs")) == (20, 2, 2)
    for _ in range(2):
        with open_state(disk) as state:
            app = Tables.in_state(state, "tables")
            assert rows(app.table("t")) == {1: LARGE, 2: LARGE}
            assert state.machine["jobs"].content() == {"a": 1, "b": 2}
            state.compact()


@pytest.mark.parametrize("in_loop", [False, True])
def test_pieces_are_dropped_if_another_part_refuses(disk: SimulatedDisk, in_loop: bool) -> None:
    """P3: Pieces are dropped, and no row is set, if a function of another part raises."""

    def refuse(_: Jobs) -> None:
        raise ZeroDivisionError

    def body(t: Transaction) -> None:
        t[app.table("t")][1] = LARGE
        t.also("jobs", refuse)

    async def run() -> None:
        async with app.transaction() as t:
            body(t)

    with open_state(disk) as state:
        app = Tables.in_state(state, "tables")
        with pytest.raises(ZeroDivisionError):
            asyncio.run(run()) if in_loop else app.transact(body)
        assert records(state)[-1] == DROP
        assert (rows(app.table("t")), app._machine.uploads.ids()) == ({}, [])


@pytest.mark.parametrize("is_compacted", [False, True])
def test_pieces_that_a_crash_left_are_dropped_once(disk: SimulatedDisk, is_compacted: bool) -> None:
    """Pieces that a crash left are dropped by the first `in_state` after the open, and by no later
    one."""
    with open_state(disk) as state:
        state.update(lambda c: c.part("tables", [PIECE, UPLOAD, 0, b"half"]))
        if is_compacted:
            state.compact()
    with open_state(disk) as state:
        app = Tables.in_state(state, "tables")
        assert app._machine.uploads.ids() == []
        assert records(state)[-1] == DROP
        state.update(lambda c: c.part("tables", [PIECE, UPLOAD, 0, b"of a live writer"]))
        Tables.in_state(state, "tables")
        assert app._machine.uploads.ids() == [UPLOAD]


def test_a_large_update_conflicts_with_other_writers(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update whose value is large runs again after a conflict, and changes other parts once."""
    write_piece, strikes = Publisher._write_piece, [True]

    def strike(self: Publisher, piece: Any) -> None:
        write_piece(self, piece)
        if strikes and strikes.pop():
            thread = threading.Thread(target=lambda: table.set("n", 1))
            thread.start()
            thread.join(TIMEOUT_S)

    def change(t: Transaction) -> None:
        t[table]["large"] = LARGE + str(t[table].get("n"))
        t.also("jobs", lambda jobs: ["a", jobs.rows.get("a", 0) + 1])

    monkeypatch.setattr(Publisher, "_write_piece", strike)
    with open_state(disk) as state:
        app = Tables.in_state(state, "tables")
        table = app.table("t")
        app.update(change)
        assert table["large"] == LARGE + "1"
        assert state.machine["jobs"].content() == {"a": 1}


# --- expiry ---


def test_expired_rows_are_removed_before_a_checkpoint(disk: SimulatedDisk) -> None:
    """Expired rows of a part are removed before a checkpoint, even if nobody uses the tables any
    more."""
    disk.clock_ns, disk.tick_ns = 0, 0
    with open_state(disk) as state:
        table = Tables.in_state(state, "tables").table("t")
        for n in range(20):
            table.set(n, n, expires_at=1 + n // 10)
        state.update(lambda c: c.part("jobs", ["a", 1]))
        disk.clock_ns = 1_500_000_000
        assert dict(table.items()) == {n: n for n in range(10, 20)}
        del table
        assert state.compact().count == 11
        disk.clock_ns = 2_000_000_000
        table = Tables.in_state(state, "tables").table("t")
        table["x"] = 1  # removes four
        assert len(table) == 7


def test_a_dropped_state_is_not_kept_alive(disk: SimulatedDisk) -> None:
    """A state whose tables were used ends when the last reference to it is dropped."""
    state = open_state(disk)
    Tables.in_state(state, "tables").table("t")["a"] = 1
    journal = state.journal
    del state
    with pytest.raises(Exception, match="dropped without being closed"):
        journal.compact()
    journal.close()


# --- a dict ---


def test_a_dict_may_be_a_part(disk: SimulatedDisk) -> None:
    """A DurableDict of a part's tables is like one that is alone."""
    with open_state(disk) as state:
        settings = DurableDict(Tables.in_state(state, "tables"))
        settings["theme"] = {"dark": True}
        settings.update({"size": 3}, large=LARGE)
        assert settings.pop("size") == 3
        settings.sync(timeout_s=TIMEOUT_S)
    with open_state(disk) as state:
        assert dict(DurableDict(Tables.in_state(state, "tables"))) == {
            "theme": {"dark": True},
            "large": LARGE,
        }


# --- changes ---


@pytest.mark.parametrize("is_compacted", [False, True])
def test_changes_are_those_of_the_part(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, is_compacted: bool
) -> None:
    """Changes come from the records of their part alone, and large values from its pieces, even if
    a checkpoint has these."""
    write_piece = Publisher._write_piece

    def compact_between(self: Publisher, piece: Any) -> None:
        write_piece(self, piece)
        if is_compacted:
            state.compact()

    with open_state(disk) as state:
        app = Tables.in_state(state, "tables")
        table, changes = app.table("t"), app.changes(0)
        table["a"] = 1
        state.update(lambda c: c.part("jobs", ["rows", ["t", b"a", None]]))
        app.sync(timeout_s=TIMEOUT_S)
        assert next(changes).value == 1
        monkeypatch.setattr(Publisher, "_write_piece", compact_between)
        with app.transaction() as t:
            t[table]["b"] = LARGE
            t.also("jobs", ["a", 1])
        del table["a"]
        lsns = t.lsn, state.journal.last_lsn
    found = [(change.lsn, change.key, change.value) for change in changes]
    assert found == [((lsns[0] or 0) - 1, "b", LARGE), (lsns[1], "a", None)]


# --- reads without a lock ---


def test_the_tables_of_a_part_are_read_without_a_lock(disk: SimulatedDisk) -> None:
    """P4: The tables of a part are read from the log and from checkpoints, beside a live writer."""
    with open_state(disk) as state:
        app = Tables.in_state(state, "tables")
        app.table("t")["a"] = 1
        lsn = state.update(lambda c: c.part("jobs", ["rows", ["t", b"a", None]]))
        app.sync(timeout_s=TIMEOUT_S)
        app.table("t")["b"] = LARGE
        app.sync(timeout_s=TIMEOUT_S)  # proves that the commit before it is durable
        before = Tables.read(PATH, at=lsn, part="tables", disk=disk)
        assert (rows_of(before), before.lsn) == ({"a": 1}, lsn)
    for _ in range(2):
        assert rows_of(Tables.read(PATH, part="tables", disk=disk)) == {"a": 1, "b": LARGE}
        with open_state(disk) as state:
            state.compact()


def rows_of(view: Any) -> dict[Any, Any]:
    """Return the rows of the table `t`."""
    return dict(view.table("t").items())


def nothing(_: DurableState[Composite]) -> None:
    pass


def compacted(state: DurableState[Composite]) -> None:
    state.compact()


@pytest.mark.parametrize("then", [nothing, compacted])
def test_the_part_to_read_must_have_tables(
    disk: SimulatedDisk, then: Callable[[DurableState[Composite]], None]
) -> None:
    """A read of another part, or of none, is refused, and a part that has no data yet is empty."""
    with open_state(disk) as state:
        Tables.in_state(state, "tables").table("t")["a"] = 1
        state.update(lambda c: c.part("jobs", ["a", 1]))
        then(state)
        state.wait_durable(timeout_s=TIMEOUT_S)
    for part in ("jobs", None):
        with pytest.raises(FormatVersionError):
            Tables.read(PATH, part=part, disk=disk)
    assert Tables.read(PATH, part="later", disk=disk).names() == []
    with pytest.raises(ValueError, match="not an identifier"):
        Tables.read(PATH, part="no name", disk=disk)


def test_a_part_of_another_application_is_refused_without_data(disk: SimulatedDisk) -> None:
    """A read of a part is refused if the checkpoint names another application for it, even if the
    part has no items."""
    with open_state(disk) as state:
        Tables.in_state(state, "tables").table("t")["a"] = 1
        state.compact()
    with pytest.raises(FormatVersionError, match="part 'jobs'"):
        Tables.read(PATH, part="jobs", disk=disk)


def test_tables_alone_have_no_part_to_read(disk: SimulatedDisk) -> None:
    """A read of a part of tables that are alone is refused, with and without a checkpoint."""
    with open_tables(disk) as app:
        app.table("t")["a"] = 1
    for _ in range(2):
        with pytest.raises(FormatVersionError):
            Tables.read(PATH, part="rows", disk=disk)
        with open_tables(disk) as app:
            app.compact()


def test_a_conflict_in_a_part_changes_no_other(disk: SimulatedDisk) -> None:
    """P3: A conflict of a transaction's reads leaves the other parts as they were."""
    with open_state(disk) as state:
        app = Tables.in_state(state, "tables")

        def change(t: Transaction) -> None:
            t[app.table("t")].insert("a", LARGE)
            t.also("jobs", ["a", 1])
            Tables.in_state(state, "tables").table("t")["a"] = 0

        with pytest.raises(ConflictError):
            app.transact(change, attempts=1)
        assert state.machine["jobs"].content() == {}
        assert app._machine.uploads.ids() == []


@pytest.mark.parametrize("size", range(150, 260))
def test_a_row_fits_whatever_its_size(disk: SimulatedDisk, size: int) -> None:
    """A row of any size is written, although the name of its part takes room in the record."""
    part = "a_part_whose_name_takes_much_room_in_each_record"
    with state_on(disk, Composite(**{part: Tables.machine()}), record_bytes_max=256) as state:
        app = Tables.in_state(state, part)
        with app.transaction() as t:
            t[app.table("t")][1] = "x" * size
        app.table("t")[2] = "x" * size
        assert rows(app.table("t")) == {1: "x" * size, 2: "x" * size}
