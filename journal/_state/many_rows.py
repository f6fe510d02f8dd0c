"""ManyRows: the rows of a large CowTable, in containers that the garbage collector does not visit.

A collection visits each list, and each dict that holds other containers. It visits a new tuple, and
never again if the tuple contains nothing that it has to visit. So rows are kept in chunks, which
are tuples (key, value, key, value, ...). Only the last chunk, which grows, is a list. To replace a
value, its chunk is copied. The places of the keys are numbers in many small dicts, of which each
takes little time to resize, and which no collection visits if the keys are strings or numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

# A chunk has 2 ** _BITS rows. Larger ones take longer to copy, smaller ones to visit. With 8, 16,
# 32 and 64 of a million rows, an update takes 5.2, 5.6, 7.8 and 12 us, and a full collection 11,
# 8.8, 6.6 and 6.4 ms.
_BITS = 4
_MASK = (2 << _BITS) - 1
# A prime, because the hashes of the keys of one dict must not have their low bits in common.
_BUCKETS = 251


Row = tuple[K, V, int]  # a key, its value and its place, in the order of a CowTable's cells


class ManyRows(Generic[K, V]):
    """A dense list of rows with an index of their keys.

    One thread at a time may write. Any thread may call the methods that only read.
    """

    __slots__ = ("_buckets", "_chunks", "_count")

    def __init__(self) -> None:
        self._chunks: list[Sequence[Any]] = []
        self._buckets: list[dict[K, int]] = [{} for _ in range(_BUCKETS)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, key: K) -> Row[K, V] | None:
        """Return the key's row, or None.

        The place may be out of date once it is read, because a removal moves the last row. So its
        key is compared, and the place is read again if the row there is another one. If it is then
        the same place, the key had no row for a moment.
        """
        bucket = self._buckets[hash(key) % _BUCKETS]
        place, before = bucket.get(key), None
        while place is not None and place != before:
            try:
                chunk = self._chunks[place >> _BITS]
                at = 2 * place & _MASK
                found, value = chunk[at], chunk[at + 1]
            except IndexError:  # the row has just been moved, and its old place removed
                pass
            else:
                if found is key or found == key:
                    return found, value, place
            place, before = bucket.get(key), place
        return None

    def add(self, key: K, value: V) -> bool:
        """Add a row at the end, unless the key has one. Return whether it was added.

        The last step adds it; those before can be repeated.
        """
        bucket, place = self._buckets[hash(key) % _BUCKETS], self._count
        if key in bucket:
            return False
        number, at = place >> _BITS, 2 * place & _MASK
        if at:
            chunk: Any = self._chunks[number]
            if len(chunk) != at:  # an interrupted write has left a row
                chunk = self._chunks[number] = list(chunk[:at])
            chunk += (key, value)
            if len(chunk) > _MASK:
                self._chunks[number] = tuple(chunk)
        else:
            self._chunks[number:] = [[key, value]]
        # One statement, because no signal handler runs between its two stores.
        bucket[key], self._count = place, place + 1
        return True

    def replace(self, place: int, value: V) -> None:
        chunk, at = self._chunks[place >> _BITS], (2 * place & _MASK) + 1
        if type(chunk) is list:
            chunk[at] = value
        else:
            self._chunks[place >> _BITS] = (*chunk[:at], value, *chunk[at + 1 :])

    def remove(self, row: Row[K, V], last: Row[K, V]) -> None:
        """Remove a row. The last row moves to its place.

        In this order, a key that stays is found at each moment, and a search for it ends. After an
        interrupt, the same call finishes the removal.
        """
        key, _, place = row
        last_key, last_value, last_place = last
        last_bucket = self._buckets[hash(last_key) % _BUCKETS]
        self._buckets[hash(key) % _BUCKETS].pop(key, None)
        if last_place != place:
            chunk, at = self._chunks[place >> _BITS], 2 * place & _MASK
            # A new one, also of a list: a reader must not combine a key with another's value.
            kind: Any = type(chunk)
            moved = kind((*chunk[:at], last_key, last_value, *chunk[at + 2 :]))
            self._chunks[place >> _BITS] = moved
            last_bucket[last_key] = place
        self._count = last_place
        number, at = last_place >> _BITS, 2 * last_place & _MASK
        self._chunks[number:] = [list(self._chunks[number][:at])] if at else []

    def last(self) -> Row[K, V]:
        """Return the last row. There must be one."""
        place = self._count - 1
        chunk, at = self._chunks[place >> _BITS], 2 * place & _MASK
        return chunk[at], chunk[at + 1], place

    def keys(self) -> list[K]:
        """Return the keys as of now, in the order of their places."""
        count = self._count
        keys: list[K] = list(chain.from_iterable([chunk[::2] for chunk in self._chunks.copy()]))
        del keys[count:]  # a row is written before it counts
        return keys

    def values_of(self, number: int) -> Sequence[V]:
        """Return the values of a chunk as of now: none if the rows have shrunk."""
        try:
            return self._chunks[number][1::2]
        except IndexError:
            return ()
