"""ChunkedMap: an ordered map from bytes to bytes, of chunks that are replaced when they change.

A chunk is a tuple of keys and a tuple of their values, at most `CHUNK_KEYS_MAX` of each. A write
makes a new chunk and stores it in the place of the old one, which never changes.
Tuples of bytes are invisible to the garbage collector once it has seen them: at 1,000,000 rows of
250 bytes a full collection takes 1.4 ms, with lists in their place 31 ms.

One thread at a time may write or take chunks. Any thread may look up a key at any time: `_version`
is odd while the bounds of chunks change. A lookup that finds nothing is repeated if it has changed.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain
from threading import get_ident
from typing import TypeAlias, TypeVar

from journal._mutex import is_raised_by_call
from journal.errors import FailedError, InterruptedCallError

Keys: TypeAlias = tuple[bytes, ...]
Stored: TypeAlias = bytes | tuple[bytes, ...]  # a stored value, whole or in pieces
T = TypeVar("T")
# Neighbouring keys, ascending, and their values. It is an exact tuple, because the garbage
# collector never stops tracking a tuple of a subclass.
Chunk: TypeAlias = tuple[Keys, tuple[Stored, ...]]

# A write copies a chunk, and touches each key and value of it. At 1,000,000 rows the median insert
# holds the lock for 8.7 us with 64 keys, 10.2 with 96 and 11.3 with 128; a snapshot takes 29, 18
# and 14 us, of at most 50. At 10,000 rows a set takes 4.5 us of CPU with 64 keys, and 4.7 with 96.
CHUNK_KEYS_MAX = 64
_CHUNK_KEYS_MIN = CHUNK_KEYS_MAX // 8
# A change of the bounds takes microseconds, or some ms if its writer is preempted. If it takes more
# than 5 s, it was interrupted.
_LOOKUPS_AT_ONCE, _LOOKUPS_MAX = 100, 5000


class ChunkedMap:
    """An ordered map from bytes to bytes."""

    __slots__ = ("_chunks", "_count", "_firsts", "_version", "_writer")

    def __init__(self) -> None:
        self._firsts = [b""]  # chunk n holds the keys from firsts[n] to before firsts[n + 1]
        self._chunks: list[Chunk] = [((), ())]
        self._version = 0
        self._writer = 0  # the id of the thread that changes the bounds of chunks
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, key: bytes) -> Stored | None:
        """Return the very object that was stored for `key`, or None.

        Raises FailedError after an interrupt amid a change of the bounds, which stops the state,
        and InterruptedCallError if a finalizer asks amid a change of this thread.
        """
        attempt = 0
        while attempt < _LOOKUPS_MAX:  # a loop over a range takes a fifth longer
            version = self._version
            try:
                keys, values = self._chunks[bisect_right(self._firsts, key) - 1]
            except IndexError as error:  # between the two lists' changes
                if not is_raised_by_call(error):
                    raise
                keys, values = (), ()
            place = bisect_left(keys, key)
            if place < len(keys) and keys[place] == key:
                return values[place]
            if version == self._version and not version & 1:
                return None
            if self._writer == get_ident():
                raise InterruptedCallError  # a finalizer of this thread asks, amid its write
            time.sleep(0 if attempt < _LOOKUPS_AT_ONCE else 0.001)  # let the writer finish
            attempt += 1
        raise FailedError(
            "a write was interrupted half-way, so it is unknown whether this key is missing; close "
            "the tables and reopen them"
        )

    def put(self, key: bytes, value: Stored) -> Stored | None:
        """Store `value` for `key`. Return its previous value, or None."""
        at = bisect_right(self._firsts, key) - 1
        keys, values = self._chunks[at]
        place = bisect_left(keys, key)
        if place < len(keys) and keys[place] == key:
            changed = [*values]  # 0.17 us with the tuple; list() takes 0.23, joined slices 0.6
            changed[place] = value
            self._chunks[at] = keys, tuple(changed)
            return values[place]
        chunk = _with_new(keys, place, key), _with_new(values, place, value)
        if len(keys) < CHUNK_KEYS_MAX:
            self._chunks[at] = chunk
        else:
            # Keys that arrive in ascending order fill their chunks.
            is_last = at + 1 == len(self._chunks) and place == len(keys)
            self._replace(at, at + 1, _split(chunk, len(keys) if is_last else len(keys) // 2))
        self._count += 1
        return None

    def remove(self, key: bytes) -> Stored:
        """Remove `key`, and return its value. Raises KeyError if the map does not have it."""
        at = bisect_right(self._firsts, key) - 1
        keys, values = self._chunks[at]
        place = bisect_left(keys, key)
        if place == len(keys) or keys[place] != key:
            raise KeyError(key)
        chunk = keys[:place] + keys[place + 1 :], values[:place] + values[place + 1 :]
        if len(chunk[0]) >= _CHUNK_KEYS_MIN or len(self._chunks) == 1:
            self._chunks[at] = chunk
        else:
            self._merge(at, chunk)
        self._count -= 1
        return values[place]

    def append_sorted(self, keys: list[bytes], values: Sequence[Stored]) -> None:
        """Add rows whose keys ascend, and all come after the last key of the map."""
        last_keys, last_values = self._chunks[-1]
        all_keys, all_values = (*last_keys, *keys), (*last_values, *values)
        # With full chunks, the first insert into each would split it, which takes twice as long.
        size = CHUNK_KEYS_MAX * 3 // 4
        parts = [
            (all_keys[at : at + size], all_values[at : at + size])
            for at in range(0, len(all_keys), size)
        ]
        self._replace(len(self._chunks) - 1, len(self._chunks), parts or [((), ())])
        self._count += len(keys)

    def first_key(self) -> bytes | None:
        """Return the least key, or None if the map is empty. Any thread may call this."""
        keys, _ = self._chunks[0]
        return keys[0] if keys else None

    def last_key(self) -> bytes | None:
        """Return the greatest key, or None if the map is empty."""
        keys, _ = self._chunks[-1]
        return keys[-1] if keys else None

    def chunks_between(self, start: bytes = b"", stop: bytes | None = None) -> list[Chunk]:
        """Return the chunks that may hold keys from `start` to before `stop` (None: to the end)."""
        first = bisect_right(self._firsts, start) - 1
        if stop is None:
            return self._chunks[first:]
        return self._chunks[first : max(first + 1, bisect_left(self._firsts, stop))]

    def _merge(self, at: int, chunk: Chunk) -> None:
        """Replace chunk `at` by the small `chunk`, joined with a neighbouring chunk."""
        first = at - 1 if at else 0
        left, right = (self._chunks[first], chunk) if at else (chunk, self._chunks[1])
        joined = left[0] + right[0], left[1] + right[1]
        fits = len(joined[0]) <= CHUNK_KEYS_MAX
        self._replace(first, first + 2, [joined] if fits else _split(joined, len(joined[0]) // 2))

    def _replace(self, first: int, end: int, chunks: Sequence[Chunk]) -> None:
        """Put `chunks` in the place of those from `first` to before `end`. The first keeps its
        bound. Between the two changes of the version there is no call, so no signal handler runs
        there; a finalizer may."""
        firsts = [keys[0] for keys, _ in chunks[1:]]
        me = get_ident()
        try:
            self._writer = me
            self._version += 1
            self._chunks[first:end] = chunks
            self._firsts[first + 1 : end] = firsts
            self._version += 1
        finally:  # an interrupt leaves the version odd
            self._writer = 0


def rows_between(
    chunks: list[Chunk], start: bytes, stop: bytes | None, *, reverse: bool = False
) -> Iterator[tuple[bytes, Stored]]:
    """Yield the rows in `chunks` with keys from `start` to before `stop`, in order of the keys."""
    parts = parts_between(chunks, start, stop, reverse=reverse)
    return chain.from_iterable(zip(keys, values, strict=True) for keys, values in parts)


def parts_between(
    chunks: list[Chunk], start: bytes, stop: bytes | None, *, reverse: bool = False
) -> Iterator[Chunk]:
    """Yield the rows that `rows_between` yields, as those of each chunk together."""
    step = -1 if reverse else 1
    for keys, values in reversed(chunks) if reverse else chunks:
        first = bisect_left(keys, start)
        last = len(keys) if stop is None else bisect_left(keys, stop)
        yield keys[first:last][::step], values[first:last][::step]


def _with_new(parts: tuple[T, ...], place: int, new: T) -> tuple[T, ...]:
    """Return `parts` with `new` inserted at `place`."""
    changed = list(parts)
    changed.insert(place, new)
    return tuple(changed)


def _split(chunk: Chunk, place: int) -> tuple[Chunk, Chunk]:
    keys, values = chunk
    return (keys[:place], values[:place]), (keys[place:], values[place:])
