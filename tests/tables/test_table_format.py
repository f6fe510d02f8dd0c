"""The bytes of tables are those that FORMAT.md shows, and can be read by its rules."""

from __future__ import annotations

import json
import re
from ast import literal_eval
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

import journal
from journal import JournalReader, RecordError, Tables
from journal._tables.keys import decode_key, encode_key
from journal._tables.machine import TablesMachine
from journal.testing import SimulatedDisk
from tests.support import PATH
from tests.tables.tables_support import open_tables, rows

PAGE = (Path(journal.__file__).parent / "docs" / "FORMAT.md").read_text()
SECTION = PAGE.partition("\n## Tables\n")[2].partition("\n## ")[0]


def fill(app: Tables) -> None:
    users, words = app.table("users"), app.table("words")
    words["jam"] = None
    with app.transaction() as t:
        t[users][("de", 7)] = {"name": "Ada"}
        del t[words]["jam"]
    users["at"], users["jam"], users[b"a\0"] = {1: 2}, b"\0\xff", float("inf")


def test_the_keys_of_the_page_are_encoded_as_it_shows() -> None:
    """Each key in the table of keys is encoded as its row shows."""
    rows = re.findall(r"\| `([^`]+)` \| `([0-9a-f ]+)` \|$", SECTION, re.MULTILINE)
    assert len(rows) == 6
    for text, encoded in rows:
        key = literal_eval(text)
        assert encode_key(key) == bytes.fromhex(encoded)
        assert decode_key(bytes.fromhex(encoded)) == key


def test_the_record_of_the_page_is_the_one_that_is_written(disk: SimulatedDisk) -> None:
    """The transaction that the page describes has the record of the hex dump."""
    (dump,) = re.findall(r"```hex\n(.*?)```", SECTION, re.DOTALL)
    packed = bytes.fromhex("".join(line[:50] for line in dump.splitlines()))
    assert f"has {len(packed)} bytes" in SECTION
    with open_tables(disk) as app:
        fill(app)
    with JournalReader.open(PATH, disk=disk) as reader:
        records = [entry.record for entry in reader.entries()]
    assert records[1] == msgpack.unpackb(packed)
    assert msgpack.packb(records[1]) == packed


def test_the_items_of_the_page_are_those_that_are_written(disk: SimulatedDisk) -> None:
    """A checkpoint of the tables that the page describes has the lines on the page."""
    shown = re.findall(r"^    (\{.*?\}),?$", SECTION, re.MULTILINE)
    with open_tables(disk) as app:
        fill(app)
        with closing(app.compact()) as checkpoint:
            name = checkpoint.path.rpartition("/")[2]
    text = disk.contents(PATH)[name].decode()
    lines = [line.removesuffix(",") for line in text.splitlines()[2:-2]]
    assert lines == shown
    assert all(json.loads(line) for line in lines)


KEY = encode_key("a")
UNDESCRIBED_RECORDS = {
    "a name of no bytes": ["rows", ["", KEY, b"\x01"]],
    "a name of 256 bytes": ["rows", ["\u00e9" * 128, KEY, b"\x01"]],
    "no value": ["rows", ["t", KEY, b""]],
    "a reserved value": ["rows", ["t", KEY, b"\xc1\x02"]],
    "JSON text": ["rows", ["t", KEY, b'\xc1{"a":1}']],
    "JSON text that expires": ["rows", ["t", KEY, b"\xc1\x01" + bytes(8) + b'\xc1{"a":1}']],
    "a time over 2^53 - 1": ["rows", ["t", KEY, b"\xc1\x01" + b"\xff" * 8 + b"\x01"]],
}
UNDESCRIBED_LINES = {
    "a name of no bytes": b'{"table":"","key":"a","value":1}',
    "a name of 256 bytes": b'{"table":"%b","key":"a","value":1}' % (b"t" * 256),
    "a field before the table": b'{"new":1,"table":"t","key":"a","value":1}',
    "a field before the value": b'{"table":"t","key":"a","new":1,"value":1}',
    "a field before a packed value": b'{"table":"t","key":"a","new":1,"packed":{"$bytes":"AQ=="}}',
    "no value": b'{"table":"t","key":"a"}',
    "a reserved value": b'{"table":"t","key":"a","packed":{"$bytes":"wTEy"}}',
    "a time within a value": b'{"table":"t","key":"a","packed":{"$bytes":"wQEAAAAAAAAAAAE="}}',
    "a field of a piece": b'{"new":1,"piece":{"$bytes":"AQ=="}}',
    "a field of an upload": b'{"upload":{"$bytes":"%b=="},"new":1,"piece":{"$bytes":"AQ=="}}'
    % (b"A" * 22),
}


