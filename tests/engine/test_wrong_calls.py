"""Calls that a first program gets wrong: each error says what to write instead."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from journal import (
    ClosedError,
    Composite,
    ConflictError,
    DurableDict,
    DurableState,
    FormatVersionError,
    InterruptedCallError,
    Journal,
    JournalReader,
    Options,
    Tables,
    backup,
    repair,
)
from journal.testing import Owner, SimulatedDisk, explore
from manager import SubAgentManager
from tests.engine.state_support import state_on
from tests.support import PATH, Table, open_on, run

KINDS: list[Any] = [Journal, DurableState, Tables, DurableDict, JournalReader, SubAgentManager]


@pytest.mark.parametrize("arguments", [(), ("app.d",), (Path("app.d"), 3)], ids=repr)
@pytest.mark.parametrize("kind", KINDS)
def test_a_constructor_with_a_path_names_open(kind: Any, arguments: tuple[object, ...]) -> None:
    """A class that is called with a path, or without arguments, names its `open`."""
    with pytest.raises(TypeError, match=rf"^{kind.__name__}\(...\) opens nothing; call .*\.open"):
        kind(*arguments)


def test_a_subclass_may_have_a_constructor_of_its_own(disk: SimulatedDisk) -> None:
    """A program's subclass whose own `__init__` takes a path is not refused."""

    class App(Tables):
        def __init__(self, path: str) -> None:
            super().__init__(DurableState.open(path, Tables.machine(), disk=disk), 10)  # type: ignore[arg-type]

    with App(PATH) as app:
        app.table("rows")[1] = 2
        assert DurableDict(tables=app) == {}
        assert app.table("rows")[1] == 2


@pytest.mark.parametrize("wrong", ["/tmp", 5, SimulatedDisk], ids=["path", "int", "class"])
def test_a_disk_of_another_type_is_refused(wrong: Any) -> None:
    """A `disk` that is none raises TypeError in every open, and in functions that take one."""
    calls: list[Any] = [
        Journal.open,
        Tables.open,
        DurableDict.open,
        JournalReader.open,
        Tables.read,
        repair,
        partial(DurableState.open, machine=Table()),
        partial(backup, dest="/copy"),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"^disk must be a Disk, such as a SimulatedDisk, or "):
            call(PATH, disk=wrong)


@pytest.mark.parametrize("options", [None, {"durability": "os"}, Options])
def test_options_of_another_type_are_refused(options: Any, disk: SimulatedDisk) -> None:
    """An open with anything but Options raises TypeError, and writes nothing."""
    for kind in (Journal, Tables, DurableDict):
        with pytest.raises(TypeError, match=r"^options must be Options\(\.\.\.\), not "):
            kind.open(PATH, options=options, disk=disk)
    with pytest.raises(TypeError, match=r"^options must be Options"):
        DurableState.open(PATH, Table(), options=options, disk=disk)
    assert disk.operations == []


NO_BATCHES = [
    "queued",
    b"queued",
    bytearray(b"ab"),
    memoryview(b"ab"),
    {"id": 1},
    {"a", "b"},
    frozenset("ab"),
]


@pytest.mark.parametrize("record", NO_BATCHES, ids=lambda record: type(record).__name__)
def test_a_record_is_not_a_batch(record: Any, disk: SimulatedDisk) -> None:
    """A batch that is a string, bytes or a dict is refused: its parts are not meant as records. So
    is a set, because its records would have any order."""
    message = rf"^a batch is a list of records, not a {type(record).__name__}$"
    with state_on(disk) as state:
        with pytest.raises(TypeError, match=message):
            state.update_batch(lambda _: record)
        assert state.journal.last_lsn == 0
    with open_on(SimulatedDisk()) as journal:
        with pytest.raises(TypeError, match=message):
            journal.append_batch(record)
        assert journal.last_lsn == 0


@pytest.mark.parametrize("call", ["update", "update_batch", "update_with_result", "read"])
def test_a_record_is_not_a_callback(call: str, disk: SimulatedDisk) -> None:
    """A state's call that gets a record in place of a function names the argument. Nothing has
    changed."""
    name = "query" if call == "read" else "decide"
    with state_on(disk) as state:
        with pytest.raises(TypeError, match=rf"^{name} must be callable, not \{{'id': 1\}}$"):
            getattr(state, call)({"id": 1})
        assert state.journal.last_lsn == 0
        state.update(lambda _: ["a", 1])


