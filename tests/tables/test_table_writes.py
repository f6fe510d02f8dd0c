"""Conversions for programs that show tables: tables_writes and row_as_json."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    TABLES_APPLICATION_PREFIX,
    JournalReader,
    Key,
    TableWrite,
    pack,
    row_as_json,
    tables_writes,
)
from journal._format.record import unpack_one
from journal._tables.keys import encode_key
from journal._tables.machine import TablesMachine, record_of
from journal.testing import SimulatedDisk
from tests.support import PATH, TIMEOUT_S
from tests.tables.tables_support import open_tables

ELEMENTS = st.integers(-(1 << 63), (1 << 64) - 1) | st.text(max_size=5) | st.binary(max_size=5)
KEYS = ELEMENTS | st.lists(ELEMENTS, min_size=1, max_size=3).map(tuple)
VALUES = st.recursive(
    st.none() | st.booleans() | ELEMENTS | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.just("$bytes") | st.integers(0, 9), inner)
    ),
    max_leaves=8,
)


def test_writes_of_a_journal_are_decoded(disk: SimulatedDisk) -> None:
    """The writes of each record of tables are returned in order, with decoded keys and values."""
    with open_tables(disk) as app:
        users = app.table("users")
        users["de", 7] = {"name": "Ada"}
        with app.transaction() as t:
            t[users]["x"] = b"\0"
            del t[users]["de", 7]
        app.sync(timeout_s=TIMEOUT_S)
    with JournalReader.open(PATH, disk=disk) as reader:
        records = [entry.record for entry in reader.entries()]
    assert [tables_writes(record) for record in records] == [
        [TableWrite("users", ("de", 7), "set", {"name": "Ada"})],
        [
            TableWrite("users", "x", "set", b"\0"),
            TableWrite("users", ("de", 7), "removed", None),
        ],
    ]
    assert TablesMachine.application.startswith(TABLES_APPLICATION_PREFIX)


@given(st.lists(st.tuples(st.text(max_size=3), KEYS, VALUES), min_size=1, max_size=3))
def test_any_writes_are_decoded(writes: list[tuple[str, Key, Any]]) -> None:
    """Every key and value that can be written is decoded to an equal one."""
    record = record_of([(t, encode_key(key), pack(value)._packed) for t, key, value in writes])
    assert tables_writes(unpack_one(record._packed)) == [
        TableWrite(table, key, "set", value) for table, key, value in writes
    ]


@pytest.mark.parametrize(
    ("value", "more"),
    [(b"\xc1\x01", ()), (b"\xc1\xff", ()), (b"", ()), ([b"id", 2], ()), (b"\x01", (5,))],
)
def test_an_unknown_form_of_a_value_is_another_change(value: Any, more: tuple[int, ...]) -> None:
    """The table and the key are decoded even if the value is in a newer version's form."""
    record = ["rows", ["t", encode_key(1), value, *more]]
    assert tables_writes(record) == [TableWrite("t", 1, "other", None)]


@pytest.mark.parametrize(
    "record",
    [
        *(None, 7, [], {}, ["rows"], ["piece", b"id", 0, b"x"], ["rows", "t"], ["rows", ["t"]]),
        *(["rows", [1, b"\x20x", None]], ["rows", ["t", "k", None]], ["rows", ["t", b"", None]]),
        *(["rows", ["t", b"\x40\x20", None]], ["rows", ["t", b"\x20\xff", None]]),
        ["rows", ["t", b"\x20x", None], ["t", b"x", None]],
    ],
)
def test_other_records_have_no_writes(record: Any) -> None:
    """The writes of a record of another kind or another program are None."""
    assert tables_writes(record) is None


@given(st.binary(max_size=12), st.binary(max_size=6))
def test_any_bytes_are_decoded_or_not(key: bytes, value: bytes) -> None:
    """Whatever bytes a forged record has as key and value, no exception is raised."""
    tables_writes(["rows", ["t", key, value]])


@given(st.text(min_size=1, max_size=3), KEYS, VALUES)
def test_a_row_as_json_is_read_back_by_a_machine(table: str, key: Key, value: Any) -> None:
    """A row as JSON is a line of a checkpoint, and a machine loads the same row from it."""
    line = json.dumps(row_as_json(table, key, value), separators=(",", ":")).encode()
    loaded = TablesMachine()
    loaded.load_lines(line)
    expected = TablesMachine()
    record = record_of([(table, encode_key(key), pack(value)._packed)])
    expected.apply(1, unpack_one(record._packed))
    (lines,), (expected_lines,) = loaded.freeze(), expected.freeze()
    assert lines.decoded() == expected_lines.decoded()


def test_a_value_that_json_cannot_hold_is_packed() -> None:
    """Values with a NaN, or with keys that are no strings, are msgpack under "packed"."""
    assert row_as_json("t", (b"\0", 1), {"$bytes": 1}) == {
        "table": "t",
        "key": [{"$bytes": "AA=="}, 1],
        "value": {"$$bytes": 1},
    }
    assert row_as_json("t", 1, {1: 2}) == {
        "table": "t",
        "key": 1,
        "packed": {"$bytes": "gQEC"},
    }
    assert "packed" in row_as_json("t", 1, [math.nan])
