"""Transaction: collected writes, which take effect if all that it read is still true at its end.

Every stored value is an object that is replaced, never changed, so a read is still true if its key
holds the very object that was read. A range is still true if its chunks are the same objects.

A transaction reads the clock once, when it first meets a row that expires. A row that has expired
by then counts as absent, for its reads and for the check at its end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

from journal._callbacks import RUN_LATER, late_fault
from journal._format.record import Record, pack
from journal._public import public
from journal._state.state_part import Companion, HasParts
from journal._tables.chunked_map import Chunk, Stored
from journal._tables.expiry import Moment, expiry_of, with_expiry
from journal._tables.keys import (
    Key,
    decode_key,
    encode_key,
    prefix_bounds,
    range_bounds,
)
from journal._tables.machine import Place, TablesMachine, Write
from journal._tables.range_reads import bounds_up_to, is_same, merged
from journal._tables.table_view import Rows, TableView, check_limit, decoded
from journal._tables.values import pack_value, unpack_value
from journal._waits import check_callable
from journal.errors import ConflictError, JournalError, TransactionTooLargeError

T = TypeVar("T")
_ANY: Any = object()
_DECODED_BYTES_MAX = 1 << 14  # under the owner's lock: some 100 us
_CHANGED_RANGE = "rows near the range that was read were changed"
ChunksOf = Callable[[str, bytes, "bytes | None"], "list[Chunk]"]


class ReadWriteSet:
    """The reads and the writes of one transaction, which one thread or task at a time uses."""

    def __init__(
        self,
        machine: TablesMachine,
        chunks_of: ChunksOf,
        keys_max: int,
        clock_ms: Callable[[], int],
    ) -> None:
        self._machine = machine
        self._get = machine.get
        self._moment = Moment(clock_ms)
        self._chunks_of = chunks_of  # at one moment, under the owner's lock
        self._keys_max = keys_max
        self._count = 0
        self._writes: dict[Place, bytes | None] = {}
        self._reads: dict[Place, Stored | None] = {}  # the stored objects, compared by identity
        self._expected: dict[Place, Any] = {}  # values that `replace` found as expected
        self._must_exist: set[Place] = set()
        self._ranges: list[tuple[str, bytes, bytes | None, list[Chunk]]] = []
        self.companions: list[Companion] = []  # records of other parts
        self._has_ended = False

    def writes(self) -> list[Write]:
        """Return the writes of this transaction."""
        return [(name, key, value) for (name, key), value in self._writes.items()]

    def check(self) -> None:
        """Raise ConflictError unless all reads are still true. Called under the owner's lock."""
        get, visible = self._get, self._moment.visible
        for place, seen in self._reads.items():
            now = visible(get(*place))
            if now is not seen and not self._is_as_expected(place, now):
                raise _conflict(place, "was changed" if now is not None else "was removed")
        for place in self._must_exist:
            if visible(get(*place)) is None:
                raise _conflict(place, "was removed")
        for name, start, stop, seen_chunks in self._ranges:
            chunks = self._machine.chunks_between(name, start, stop)
            if len(chunks) != len(seen_chunks) or any(
                now is not seen for now, seen in zip(chunks, seen_chunks, strict=True)
            ):
                raise ConflictError(name, None, _CHANGED_RANGE)

    def end(self) -> None:
        """Refuse every further use."""
        self._has_ended = True

    def read(self, place: Place) -> Stored | None:
        """Return the stored value at `place`, as this transaction sees it."""
        self._check_open()
        if place in self._writes:
            return self._moment.visible(self._writes[place])
        if place not in self._reads:
            self._count_one()
            get = self._get  # a call as an attribute takes 20 ns more in CPython 3.11
            self._reads[place] = self._moment.visible(get(*place))
        return self._reads[place]

    def write(self, place: Place, value: bytes | None) -> None:
        self._check_open()
        if place not in self._writes:
            self._count_one()
        self._writes[place] = value

    def insert(self, place: Place, value: bytes) -> None:
        """Collect the write of a key that must be new."""
        if self.read(place) is not None:
            raise _conflict(place, "is there already")
        self.write(place, value)

    def replace(self, place: Place, value: bytes, expected: Any) -> None:
        """Collect the write of a key that must be there, with the value `expected`."""
        is_first_read = place not in self._reads and place not in self._writes
        seen = self.read(place)
        if seen is None:
            raise _conflict(place, "is not there")
        if expected is not _ANY:
            found = unpack_value(seen)
            if found != expected:
                raise _conflict(place, "has another value than the expected one")
            # Its own write says nothing about what others see, nor does what was read before. The
            # caller may change `expected` later, and comparing it may run the caller's code.
            if is_first_read:
                self._expected[place] = found
        self.write(place, value)

    def remove(self, place: Place) -> None:
        """Collect the removal of a key that must be there."""
        self._check_open()
        if place in self._writes:
            now: Stored | None = self._writes[place]
        else:
            now = self._get(*place)
        if self._moment.visible(now) is None:
            self.read(place)  # a body that goes on relies on its absence
            raise _conflict(place, "is not there")
        if place not in self._writes:
            self._must_exist.add(place)
        self.write(place, None)

    def add_companion(self, companion: Companion) -> None:
        """Collect a record of another part."""
        self._check_open()
        self._count_one()
        self.companions.append(companion)

    def rows(
        self,
        name: str,
        start: bytes,
        stop: bytes | None,
        *,
        reverse: bool,
        limit: int | None = None,
    ) -> Iterator[tuple[bytes, Stored]]:
        """Yield the rows of a range as this transaction sees them, at most `limit` of them.

        With a limit, only the part of the range up to the last row must still be true at the end.
        """
        self._check_open()
        if limit is not None and check_limit(limit) == 0:
            return iter(())
        own_writes = {key: value for (table, key), value in self._writes.items() if table == name}
        chunks = self._chunks_of(name, start, stop)
        rows = self._moment.visible_rows(merged(chunks, own_writes, start, stop, reverse=reverse))
        if limit is not None:
            first = list(islice(rows, min(limit, sys.maxsize)))
            if len(first) == limit:
                start, stop = bounds_up_to(first[-1][0], start, stop, reverse=reverse)
                chunks = self._chunks_of(name, start, stop)
                again = self._moment.visible_rows(
                    merged(chunks, own_writes, start, stop, reverse=reverse)
                )
                if not is_same(first, again):
                    raise ConflictError(name, None, _CHANGED_RANGE)  # changed between the two reads
            rows = iter(first)
        self._count_one(len(chunks))
        self._ranges.append((name, start, stop, chunks))
        return rows

    def _is_as_expected(self, place: Place, now: Stored | None) -> bool:
        expected = self._expected.get(place, _ANY)
        if type(now) is tuple or (now is not None and len(now) > _DECODED_BYTES_MAX):
            return False  # too large to be decoded under the lock, even if it is equal
        return now is not None and expected is not _ANY and bool(unpack_value(now) == expected)

    def _count_one(self, count: int = 1) -> None:
        self._count += count
        if self._count > self._keys_max:
            raise TransactionTooLargeError(
                f"the transaction reads and writes more than {self._keys_max} keys; nothing was "
                "changed: split it, or open with a higher transaction_keys_max"
            )

    def _check_open(self) -> None:
        if self._has_ended:
            raise JournalError("the transaction has ended; begin another one")


