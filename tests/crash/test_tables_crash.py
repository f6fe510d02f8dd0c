"""Crashes of tables: every crash of a workload, and random ones, on the simulated disk."""

from __future__ import annotations

from contextlib import suppress
from contextvars import copy_context
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from journal import ConflictError, Tables
from journal._tables import chunked_map
from journal._tables.expiry import expiry_of
from journal._tables.keys import encode_key
from journal._tables.machine import ROWS, TablesMachine
from journal._tables.values import pack_value
from journal.testing import Owner, explore
from journal.testing.machine import CrashMachine
from tests.crash.tables_crash_support import ModelRun, killed_between_pieces
from tests.support import PATH, TIMEOUT_S, options
from tests.tiers import examples

KEYS = st.sampled_from([1, 2, "a", ("a",), ("a", 1), b"\0"])
LARGE: list[Any] = ["x" * 400, {1: b"\xff" * 300}]  # written in pieces by TablesRun
VALUES = st.sampled_from([None, 1, "text", b"\xff", {"n": [1, {"$bytes": "x"}]}, {1: 2}, *LARGE])
TIMES_S = st.none() | st.integers(1, 20)
NAMES = st.sampled_from(["t", "u"])


Row = tuple[Any, int | None]  # a value, and when it expires


def write(name: str, key: Any, value: Any = ..., time_s: int | None = None) -> list[Any]:
    """Return a write of a record; without a value it removes the key."""
    return [name, encode_key(key), None if value is ... else pack_value(value, time_s)]


class CrashTables(CrashMachine[TablesMachine]):
    """Records of writes to two tables."""

    machine = TablesMachine
    records = st.lists(
        st.builds(write, NAMES, KEYS, VALUES | st.just(...), TIMES_S), min_size=1
    ).map(lambda writes: [ROWS, *writes])


TestCrashTables = CrashTables.TestCase
TestCrashTables.settings = settings(max_examples=examples(30), stateful_step_count=20)


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
    """P1 to P6: Each crash leaves a prefix of the transactions, and replay gives the live state."""
    assert explore(TablesMachine, work).states > 500