def test_a_value_is_not_a_callback(disk: SimulatedDisk) -> None:
    """A call of tables that gets a value in place of a function names the argument. Nothing has
    changed."""
    with Tables.open(PATH, disk=disk) as app:
        settings: Any = DurableDict(tables=app)
        calls: list[Any] = [
            app.transact,
            app.update,
            partial(app.table("rows").update, "a"),
            partial(settings.update, "a"),
        ]
        for call in calls:
            with pytest.raises(TypeError, match=r"^function must be callable, not \{'id': 1\}$"):
                call({"id": 1})
        assert app.journal.last_lsn == 0


def test_a_coroutine_function_is_no_transaction(disk: SimulatedDisk) -> None:
    """`transact` and `update` refuse a coroutine function, because it would run after their end."""

    async def change(t: Any) -> None:
        t[app.table("rows")][1] = 2

    with Tables.open(PATH, disk=disk) as app:
        calls: list[Any] = [app.transact, app.update]
        for call in calls:
            with pytest.raises(TypeError, match="is a coroutine function; nothing was written"):
                call(change)
        assert app.names() == []


def test_a_conflict_asks_for_a_new_read(disk: SimulatedDisk) -> None:
    """A failed conditional write says that the same call would fail again."""
    with Tables.open(PATH, disk=disk) as app:
        rows = app.table("rows")
        rows[1] = 2
        with pytest.raises(ConflictError, match=r"nothing was written: try again from a new read$"):
            rows.insert(1, 3)


def test_a_call_inside_a_callback_names_the_argument(disk: SimulatedDisk) -> None:
    """A write inside a callback under the lock is told to use the callback's argument."""
    with Tables.open(PATH, disk=disk) as app:
        with pytest.raises(InterruptedCallError, match="In a callback, use its argument"):
            app.update(lambda _: app.table("rows").set(1, 2))
        assert app.names() == []


def test_a_journal_without_a_state_trims(disk: SimulatedDisk) -> None:
    """A compaction of a journal that has no state names `trim`."""
    with open_on(disk) as journal, pytest.raises(ValueError, match=r"call trim$"):
        journal.compact()


def test_the_repr_of_options_shows_what_was_chosen() -> None:
    """The repr of Options leaves out the defaults, so that a signature with them stays short."""
    assert repr(Options()) == "Options()"
    assert eval(repr(Options(retain_s=5, durability="os"))) == Options(durability="os", retain_s=5)


def test_a_closed_reader_refuses_calls(disk: SimulatedDisk) -> None:
    """A call of a closed reader raises ClosedError, as one of a closed journal does."""
    with open_on(disk) as journal:
        journal.append("a")
    with JournalReader.open(PATH, disk=disk) as reader:
        assert [entry.record for entry in reader.entries()] == ["a"]
    for call in (lambda: list(reader.entries()), lambda: reader.last_lsn, reader.segments):
        with pytest.raises(ClosedError, match=r"the reader is closed; open it again"):
            call()
    reader.close()


def test_a_read_of_a_composite_asks_for_the_part(disk: SimulatedDisk) -> None:
    """Tables that are read from a Composite without naming the part name the argument to pass."""
    DurableState.open(PATH, Composite(tables=Tables.machine()), disk=disk).close()
    with pytest.raises(
        FormatVersionError, match=r"name the part that has the tables, with `part`$"
    ):
        Tables.read(PATH, disk=disk)
    assert Tables.read(PATH, part="tables", disk=disk).names() == []


def test_the_explorer_takes_what_makes_a_machine() -> None:
    """An explorer or an Owner that gets a machine instead of its class says so."""
    calls: list[Any] = [lambda machine: explore(machine, lambda _: None), Owner]
    for call in calls:
        with pytest.raises(
            TypeError, match=r"^pass what makes a state machine, such as Table, not"
        ):
            call(Table())


def test_a_blocking_sync_names_itself(tmp_path: Path) -> None:
    """The warning about a wait in an event loop names `sync` if the program called `sync`."""
    program = """
import asyncio, sys
from journal import DurableDict

async def main():
    with DurableDict.open(sys.argv[1]) as settings:
        settings["a"] = 1
        settings.sync()

asyncio.run(main())
"""
    stderr = run(program, tmp_path / "j").stderr
    assert "sync blocks this thread" in stderr
    assert "use `await durable()` instead" in stderr