@public
class Transaction:
    """Reads and writes of several tables. All of the writes take effect, or none.

    `t[table]` reads and writes a table within the transaction `t`. Reads see the transaction's own
    writes, which nobody else sees before it ends.
    """

    lsn: int | None
    """The LSN of its last record, once the transaction has ended; None if it wrote nothing. With
    `also`, that comes after the LSN of the changes of rows."""

    def __init__(self, rows: Rows, collected: ReadWriteSet, parts: HasParts | None) -> None:
        self._rows = rows
        self._collected = collected
        self._parts = parts  # of the state to which the tables belong; None: they are alone
        self.lsn = None

    def also(
        self, part: str, record: Record | Callable[[Any], Record | None], *, urgent: bool = False
    ) -> None:
        """Apply a record of another part of the Composite in the same batch, after the writes.

        `record` may be a function. It is called once, at the end of the transaction, under the
        lock, so it must be short. It gets the part's machine as it was before the batch, and
        returns a record or None. What it raises propagates, and nothing is written. An `urgent`
        record is not refused for lack of room (see DurableState.update). Raises RecordError,
        TransactionTooLargeError, and ValueError if there is no such part, or if it has tables.
        """
        if self._parts is None:
            raise ValueError("these tables are not part of a Composite; see Tables.in_state")
        if part not in self._parts.names:
            names = ", ".join(self._parts.names)
            raise ValueError(f"no part {part!r:.200}; the parts are {names}")
        if isinstance(self._parts[part], TablesMachine):
            raise ValueError(f"part {part!r} has tables; write to them as in t[table][key] = value")
        if not callable(record):
            record = pack(self._parts.part(part, record))
        self._collected.add_companion(Companion(part, record, urgent))

    def __getitem__(self, table: TableView) -> TransactionTable:
        if not isinstance(table, TableView):
            raise TypeError(f"{table!r:.80} is not a table; give a table, as in t[table][key]")
        if table._rows is not self._rows:
            raise ValueError(f"table {table.name!r} belongs to other Tables")
        return TransactionTable(self._collected, table.name)