@pytest.mark.parametrize("record", UNDESCRIBED_RECORDS.values(), ids=UNDESCRIBED_RECORDS)
def test_a_record_that_the_page_does_not_describe_is_refused(record: Any) -> None:
    """A replay refuses it, so a newer writer's records are not misread."""
    with pytest.raises((ValueError, RecordError)):
        TablesMachine().apply(1, record)


@pytest.mark.parametrize("line", UNDESCRIBED_LINES.values(), ids=UNDESCRIBED_LINES)
def test_an_item_that_the_page_does_not_describe_is_refused(line: bytes) -> None:
    """A load refuses it, so the next checkpoint does not lose a newer writer's field."""
    with pytest.raises((ValueError, RecordError)):
        TablesMachine().load_lines(line + b",\n")


# --- a reader that knows only the page ---


def key_of(data: bytes) -> Any:
    """Decode a key by the page's table."""
    if data[:1] != b"\x40":
        key, rest = element_of(data, in_tuple=False)
        assert not rest
        return key
    elements, rest = [], data[1:]
    while rest != b"\0":
        element, rest = element_of(rest, in_tuple=True)
        elements.append(element)
    return tuple(elements)


def element_of(data: bytes, *, in_tuple: bool) -> tuple[Any, bytes]:
    kind, rest = data[0], data[1:]
    if kind in (0x10, 0x11):
        return int.from_bytes(rest[:8], "big") - (1 << 64) * (kind == 0x10), rest[8:]
    if in_tuple:
        end = re.search(rb"\0(?!\xff)", rest)
        assert end
        rest, after = rest[: end.start()].replace(b"\0\xff", b"\0"), rest[end.end() :]
    else:
        after = b""
    assert kind in (0x20, 0x30)
    return rest.decode() if kind == 0x20 else rest, after


def read_by_the_page(disk: SimulatedDisk) -> dict[str, dict[Any, Any]]:
    """Rebuild the tables from the newest checkpoint and the records after it."""
    tables: dict[str, dict[Any, Any]] = {}
    with JournalReader.open(PATH, disk=disk) as reader:
        lsn = 0
        if base := reader.base():
            with closing(base):
                lsn = base.lsn
                for item in base.items():
                    key = tuple(item["key"]) if type(item["key"]) is list else item["key"]
                    packed = item.get("packed")
                    value = unpacked(packed) if packed is not None else item["value"]
                    tables.setdefault(item["table"], {})[key] = value
        for entry in reader.entries(lsn):
            kind, *writes = entry.record
            assert kind == "rows"
            for name, encoded, value in writes:
                tables.setdefault(name, {}).pop(key_of(encoded), None)
                if value is not None:
                    tables[name][key_of(encoded)] = unpacked(value)
    return {name: table for name, table in tables.items() if table}


def unpacked(packed: bytes) -> Any:
    return msgpack.unpackb(packed, strict_map_key=False)


ELEMENTS = st.one_of(
    st.integers(-(1 << 63), (1 << 64) - 1), st.text("a\0\xff", max_size=3), st.binary(max_size=3)
)
KEYS = ELEMENTS | st.lists(ELEMENTS, min_size=1, max_size=3).map(tuple)
VALUES = st.one_of(
    st.none(),
    st.floats(allow_nan=False),
    st.binary(max_size=3),
    st.dictionaries(st.integers(0, 9) | st.sampled_from(["$bytes", "a"]), st.lists(st.text())),
)
WRITES = st.lists(st.tuples(st.sampled_from("ab"), KEYS, VALUES, st.booleans()), max_size=8)


@given(WRITES, st.booleans(), WRITES)
def test_the_page_is_enough_to_read_tables(
    before: list[tuple[Any, ...]], with_checkpoint: bool, after: list[tuple[Any, ...]]
) -> None:
    """A reader that follows only the page finds the rows that were written."""
    disk = SimulatedDisk()
    with open_tables(disk) as app:
        for writes in (before, after):
            for name, key, value, is_removed_again in writes:
                app.table(name)[key] = value
                if is_removed_again:
                    del app.table(name)[key]
            if with_checkpoint and writes is before:
                app.compact().close()
        expected = {name: rows(app.table(name)) for name in app.names()}
    assert read_by_the_page(disk) == expected
