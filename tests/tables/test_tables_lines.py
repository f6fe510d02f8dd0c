"""Lines of a checkpoint of tables that are forged, or as long as a checkpoint takes."""

from __future__ import annotations

import resource
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import JournalError
from journal._format.checkpoint import LINE_BYTES_MAX, VERSION
from journal._format.items import decoder
from journal._tables.chunked_map import rows_between
from journal._tables.expiry import expiry_of
from journal._tables.keys import Key, encode_key
from journal._tables.machine import TablesMachine
from journal._tables.values import pack_value, unpack_value


@pytest.mark.parametrize(
    "forged",
    [
        b'{"table":"t","key":' + b',"value":' * 20_000 + b"}]",
        b'{"table":"' + b"t" * 1_000_000 + b'","key":1,"value":1}',
    ],
    ids=["many values", "a long name"],
)
def test_a_forged_line_costs_no_more_than_its_length(forged: bytes) -> None:
    """P9: it is refused in a moment; it took seconds, and 130 bytes of memory a byte."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises((ValueError, JournalError)):
        TablesMachine().load_lines(forged)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime - before.ru_utime < 2
    assert after.ru_maxrss - before.ru_maxrss < 32 << 10  # KiB


def test_a_line_may_be_as_long_as_a_checkpoint_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row is loaded, and the next checkpoint takes it, too: no other line is beside it."""
    rest = b'{"table":"t","key":2,"value":""}'
    value = b"x" * (LINE_BYTES_MAX - 2 - len(rest))
    machine = TablesMachine()
    machine.load_lines(b'{"table":"t","key":1,"value":1},\n' + rest[:-2] + value + rest[-2:])
    assert [len(item.lines) for item in machine.freeze()] == [31, LINE_BYTES_MAX - 2]


NAMES = st.sampled_from(["t", "u", ',"value":', '"key":1,"expires_at_ms":2,"value":\\'])
TEXTS = st.text(max_size=3) | st.sampled_from(['"', '\\",', ',"value":', '"expires_at_ms":1'])
VALUES = st.none() | TEXTS | st.just(float("nan")) | st.dictionaries(TEXTS, TEXTS, max_size=2)
ROWS = st.dictionaries(
    st.tuples(NAMES, st.integers(-3, 3) | TEXTS | st.tuples(TEXTS)),
    st.tuples(VALUES, st.sampled_from([None, None, None, 1.5])),
    max_size=20,
)


@given(rows=ROWS, lines_a_block=st.integers(1, 8))
def test_lines_that_are_taken_apart_together_are_the_same_rows(
    rows: dict[tuple[str, Key], tuple[Any, float | None]], lines_a_block: int
) -> None:
    """Blocks of lines of one table, and any others, have the rows that each line alone has."""
    machine = TablesMachine()
    for (name, key), (value, expires_at) in rows.items():
        write = [name, encode_key(key), pack_value(value, expires_at)]
        machine.apply(1, ["rows", write])
    text = b",\n".join(item.lines for item in machine.freeze()) + b"\n"
    lines = text.splitlines(keepends=True) if rows else []
    together, alone = TablesMachine(), TablesMachine()
    for at in range(0, len(lines), lines_a_block):
        together.load_lines(b"".join(lines[at : at + lines_a_block]))
    for line in lines:
        one = line.removesuffix(b"\n").removesuffix(b",")
        alone.load(decoder(VERSION, one)(one.decode()))
    assert _rows(together) == _rows(alone) == _rows(machine)
    assert together.expiries.count == alone.expiries.count == machine.expiries.count


def _rows(machine: TablesMachine) -> dict[tuple[str, bytes], tuple[str, int | None]]:
    return {
        (name, key): (repr(unpack_value(value)), expiry_of(value))
        for name, table in machine.tables.items()
        for key, value in rows_between(table.chunks_between(), b"", None)
    }


@pytest.mark.parametrize("keys", [[b"1,2", b"3"], [b"1", b""], [b'"a', b'b"'], [b"2", b"1"]])
def test_lines_whose_keys_are_forged_are_refused(keys: list[bytes]) -> None:
    """P9: Each line has one key, and they ascend."""
    block = b"".join(b'{"table":"t","key":%b,"value":1},\n' % key for key in keys)
    with pytest.raises(ValueError, match=r"keys|Expecting|trailing comma"):
        TablesMachine().load_lines(block)
