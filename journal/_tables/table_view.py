"""TableView: reads of one table, live or as of one LSN."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

from journal._public import public
from journal._tables.chunked_map import Chunk, Stored, rows_between
from journal._tables.expiry import HEAD, Moment
from journal._tables.keys import (
    Key,
    decode_key,
    encode_key,
    prefix_bounds,
    range_bounds,
)
from journal._tables.machine import Place
from journal._tables.values import unpack_value


class Rows(Protocol):
    """The source of the rows that a view reads."""

    def get(self, name: str, key: bytes) -> Stored | None:
        """Return the stored value of `key` in table `name`, or None."""

    def chunks_between(self, name: str, start: bytes, stop: bytes | None) -> list[Chunk]:
        """Return the chunks of table `name` that may hold keys from `start` to before `stop`, all
        of one moment."""

    def count(self, name: str) -> int:
        """Return the number of rows of table `name`, including expired ones."""

    def now_ms(self) -> int:
        """Return the time in Unix milliseconds."""


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
        return (decode_key(key) for key, _ in self._encoded(b"", None, reverse=False))

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
        return decoded(self._encoded(*range_bounds(start, stop), reverse=reverse), limit)

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
        return decoded(self._encoded(*prefix_bounds(prefix), reverse=reverse), limit)

    def items(self) -> Iterator[tuple[Key, Any]]:
        """Yield all keys and values, from a snapshot taken now."""
        return self.range()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, {len(self)} rows>"

    def _encoded(
        self, start: bytes, stop: bytes | None, *, reverse: bool
    ) -> Iterator[tuple[bytes, Stored]]:
        chunks = self._rows.chunks_between(self.name, start, stop)
        rows = rows_between(chunks, start, stop, reverse=reverse)
        return Moment(self._rows.now_ms).visible_rows(rows)

    def _stored(self, key: Key) -> Stored | None:
        stored = self._rows.get(self.name, encode_key(key))
        # Most values never expire. Without this check, the calls for them add 300 ns.
        if stored is None or (type(stored) is bytes and stored[:2] != HEAD):
            return stored
        return Moment(self._rows.now_ms).visible(stored)

    def _place(self, key: Key) -> Place:
        return self.name, encode_key(key)


def decoded(rows: Iterator[tuple[bytes, Stored]], limit: int | None) -> Iterator[tuple[Key, Any]]:
    """Yield the keys and the values of encoded rows, at most `limit` of them."""
    if limit is not None and limit < 0:
        raise ValueError(f"limit is {limit}, a negative number")
    return ((decode_key(key), unpack_value(value)) for key, value in islice(rows, limit))
