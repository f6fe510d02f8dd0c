"""Sets of single rows: the bytes of their records, and what a machine does with them."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from journal import Tables
from journal._tables.expiry import with_expiry
from journal._tables.machine import ROWS, TablesMachine, record_of
from journal._tables.pieces import PIECE
from journal._tables.row_writer import RowWriter
from journal.testing import SimulatedDisk
from tests.support import PATH, options
from tests.tables.tables_support import open_tables

UPLOAD = bytes(16)
NAMES = st.sampled_from(["t", "users", "n" * 31, "n" * 32, "n" * 255, "ü" * 127])
KEY_BYTES = st.sampled_from([1, 2, 31, 254, 255, 256, 300])
VALUE_BYTES = st.sampled_from([1, 2, 250, 254, 255, 256, 257, (1 << 16) - 1, 1 << 16])
SOME_KEYS = st.sampled_from([b"\x20a", b"\x20b", b"\x20c"])
SOME_VALUES = st.builds(
    with_expiry, st.sampled_from([b"\x01", b"\x02"]), st.none() | st.integers(0, 3)
)


def set_by_writer(tables: Tables, name: str, key: bytes, value: bytes) -> list[Any]:
    """Set a row. Return what was applied and appended, or nothing if the publisher wrote it."""
    calls: list[Any] = []
    writer = RowWriter(tables._publisher, name)
    apply_and_append = writer._apply_and_append

    def recorded(change: tuple[Any, Any, bytes, bool]) -> int:
        calls.extend(change[:3])
        return apply_and_append(change)

    writer._apply_and_append = recorded
    assert writer.set(key, value) == tables.journal.last_lsn
    return calls


@given(name=NAMES, key_bytes=KEY_BYTES, value_bytes=VALUE_BYTES)
def test_the_record_of_a_set_has_the_bytes_of_any_other(
    name: str, key_bytes: int, value_bytes: int
) -> None:
    """The record of a set is what msgpack packs, at each size. The publisher writes rows that are
    larger than a record of this form holds."""
    key, value = b"\x30" * key_bytes, b"\xc6" + b"x" * (value_bytes - 1)
    with open_tables(SimulatedDisk()) as tables:
        calls = set_by_writer(tables, name, key, value)
        assert tables._machine.get(name, key) == value
    assert bool(calls) == (key_bytes < 1 << 8 and value_bytes < 1 << 16)
    if calls:
        assert calls[-1] == record_of([(name, key, value)])._packed


def test_a_row_that_might_not_fit_in_a_record_is_the_publishers() -> None:
    """A set never makes a record over `record_bytes_max`."""
    small = options(record_bytes_max=1000, segment_bytes=1 << 20)
    with Tables.open(PATH, options=small, disk=SimulatedDisk()) as tables:
        key = b"\x30" * 255
        for size in range(600, 1200):
            calls = set_by_writer(tables, "t", key, b"\xc6" + b"x" * (size - 1))
            assert bool(calls) == (size <= 731)
            assert not calls or len(calls[-1]) == size + 269 <= 1000


@given(rows=st.lists(st.tuples(SOME_KEYS, SOME_VALUES), max_size=8))
@example(rows=[(b"\x20a", b"\x01")])
def test_a_set_has_the_effect_of_its_record(rows: list[tuple[bytes, bytes]]) -> None:
    """A machine that sets rows equals one that applies their records: in its rows, in its rows that
    expire, and in the large values that it lets its writer free."""
    setting, applying = TablesMachine(), TablesMachine()
    for machine in setting, applying:
        machine.finish_open()
        machine.apply(1, [PIECE, UPLOAD, 0, b"\x01"])
        machine.apply(2, [ROWS, ["t", b"\x20a", [UPLOAD, 1]]])
    for lsn, (key, value) in enumerate(rows, 3):
        setting.set_row(lsn, ("t", key, value))
        applying.apply(lsn, [ROWS, ["t", key, value]])
    for machine in setting, applying:
        machine.expiries.settle()
    assert list(setting.freeze()) == list(applying.freeze())
    assert setting.replaced == applying.replaced
    assert setting.expiries.count == applying.expiries.count
    assert setting.expiries.due(9, 99, 1 << 20) == applying.expiries.due(9, 99, 1 << 20)
