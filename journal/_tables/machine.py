"""TablesMachine: the state machine under Tables. Each record is the writes of one transaction.

    ["rows", [table, key, value], ...]    key: encoded; value: as it is stored; nil removes the key

If a value is too large for one record, its pieces are in earlier records, and a list of their
upload's id and their number takes its place (see `journal._tables.pieces`).

A checkpoint has one line for each row, in the order of tables and keys. A value that JSON can't
hold is msgpack there, under "packed". A large value has a line for each of its pieces, before the
row's own line, which states their number.

    {"table":"users","key":["de",7],"value":{"name":"Ada"}}
    {"table":"users","key":["de",8],"expires_at_ms":1790000000000,"value":{"name":"Ida"}}
    {"piece":{"$bytes":"<base64>"}}
    {"table":"users","key":["de",9],"pieces":1}
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import lt
from threading import get_ident
from typing import Any

from journal._format.checkpoint import decode_item
from journal._format.items import EncodedItems
from journal._format.lines import lines_of
from journal._format.record import PackedRecord, pack_flat
from journal._format.restored import mark_of
from journal._mutex import is_raised_by_call
from journal._state.state_machine import LoadsLines
from journal._tables.checkpoint_lines import encoded_lines
from journal._tables.chunked_map import Chunk, ChunkedMap, Stored
from journal._tables.columns import columns_of
from journal._tables.expiry import (
    HEAD,
    MARK_BYTE,
    ExpiryIndex,
    head_of,
    with_expiry,
)
from journal._tables.keys import decode_key, encode_key, encode_loaded
from journal._tables.pieces import (
    DROP,
    PIECE,
    Uploads,
    check_piece,
)
from journal._tables.values import check_stored, pack_value, stored_texts
from journal.errors import RecordError

APPLICATION = "journal.tables/1"
ROWS = "rows"
NAME_BYTES_MAX = 255
# A line of a checkpoint has at most 64 MiB. JSON takes six bytes for a NUL, and a value in its
# line may take six times `PIECE_BYTES_MAX`.
KEY_BYTES_MAX = 8 << 20
_REPLACED_MAX = 64  # more gather only in a replay or between two writers, where nobody waits
# Inside a JSON string a quote has a backslash before it, so the first `,"value":` ends the key. The
# part before the value is atomic: otherwise a forged line with many of these takes hours. A name of
# `NAME_BYTES_MAX` bytes takes at most 5 steps for each; a longer one would take memory.
_LINE = re.compile(
    rb'(?>\{"table":("(?:[^"\\]|\\.){1,1275}"),"key":(.*?),'
    rb'"(?:expires_at_ms":(\d{1,16}),")?value":)(.*)\}'
    rb"(?:,?\n)?",
    re.DOTALL,
)

# The fields of each kind of line, in their order.
_FIELDS = {
    ("piece",),
    ("upload", "piece"),
    *(("table", "key", last) for last in ("value", "packed", "pieces")),
    *(("table", "key", "expires_at_ms", last) for last in ("value", "packed", "pieces")),
}

Place = tuple[str, bytes]  # a table's name and an encoded key
Reference = list[Any]  # to a value in pieces: its upload's id, and their number
Write = tuple[str, bytes, bytes | Reference | None]


class TablesMachine(LoadsLines):
    """The tables of one journal."""

    application = APPLICATION

    def __init__(self) -> None:
        self.tables: dict[str, ChunkedMap] = {}
        self.uploads = Uploads()
        self.expiries = ExpiryIndex()
        self._loaded_pieces: list[bytes] = []  # of the row on the next line
        # Large values that the last records replaced. Freeing one of 64 MiB takes 5 ms, so the
        # writer frees them after it has released the owner's lock.
        self.replaced: deque[Sequence[bytes]] = deque(maxlen=_REPLACED_MAX)
        self.is_open = False  # until then records come from the disk, and are checked
        # In a shared state, a record is checked unless tables have just made it, in this thread (0:
        # in none); see TablesPart.
        self.is_shared, self.trusted_thread = False, 0

    def finish_open(self) -> list[bytes]:
        """Stop checking records, since the replay is over. Called under the owner's lock.

        The first call returns the ids of the uploads that a crash left.
        """
        if self.is_open:
            return []
        self.expiries.settle()
        self.is_open = True
        return self.uploads.ids()

    def get(self, name: str, key: bytes) -> Stored | None:
        """Return the stored value of `key` in table `name`, or None."""
        table = self.tables.get(name)
        return None if table is None else table.get(key)

    def chunks_between(self, name: str, start: bytes, stop: bytes | None) -> list[Chunk]:
        """Return the chunks of table `name` that may hold keys from `start` to before `stop`."""
        table = self.tables.get(name)
        return [] if table is None else table.chunks_between(start, stop)

    def snapshot(self, name: str, start: bytes, stop: bytes | None) -> tuple[list[Chunk], bool]:
        """Return what `chunks_between` returns, and whether any row of any table expires."""
        return self.chunks_between(name, start, stop), self.expiries.count > 0

    def count(self, name: str) -> int:
        """Return the number of rows of table `name`, including expired ones."""
        table = self.tables.get(name)
        return 0 if table is None else len(table)

    def apply(self, lsn: int, record: Any) -> None:
        """Apply the writes of a transaction, or add or drop pieces of values."""
        if not self.is_open or (self.is_shared and self.trusted_thread != get_ident()):
            self._check_record(record)
        self.trusted_thread = 0
        if record[0] != ROWS:
            if record[0] == PIECE:
                self.uploads.add(record[1], record[3])
            elif record[0] == DROP:
                self.replaced.extend(self.uploads.drop(record[1]))
            return
        expiries = self.expiries
        for name, key, value in record[1:]:
            table = self.tables.get(name)
            if table is None:
                table = self.tables[name] = ChunkedMap()
            if type(value) is list:
                value = self.uploads.take(value[0])
            if value is not None:
                old = table.put(key, value)
            else:
                old = table.remove(key) if table.get(key) is not None else None
            is_plain = value is None or (type(value) is bytes and value[:2] != HEAD)
            if expiries.count or not is_plain:
                expiries.change(name, key, old, value)
            if type(old) is tuple:
                self.replaced.append(old)

    def set_row(self, lsn: int, row: tuple[str, bytes, bytes]) -> None:
        """Set a row of a whole value, as `apply` does for a record with no other write."""
        name, key, value = row
        table = self.tables.get(name)
        if table is None:
            table = self.tables[name] = ChunkedMap()
        old = table.put(key, value)
        if self.expiries.count or value[0] == MARK_BYTE:
            self.expiries.change(name, key, old, value)
        if type(old) is tuple:
            self.replaced.append(old)

    def load(self, item: Any) -> None:
        """Load one decoded item of a checkpoint."""
        if tuple(item) not in _FIELDS:
            raise ValueError(f"an item of tables has no fields {', '.join(item):.200}")
        if "table" not in item:
            check_piece(item.get("upload", bytes(16)), item["piece"])
            if "upload" in item:
                self.uploads.add(item["upload"], item["piece"])
            else:
                self._loaded_pieces.append(item["piece"])
            return
        name, key, expires_at_ms = item["table"], item["key"], item.get("expires_at_ms")
        value = self._loaded_value(item, expires_at_ms)
        check_stored(value)
        [encoded] = encode_loaded([key])
        self._append(name, [encoded], [value])
        if expires_at_ms is not None:
            self.expiries.load(name, encoded, expires_at_ms)

    def load_lines(self, block: bytes) -> None:
        """Load the items in lines of a checkpoint, without decoding the text of a value."""
        columns = columns_of(block)
        if columns:
            name, keys, texts = columns
            self._load_texts(decode_item(name), decode_item(keys), texts)
            return
        lines = lines_of(block)
        matches = list(map(_LINE.fullmatch, lines))
        for name, run in groupby(
            zip(matches, lines, strict=True), lambda row: row[0] and row[0][1]
        ):
            if name is None:  # rows whose value is packed, or in pieces
                for _, line in run:
                    self.load(decode_item(line.removesuffix(b"\n").removesuffix(b",")))
                continue
            rows = [match for match, _ in run if match]
            keys = decode_item(b"[%b]" % b",".join(match[2] for match in rows))
            texts, times = [match[4] for match in rows], [match[3] for match in rows]
            self._load_texts(decode_item(name), keys, texts, times)

    def freeze(self) -> Iterator[EncodedItems]:
        """Return a snapshot of the rows of all tables, as lines of a checkpoint."""
        tables = [(name, table.chunks_between()) for name, table in self.tables.items()]
        return encoded_lines(self.uploads.freeze(), tables)

    def _loaded_value(self, item: Any, expires_at_ms: int | None) -> Stored:
        """Return the stored value of a row's item."""
        if "pieces" in item:
            pieces, self._loaded_pieces = tuple(self._loaded_pieces), []
            stated = item["pieces"]
            if not pieces or len(pieces) != stated:
                raise ValueError(f"{len(pieces)} pieces come before a row of {stated!r:.20}")
            _check_unmarked(pieces[0])
            return pieces if expires_at_ms is None else (head_of(expires_at_ms), *pieces)
        value = item["packed"] if "packed" in item else pack_value(item["value"])
        if type(value) is not bytes:
            raise TypeError(f"packed is of type {type(value).__name__}")
        _check_unmarked(value)
        return with_expiry(value, expires_at_ms)

    def _check_record(self, record: Any) -> None:
        """Raise TypeError or ValueError for a record that Tables never write."""
        if type(record) is not list or len(record) < 2:
            raise ValueError("not a record of tables")
        if record[0] in (PIECE, DROP):
            self.uploads.check(record)
            return
        if mark_of(record):
            return
        if record[0] != ROWS:
            raise ValueError("not a record of tables")
        references: list[bytes] = []
        for write in record[1:]:
            if type(write) is not list or len(write) != 3:
                raise ValueError("a write is a list of table, key and value")
            name, key, value = write
            if type(value) is list:
                references.append(value[0])
                value = self.uploads.pieces(value)
            elif type(value) not in (bytes, type(None)):
                raise TypeError("a value is bytes, a list or nil")
            check_name(name)
            if type(key) is not bytes:
                raise TypeError("a key is bytes")
            if encode_key(decode_key(key)) != key:
                raise ValueError(f"{key[:80]!r} is not how its key is encoded")
            if value is not None:
                check_stored(value)
        if len(set(references)) != len(references):
            raise ValueError("two writes refer to the same pieces")

    def _load_texts(
        self, name: str, keys: list[Any], texts: list[bytes], times: Sequence[bytes | None] = ()
    ) -> None:
        """Load rows whose values are JSON text. `times`: each time of expiry, as text, or None."""
        if len(keys) != len(texts):
            raise ValueError(f"{len(texts)} rows have {len(keys)} keys")
        encoded, values = encode_loaded(keys), stored_texts(texts)
        for at, time_text in enumerate(times):
            if time_text is not None:
                values[at] = with_expiry(values[at], expires_at_ms := int(time_text))
                self.expiries.load(name, encoded[at], expires_at_ms)
        self._append(name, encoded, values)

    def _append(self, name: str, keys: list[bytes], values: Sequence[Stored]) -> None:
        if self._loaded_pieces:
            raise ValueError("pieces come before a row that has its value in its line")
        check_name(name)
        table = self.tables.setdefault(name, ChunkedMap())
        last = table.last_key()
        if not all(map(lt, [last or b"", *keys], keys)):
            raise ValueError(f"the keys of table {name!r} do not ascend")
        table.append_sorted(keys, values)


