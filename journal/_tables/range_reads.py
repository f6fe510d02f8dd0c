"""Ranges that a transaction reads: stored rows merged with its own writes, and their bounds."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import TypeAlias

from journal._tables.chunked_map import Chunk, Stored, rows_between

Row: TypeAlias = tuple[bytes, Stored]


def merged(
    chunks: list[Chunk],
    own_writes: Mapping[bytes, Stored | None],
    start: bytes,
    stop: bytes | None,
    *,
    reverse: bool,
) -> Iterator[Row]:
    """Yield the rows from `start` to before `stop`, with `own_writes` in their places.

    A write of None removes its row. `chunks` are read only as far as the rows are consumed.
    """
    rows = rows_between(chunks, start, stop, reverse=reverse)
    written = sorted(
        (
            (key, value)
            for key, value in own_writes.items()
            if start <= key and (stop is None or key < stop)
        ),
        key=itemgetter(0),
        reverse=reverse,
    )
    if not written:
        return rows
    others = (row for row in rows if row[0] not in own_writes)
    both = heapq.merge(others, written, key=itemgetter(0), reverse=reverse)
    return ((key, value) for key, value in both if value is not None)


def bounds_up_to(
    last: bytes, start: bytes, stop: bytes | None, *, reverse: bool
) -> tuple[bytes, bytes | None]:
    """Return the bounds of the part of a range that was read up to the row with key `last`."""
    return (last, stop) if reverse else (start, last + b"\0")


def is_same(rows: list[Row], others: Iterable[Row]) -> bool:
    """Return whether both have equal keys, and the very same objects as values."""
    other_rows = list(others)
    return len(other_rows) == len(rows) and all(
        key == other_key and value is other
        for (key, value), (other_key, other) in zip(rows, other_rows, strict=True)
    )