@public
class TransactionTable:
    """A table within a transaction."""

    def __init__(self, collected: ReadWriteSet, name: str) -> None:
        self._collected = collected
        self._name = name

    def __getitem__(self, key: Key) -> Any:
        stored = self._collected.read(self._place(key))
        if stored is None:
            raise KeyError(key)
        return unpack_value(stored)

    def get(self, key: Key, default: Any = None) -> Any:
        """Return the value of `key`, or `default` if the table does not have it."""
        stored = self._collected.read((self._name, encode_key(key)))
        return default if stored is None else unpack_value(stored)

    def __contains__(self, key: Key) -> bool:
        return self._collected.read((self._name, encode_key(key))) is not None

    def __iter__(self) -> Iterator[Key]:
        rows = self._collected.rows(self._name, b"", None, reverse=False)
        return (decode_key(key) for key, _ in rows)

    def __setitem__(self, key: Key, value: Any) -> None:
        self._collected.write((self._name, encode_key(key)), pack_value(value))

    def set(self, key: Key, value: Any, *, expires_at: float | None = None) -> None:
        """Set a key. From `expires_at` on, in Unix seconds, reads hide the row."""
        self._collected.write(self._place(key), pack_value(value, expires_at))

    def __delitem__(self, key: Key) -> None:
        place = self._place(key)
        if self._collected.read(place) is None:
            raise KeyError(key)
        self._collected.write(place, None)

    def insert(self, key: Key, value: Any, *, expires_at: float | None = None) -> None:
        """Set a key that must be new. Raises ConflictError, here or when the transaction ends."""
        self._collected.insert(self._place(key), pack_value(value, expires_at))

    def replace(
        self, key: Key, value: Any, *, expected: Any = _ANY, expires_at: float | None = None
    ) -> None:
        """Set a key that must be there, with the value `expected` if it is given.

        Raises ConflictError, here or when the transaction ends.
        """
        self._collected.replace(self._place(key), pack_value(value, expires_at), expected)

    def delete(self, key: Key) -> None:
        """Remove a key that must be there.

        Raises ConflictError, here or when the transaction ends.
        """
        self._collected.remove(self._place(key))

    def discard(self, key: Key) -> None:
        """Remove a key, whether it is there or not. `changes` shows a removal in both cases."""
        self._collected.write(self._place(key), None)

    def range(
        self,
        start: Key | None = None,
        stop: Key | None = None,
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[Key, Any]]:
        """Yield keys and values from `start` to before `stop`, at most `limit` of them."""
        return self._rows(*range_bounds(start, stop), reverse, limit)

    def prefix(
        self,
        prefix: str | bytes | tuple[int | str | bytes, ...],
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[Key, Any]]:
        """Yield the keys that begin with `prefix`, and their values, at most `limit` of them."""
        return self._rows(*prefix_bounds(prefix), reverse, limit)

    def _update(self, key: Key, function: Callable[[Any], Any], default: Any) -> Any:
        """Set `key` to `function(value)`. A row that expires keeps its time."""
        place = self._place(key)
        seen = self._collected.read(place)
        new = function(default if seen is None else unpack_value(seen))
        self._collected.write(place, with_expiry(pack_value(new), expiry_of(seen)))
        return new

    def items(self) -> Iterator[tuple[Key, Any]]:
        """Yield all keys and values."""
        return self.range()

    def _rows(
        self, start: bytes, stop: bytes | None, reverse: bool, limit: int | None
    ) -> Iterator[tuple[Key, Any]]:
        rows = self._collected.rows(self._name, start, stop, reverse=reverse, limit=limit)
        return decoded(rows, limit)

    def _place(self, key: Key) -> Place:
        return self._name, encode_key(key)


def result_of(function: Callable[[Transaction], T], transaction: Transaction) -> T:
    """Return `function(transaction)`. Raises TypeError for a coroutine or generator function, which
    would run after the transaction, and for an object that is not a function."""
    check_callable(function, "function")
    result = function(transaction)
    if type(result) in RUN_LATER and (fault := late_fault(function, result)):
        raise TypeError(
            f"{fault}; nothing was written: call an ordinary function, or use "
            "`async with tables.transaction()`"
        )
    return result


def _conflict(place: Place, what: str) -> ConflictError:
    name, key = place
    return ConflictError(name, decode_key(key), what)