class TablesRun(ModelRun[Tables]):
    """Tables beside plain dicts, with power cuts that keep what was synced.

    Records are so small that some values are written in pieces. The clock only goes forward, so
    whether a row that has expired was removed makes no difference.
    """

    def __init__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(chunked_map, "CHUNK_KEYS_MAX", 4)
        self.patch.setattr(chunked_map, "_CHUNK_KEYS_MIN", 2)
        super().__init__()

    def open(self) -> Tables:
        chosen = options(segment_bytes=1 << 20, record_bytes_max=256)
        return Tables.open(PATH, options=chosen, disk=self.disk)

    def app(self) -> Tables:
        return self.store

    def teardown(self) -> None:
        super().teardown()
        self.patch.undo()

    def shown(self, model: dict[tuple[str, Any], Row]) -> dict[tuple[str, Any], Row]:
        now_s = self.disk.clock_ns / 10**9
        return {at: row for at, row in model.items() if row[1] is None or now_s < row[1]}

    def actual(self) -> dict[tuple[str, Any], Row]:
        """Return the rows that the tables show, each with its time."""
        rows: dict[tuple[str, Any], Row] = {}
        for name in ("t", "u"):
            for key, value in self.store.table(name).items():
                time_ms = expiry_of(self.store._machine.get(name, encode_key(key)))
                rows[name, key] = value, None if time_ms is None else time_ms // 1000
        return rows

    @rule(name=NAMES, key=KEYS, value=VALUES, time_s=TIMES_S)
    def set(self, name: str, key: Any, value: Any, time_s: int | None) -> None:
        self.store.table(name).set(key, value, expires_at=time_s)
        self.model[name, key] = value, time_s
        self.note()

    @rule(name=NAMES, key=KEYS, value=VALUES, time_s=TIMES_S)
    def insert(self, name: str, key: Any, value: Any, time_s: int | None) -> None:
        table = self.store.table(name)
        if (name, key) in self.shown(self.model):
            with pytest.raises(ConflictError):
                table.insert(key, value, expires_at=time_s)
        else:
            table.insert(key, value, expires_at=time_s)
            self.model[name, key] = value, time_s
            self.note()

    @rule(name=NAMES, key=KEYS)
    def delete(self, name: str, key: Any) -> None:
        table = self.store.table(name)
        if (name, key) in self.shown(self.model):
            table.delete(key)
            del self.model[name, key]
            self.note()
        else:
            with pytest.raises(ConflictError):
                table.delete(key)

    @rule(
        writes=st.lists(
            st.tuples(NAMES, KEYS, VALUES | st.just(...), TIMES_S), min_size=1, max_size=6
        ),
        is_broken_off=st.booleans(),
    )
    def transaction(
        self, writes: list[tuple[str, Any, Any, int | None]], is_broken_off: bool
    ) -> None:
        after = dict(self.model)
        with suppress(ZeroDivisionError), self.store.transaction() as t:
            for name, key, value, time_s in writes:
                rows = t[self.store.table(name)]
                seen = self.shown(after).get((name, key), (...,))[0]
                assert rows.get(key, ...) == seen
                if value is not ...:
                    rows.set(key, value, expires_at=time_s)
                    after[name, key] = value, time_s
                elif seen is not ...:
                    del rows[key], after[name, key]
            for name in ("t", "u"):
                shown = self.shown(after).items()
                expected = {key: row[0] for (table, key), row in shown if table == name}
                assert dict(t[self.store.table(name)].range()) == expected
            if is_broken_off:
                raise ZeroDivisionError
        if not is_broken_off and t.lsn is not None:
            self.model = after
            self.note()

    @rule(name=NAMES, key=KEYS, value=VALUES, expected=VALUES)
    def replace(self, name: str, key: Any, value: Any, expected: Any) -> None:
        if self.shown(self.model).get((name, key), (...,))[0] == expected:
            self.store.table(name).replace(key, value, expected=expected)
            self.model[name, key] = value, None
            self.note()
        else:
            with pytest.raises(ConflictError):
                self.store.table(name).replace(key, value, expected=expected)

    @rule(name=NAMES, key=KEYS, value=VALUES, under_lock=st.booleans())
    def append(self, name: str, key: Any, value: Any, under_lock: bool) -> None:
        """Append to a list, which keeps its time of expiry if it is an update of one key."""
        shown, table = self.shown(self.model), self.store.table(name)
        before, time_s = shown.get((name, key), (None, None))
        after = [*before, value] if type(before) is list else [value]
        if under_lock:
            self.store.update(lambda t: t[table].set(key, after, expires_at=time_s))
        else:
            table.update(key, lambda now: [*now, value] if type(now) is list else [value])
        self.model[name, key] = after, time_s
        self.note()

    @rule(
        name=NAMES,
        key=KEYS,
        other_key=KEYS,
        value=VALUES,
        reads=st.sampled_from(["key", "all", ""]),
    )
    def transaction_beside_a_write(
        self, name: str, key: Any, other_key: Any, value: Any, reads: str
    ) -> None:
        """Write to a table while the body of a transaction runs that may have read it."""
        table, outside = self.store.table(name), copy_context()
        has_conflict = reads == "all" or (reads == "key" and key == other_key)
        try:
            with self.store.transaction() as t:
                if reads == "key":
                    t[table].get(key)
                elif reads == "all":
                    list(t[table])
                t[table][key] = t[self.store.table("u")]["own"] = value
                other = f"of others {len(self.history)}"
                outside.run(table.__setitem__, other_key, other)
                self.model[name, other_key] = other, None
                self.note()
        except ConflictError:
            assert has_conflict
            return
        assert not has_conflict
        self.model[name, key] = self.model["u", "own"] = value, None
        self.note()

    @rule(seconds=st.integers(1, 6))
    def wait(self, seconds: int) -> None:
        self.disk.clock_ns += seconds * 10**9

    @rule()
    def compact(self) -> None:
        self.store.compact()
        self.note_sync()

    @rule()
    def reopen(self) -> None:
        self.store.close(timeout_s=TIMEOUT_S)
        self.store = self.open()
        self.note_sync()

    @precondition(lambda self: len(self.history) > 1)
    @rule(data=st.data())
    def power_cut(self, data: st.DataObject) -> None:
        self.cut_power(data)
        self.recover()

    @rule(data=st.data(), key=KEYS, value=st.sampled_from(LARGE), pieces=st.integers(0, 4))
    def power_cut_between_pieces(
        self, data: st.DataObject, key: Any, value: Any, pieces: int
    ) -> None:
        """Cut the power after some pieces, or before the record that publishes them."""

        def written() -> None:
            if data.draw(st.booleans()):
                self.sync()

        with killed_between_pieces(pieces, lambda: self.cut_power(data), written):
            self.store.table("t")[key] = value
        self.recover()

    @invariant()
    def rows_are_the_models(self) -> None:
        assert self.actual() == self.shown(self.model)
        assert self.store._machine.uploads.ids() == []


TestTablesRun = TablesRun.TestCase
TestTablesRun.settings = settings(max_examples=examples(100), stateful_step_count=25)
