"""TableView: reads of one table, live or as of one LSN."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, Protocol

from journal._format.wrong_place import short_repr
from journal._public import public
from journal._tables import chunked_map
from journal._tables.chunked_map import Chunk, Stored, parts_between, rows_between
from journal._tables.expiry import HEAD, Moment
from journal._tables.keys import (
    Key,
    decode_key,
    decode_keys,
    encode_key,
    prefix_bounds,
    range_bounds,
)
from journal._tables.machine import Place
from journal._tables.publisher import TablesState
from journal._tables.values import unpack_value, unpack_values

_STEP_GROWTH = 4  # of the number of rows that a range decodes at once


class Rows(Protocol):
    """The source of the rows that a view reads."""

    def get(self, name: str, key: bytes) -> Stored | None:
        """Return the stored value of `key` in table `name`, or None."""

    def snapshot(self, name: str, start: bytes, stop: bytes | None) -> tuple[list[Chunk], bool]:
        """Return the chunks of table `name` that may hold keys from `start` to before `stop`, and
        whether any row expires, both of one moment."""

    def count(self, name: str) -> int:
        """Return the number of rows of table `name`, including expired ones."""

    def now_ms(self) -> int:
        """Return the time in Unix milliseconds."""


class LiveRows:
    """The rows of open tables. Single rows are looked up without the lock."""

    def __init__(self, state: TablesState, now_ms: Callable[[], int]) -> None:
        self._state = state
        self.get = state.machine.get
        self.count = state.machine.count
        self.now_ms = now_ms

    def chunks_between(self, name: str, start: bytes, stop: bytes | None) -> list[Chunk]:
        """Return the chunks of a range, all of one moment."""
        return self._state.read(lambda machine: machine.chunks_between(name, start, stop))

    def snapshot(self, name: str, start: bytes, stop: bytes | None) -> tuple[list[Chunk], bool]:
        """Return the chunks of a range, and whether any row expires, both of one moment."""
        return self._state.read(lambda machine: machine.snapshot(name, start, stop))


@public
class TableView:
    """Reads of one table. Each returns a fresh value.

    Reads hide rows that have expired. `len` counts them until they are removed.
    """

    name: str
    """The name of the table."""

    def __init__(self, rows: Rows, name: str) -> None:
        self._rows = rows
        self.name = name

    def __getitem__(self, key: Key) -> Any:
        stored = self._stored(key)
        if stored is None:
            raise KeyError(key)
        return unpack_value(stored)

    def get(self, key: Key, default: Any = None) -> Any:
        """Return the value of `key`, or `default` if the table does not have it."""
        stored = self._stored(key)
        return default if stored is None else unpack_value(stored)

    def __contains__(self, key: Key) -> bool:
        return self._stored(key) is not None

    def __len__(self) -> int:
        """Return the number of rows, including expired ones that are not removed yet."""
        return self._rows.count(self.name)

    def __iter__(self) -> Iterator[Key]:
        chunks, _ = self._rows.snapshot(self.name, b"", None)
        return (decode_key(key) for key, _ in self._visible(rows_between(chunks, b"", None)))

    def range(
        self,
        start: Key | None = None,
        stop: Key | None = None,
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[Key, Any]]:
        """Yield keys and values from `start` to before `stop`, at most `limit` of them, from a
        snapshot that is taken now."""
        return self._decoded(*range_bounds(start, stop), reverse, limit)

    def prefix(
        self,
        prefix: str | bytes | tuple[int | str | bytes, ...],
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[Key, Any]]:
        """Yield the keys that begin with `prefix`, and their values, from a snapshot taken now.

        `("de",)` matches tuples by their leading elements, `"de"` strs by their leading characters.
        """
        return self._decoded(*prefix_bounds(prefix), reverse, limit)

    def items(self) -> Iterator[tuple[Key, Any]]:
        """Yield all keys and values, from a snapshot taken now."""
        return self.range()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, {len(self)} rows>"

    def _decoded(
        self, start: bytes, stop: bytes | None, reverse: bool, limit: int | None
    ) -> Iterator[tuple[Key, Any]]:
        chunks, may_expire = self._rows.snapshot(self.name, start, stop)
        if may_expire:
            rows = rows_between(chunks, start, stop, reverse=reverse)
            return decoded(self._visible(rows), limit)
        steps = _in_steps(parts_between(chunks, start, stop, reverse=reverse), limit)
        # Rows that are decoded together take half the time, and no frame of Python runs for each.
        pairs = chain.from_iterable(
            zip(decode_keys(keys), unpack_values(values), strict=True) for keys, values in steps
        )
        return _limited(pairs, limit)

    def _visible(self, rows: Iterator[tuple[bytes, Stored]]) -> Iterator[tuple[bytes, Stored]]:
        return Moment(self._rows.now_ms).visible_rows(rows)

    def _stored(self, key: Key) -> Stored | None:
        get = self._rows.get  # a call as an attribute takes 20 ns more in CPython 3.11
        stored = get(self.name, encode_key(key))
        # Most values never expire. Without this check, the calls for them add 300 ns.
        if stored is None or (type(stored) is bytes and stored[:2] != HEAD):
            return stored
        return Moment(self._rows.now_ms).visible(stored)

    def _place(self, key: Key) -> Place:
        return self.name, encode_key(key)


def decoded(rows: Iterator[tuple[bytes, Stored]], limit: int | None) -> Iterator[tuple[Key, Any]]:
    """Yield the keys and the values of encoded rows, at most `limit` of them."""
    return _limited(((decode_key(key), unpack_value(value)) for key, value in rows), limit)


def _in_steps(parts: Iterable[chunked_map.Rows], limit: int | None) -> Iterator[chunked_map.Rows]:
    """Yield the first `limit` rows of `parts`: one, then four together, and so on up to a chunk,
    because the caller may want only a few."""
    size, left = 1, sys.maxsize if limit is None else limit
    for keys, values in parts:
        at = 0
        while at < len(keys) and left > 0:
            end = min(at + min(size, left), len(keys))
            yield keys[at:end], values[at:end]
            at, size, left = end, size * _STEP_GROWTH, left - (end - at)


def _limited(pairs: Iterator[tuple[Key, Any]], limit: int | None) -> Iterator[tuple[Key, Any]]:
    return pairs if limit is None else islice(pairs, min(check_limit(limit), sys.maxsize))


def check_limit(limit: Any) -> int:
    """Return `limit`. Raises TypeError or ValueError unless it is an int, 0 or more."""
    if type(limit) is not int:
        raise TypeError(
            f"limit is {short_repr(limit)}, of type {type(limit).__name__}; give an int"
        )
    if limit < 0:
        raise ValueError(f"limit is {short_repr(limit)}, a negative number; give 0 or more")
    return limit
