"""TablesMachine: the state machine under Tables. Each record is the writes of one transaction.

    ["rows", [table, key, value], ...]    key: encoded; value: as it is kept; nil removes the key

A checkpoint has one line for each row, in the order of tables and keys. A value that JSON can't
hold is msgpack there, under "packed".

    {"table":"users","key":["de",7],"value":{"name":"Ada"}}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby, islice
from typing import Any

from journal._format.checkpoint import VERSION
from journal._format.items import EncodedItems, decoder, encode_item
from journal._format.record import PackedRecord, pack
from journal._state.durable_state import LoadsLines
from journal._tables.chunked_map import Chunk, ChunkedMap
from journal._tables.keys import decode_key, encode_key
from journal._tables.values import json_text, pack_value, stored_text, unpack_value

APPLICATION = "journal.tables/1"
ROWS = "rows"
NAME_BYTES_MAX = 255
_ROWS_AT_ONCE = 32  # of a checkpoint; encoding them takes some 100 us
# Inside a JSON string a quote has a backslash before it, so `,"value":` stands once in a line.
_LINE = re.compile(rb'\{"table":("(?:[^"\\]|\\.)*"),"key":(.*?),"value":(.*)\}(?:,?\n)?', re.DOTALL)

Place = tuple[str, bytes]  # a table's name and an encoded key
Write = tuple[str, bytes, bytes | None]


class TablesMachine(LoadsLines):
    """The tables of one journal."""

    application = APPLICATION

    def __init__(self) -> None:
        self.tables: dict[str, ChunkedMap] = {}
        self.is_open = False  # until then records come from the disk, and are checked

    def get(self, name: str, key: bytes) -> bytes | None:
        """Return the value of `key` in table `name` as it is kept, or None."""
        table = self.tables.get(name)
        return None if table is None else table.get(key)

    def chunks_between(self, name: str, start: bytes, stop: bytes | None) -> list[Chunk]:
        """Return the chunks of table `name` that may hold keys from `start` to before `stop`."""
        table = self.tables.get(name)
        return [] if table is None else table.chunks_between(start, stop)

    def count(self, name: str) -> int:
        """Return the number of rows of table `name`."""
        table = self.tables.get(name)
        return 0 if table is None else len(table)

    def apply(self, lsn: int, record: Any) -> None:
        """Carry out the writes of a transaction."""
        if not self.is_open:
            _check_record(record)
        for name, key, value in islice(record, 1, None):
            table = self.tables.get(name)
            if table is None:
                table = self.tables[name] = ChunkedMap()
            if value is not None:
                table.put(key, value)
            elif table.get(key) is not None:
                table.remove(key)

    def load(self, item: Any) -> None:
        """Take in one row of a checkpoint, decoded."""
        name, key = item["table"], item["key"]
        if type(name) is not str:
            raise TypeError(f"the table's name is of type {type(name).__name__}")
        value = item["packed"] if "packed" in item else pack_value(item["value"])
        if type(value) is not bytes:
            raise TypeError(f"packed is of type {type(value).__name__}")
        unpack_value(value)
        encoded = encode_key(tuple(key) if type(key) is list else key)
        self._append(name, [encoded], [value])

    def load_lines(self, lines: list[bytes]) -> None:
        """Take in rows of a checkpoint, as their lines. The text of a value is not decoded."""
        matches = list(map(_LINE.fullmatch, lines))
        for name, run in groupby(
            zip(matches, lines, strict=True), lambda row: row[0] and row[0][1]
        ):
            if name is None:  # rows whose value is packed
                for _, line in run:
                    self.load(_decoded(line.removesuffix(b"\n").removesuffix(b",")))
                continue
            rows = [match for match, _ in run if match]
            keys = _decoded(b"[%b]" % b",".join(match[2] for match in rows))
            self._append(
                _decoded(name),
                [encode_key(tuple(key) if type(key) is list else key) for key in keys],
                [stored_text(match[3]) for match in rows],
            )

    def freeze(self) -> Iterator[EncodedItems]:
        """Return the rows of all tables as they are now, as lines of a checkpoint."""
        tables = [(name, table.chunks_between()) for name, table in self.tables.items()]
        return _encoded(tables)

    def _append(self, name: str, keys: list[bytes], values: list[bytes]) -> None:
        table = self.tables.setdefault(name, ChunkedMap())
        last = table.last_key()
        if any(a >= b for a, b in zip([last or b"", *keys], keys, strict=False)):
            raise ValueError(f"the keys of table {name!r} do not ascend")
        table.append_sorted(keys, values)


def _decoded(text: bytes) -> Any:
    return decoder(VERSION, text)(text.decode())


def record_of(writes: list[Write]) -> PackedRecord:
    """Return the packed record of a transaction's writes."""
    return pack([ROWS, *map(list, writes)])


def _encoded(tables: list[tuple[str, list[Chunk]]]) -> Iterator[EncodedItems]:
    for name, chunks in tables:
        head = b'{"table":' + encode_item(name, 0) + b',"key":'
        for keys, values in chunks:
            for at in range(0, len(keys), _ROWS_AT_ONCE):
                lines = [
                    _line(head, key, value)
                    for key, value in zip(
                        keys[at : at + _ROWS_AT_ONCE], values[at : at + _ROWS_AT_ONCE], strict=True
                    )
                ]
                yield EncodedItems(b",\n".join(lines), len(lines))


def _line(head: bytes, key: bytes, stored: bytes) -> bytes:
    decoded = decode_key(key)
    key_text = encode_item(list(decoded) if type(decoded) is tuple else decoded, 0)
    text = json_text(stored)
    if text is not None:
        return b'%b%b,"value":%b}' % (head, key_text, text)
    return b'%b%b,"packed":%b}' % (head, key_text, encode_item(stored, 0))


def _check_record(record: Any) -> None:
    """Raise TypeError or ValueError for a record that no Tables would have written."""
    if type(record) is not list or len(record) < 2 or record[0] != ROWS:
        raise ValueError("not a record of tables")
    for write in record[1:]:
        if type(write) is not list or len(write) != 3:
            raise ValueError("a write is a list of table, key and value")
        name, key, value = write
        if (type(name), type(key)) != (str, bytes) or type(value) not in (bytes, type(None)):
            raise TypeError("a write has a str, bytes, and bytes or nil")
        if encode_key(decode_key(key)) != key:
            raise ValueError(f"{key[:80]!r} is not how its key is encoded")
        if value is not None:
            unpack_value(value)
