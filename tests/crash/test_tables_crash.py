"""Crashes of tables: every crash of a workload, and random ones, on the simulated disk."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from journal import ConflictError, FailedError, JournalError, Tables
from journal._tables import chunked_map
from journal._tables.keys import encode_key
from journal._tables.machine import ROWS, TablesMachine
from journal._tables.values import pack_value
from journal.testing import Owner, SimulatedDisk, drawn, explore
from journal.testing.machine import CrashMachine
from tests.support import PATH, TIMEOUT_S, options

KEYS = st.sampled_from([1, 2, "a", ("a",), ("a", 1), b"\0"])
VALUES = st.sampled_from([None, 1, "text", b"\xff", {"n": [1, {"$bytes": "x"}]}, {1: 2}])
NAMES = st.sampled_from(["t", "u"])


def write(name: str, key: Any, value: Any = ...) -> list[Any]:
    """Return a write of a record; without a value it removes the key."""
    return [name, encode_key(key), None if value is ... else pack_value(value)]


class CrashTables(CrashMachine[TablesMachine]):
    """Records of writes to two tables."""

    machine = TablesMachine
    records = st.lists(st.builds(write, NAMES, KEYS, VALUES | st.just(...)), min_size=1).map(
        lambda writes: [ROWS, *writes]
    )


TestCrashTables = CrashTables.TestCase
TestCrashTables.settings = settings(max_examples=30, stateful_step_count=20)


def work(owner: Owner[TablesMachine]) -> None:
    """Set, replace and remove rows of two tables, around two checkpoints."""
    owner.append([ROWS, write("t", 1, {"n": 1}), write("u", ("a", 1), b"\xff")])
    owner.wait()
    owner.append([ROWS, write("t", 1, {1: 2}), write("t", 2, None)])
    owner.compact()
    owner.append([ROWS, write("t", 2), write("u", ("a", 2), "x")])
    owner.reopen()
    owner.append([ROWS, write("u", ("a", 1), "changed")])
    owner.compact()
    owner.reopen()


def test_every_crash_of_a_workload() -> None:
    """P1 to P6: each crash leaves a prefix of the transactions, and replay gives the live state."""
    assert explore(TablesMachine, work).states > 500


class TablesRun(RuleBasedStateMachine):
    """Tables beside plain dicts, with power cuts that keep what was synced."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(chunked_map, "CHUNK_KEYS_MAX", 4)
        self.patch.setattr(chunked_map, "_CHUNK_KEYS_MIN", 2)
        self.disk = SimulatedDisk()
        self.model: dict[tuple[str, Any], Any] = {}
        self.history: list[dict[tuple[str, Any], Any]] = [{}]
        self.synced = 0  # states of the history that no power cut may take
        self.app = self.open()

    def open(self) -> Tables:
        return Tables.open(PATH, options=options(segment_bytes=1 << 20), disk=self.disk)

    def teardown(self) -> None:
        self.app.close(timeout_s=TIMEOUT_S)
        self.patch.undo()

    def note(self) -> None:
        self.history.append(dict(self.model))

    @rule(name=NAMES, key=KEYS, value=VALUES)
    def set(self, name: str, key: Any, value: Any) -> None:
        self.app.table(name)[key] = value
        self.model[name, key] = value
        self.note()

    @rule(name=NAMES, key=KEYS)
    def delete(self, name: str, key: Any) -> None:
        table = self.app.table(name)
        if (name, key) in self.model:
            table.delete(key)
            del self.model[name, key]
            self.note()
        else:
            with pytest.raises(ConflictError):
                table.delete(key)

    @rule(
        writes=st.lists(st.tuples(NAMES, KEYS, VALUES | st.just(...)), min_size=1, max_size=6),
        is_broken_off=st.booleans(),
    )
    def transaction(self, writes: list[tuple[str, Any, Any]], is_broken_off: bool) -> None:
        after = dict(self.model)
        with suppress(ZeroDivisionError), self.app.transaction() as t:
            for name, key, value in writes:
                rows = t[self.app.table(name)]
                assert rows.get(key, ...) == after.get((name, key), ...)
                if value is not ...:
                    rows[key] = after[name, key] = value
                elif (name, key) in after:
                    del rows[key], after[name, key]
            for name in ("t", "u"):
                mine = {key: value for (table, key), value in after.items() if table == name}
                assert dict(t[self.app.table(name)].range()) == mine
            if is_broken_off:
                raise ZeroDivisionError
        if not is_broken_off and t.lsn is not None:
            self.model = after
            self.note()

    @rule()
    def compact(self) -> None:
        self.app.compact()
        self.synced = len(self.history) - 1

    @rule()
    def sync(self) -> None:
        self.app.sync(timeout_s=TIMEOUT_S)
        self.synced = len(self.history) - 1

    @rule()
    def reopen(self) -> None:
        self.app.close(timeout_s=TIMEOUT_S)
        self.app = self.open()
        self.synced = len(self.history) - 1

    @precondition(lambda self: len(self.history) > 1)
    @rule(data=st.data())
    def power_cut(self, data: st.DataObject) -> None:
        self.disk.power_cut(drawn(lambda most: data.draw(st.integers(0, most))))
        with suppress(FailedError, JournalError):
            self.app.close(timeout_s=TIMEOUT_S)
        self.app = self.open()
        self.model = {
            (name, key): value
            for name in self.app.names()
            for key, value in self.app.table(name).items()
        }
        assert self.model in self.history[self.synced :]
        index = len(self.history) - 1 - self.history[::-1].index(self.model)
        self.history = self.history[: index + 1]
        self.synced = min(self.synced, index)

    @invariant()
    def rows_are_the_models(self) -> None:
        for name in ("t", "u"):
            mine = {key: value for (table, key), value in self.model.items() if table == name}
            assert dict(self.app.table(name).items()) == mine


TestTablesRun = TablesRun.TestCase
TestTablesRun.settings = settings(max_examples=60, stateful_step_count=25)