def check_name(name: Any) -> None:
    """Raise ValueError unless `name` can name a table."""
    try:
        if type(name) is str and 0 < len(name.encode()) <= NAME_BYTES_MAX:
            return
    except UnicodeEncodeError as error:
        if not is_raised_by_call(error):
            raise
    what = f"give a str of 1 to {NAME_BYTES_MAX} bytes in UTF-8"
    raise ValueError(f"{name!r:.200} can't name a table: {what}")


def check_keys(writes: list[Write]) -> None:
    """Raise RecordError for a key that is too large for a line of a checkpoint."""
    for name, key, _ in writes:
        if len(key) > KEY_BYTES_MAX:
            raise RecordError(
                f"a key of table {name!r:.80} takes {len(key)} bytes, more than the limit of "
                f"{KEY_BYTES_MAX}; shorten it, or keep the data in the value"
            )


def _check_unmarked(packed: bytes) -> None:
    """Raise ValueError for an item's packed value with a head, which has its time in a field."""
    if packed[:1] == HEAD[:1]:
        raise ValueError("an item's value begins with a byte with which no msgpack object begins")


def record_of(
    writes: list[Write], pack: Callable[[list[Any]], PackedRecord] = pack_flat
) -> PackedRecord:
    """Return the record of a transaction's writes, as `pack` packs it."""
    return pack([ROWS, *map(list, writes)])
