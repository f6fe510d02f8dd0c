"""ChunkedMap: an ordered map from bytes to bytes, of chunks that nobody sees change.

A chunk is a dict of at most `CHUNK_KEYS_MAX` neighboring keys. A write changes the dict in place,
unless a reader may have taken it. Then it puts a copy in its place, and the reader's dict stays as
it is: `_eras` has the era in which each dict was made, and a new era begins when chunks are taken.

The keys of a chunk ascend, unless it has the key `_UNSORTED`, too: an insert between other keys
appends its key, and leaves the sorting to readers, whom that costs 60 ns a row. To keep the order,
it would have to make a new dict, and hold the lock for 17 us instead of 6 at 1,000,000 rows.

The garbage collector of CPython 3.11 to 3.13 never looks into a dict of bytes. So at 1,000,000 rows
of 250 bytes, a full collection takes 1 ms more, and with lists of values 31 ms more. From 3.14 on,
it looks into every dict, which takes 57 ms.

One thread at a time may write or take chunks. Any thread may look up a key at any time: `_version`
is odd while the bounds of chunks change. A lookup that finds nothing is repeated if it has changed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from threading import get_ident
from typing import TypeAlias

from journal import _time as time
from journal._mutex import is_raised_by_call
from journal.errors import FailedError, InterruptedCallError

Keys: TypeAlias = list[bytes]
Stored: TypeAlias = bytes | tuple[bytes, ...]  # a stored value, whole or in pieces
Chunk: TypeAlias = dict[bytes, Stored]
Rows: TypeAlias = tuple[Keys, list[Stored]]  # neighboring keys, and their values

# The first write to a chunk after a snapshot copies it. A snapshot copies the list of chunks, which
# takes 29 us at 1,000,000 rows with 64 keys in a chunk, and 18 with 96, of at most 50. A dict of 43
# to 85 keys takes the same memory, and a loaded chunk has 60.
CHUNK_KEYS_MAX = 80
_UNSORTED = b""  # no row has this key: encoded keys and the entries of ExpiryIndex are longer
_CHUNK_KEYS_MIN = CHUNK_KEYS_MAX // 8
# A change of the bounds takes microseconds, or some ms if its writer is preempted. If it takes more
# than 5 s, it was interrupted.
_LOOKUPS_AT_ONCE, _LOOKUPS_MAX = 100, 5000


class ChunkedMap:
    """An ordered map from bytes to bytes."""

    __slots__ = ("_chunks", "_count", "_era", "_eras", "_firsts", "_version", "_writer")

    def __init__(self) -> None:
        self._firsts = [b""]  # chunk n holds the keys from firsts[n] to before firsts[n + 1]
        self._chunks: list[Chunk] = [{}]
        self._eras = [0]
        self._era = 0
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
                chunk = self._chunks[bisect_right(self._firsts, key) - 1]
            except IndexError as error:  # between the two lists' changes
                if not is_raised_by_call(error):
                    raise
                chunk = {}
            value = chunk.get(key)
            if value is not None:
                return value
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
        chunk = self._chunks[at]
        old = chunk.get(key)
        if old is None:
            if len(chunk) >= CHUNK_KEYS_MAX:
                self._split(at, key)
                return self.put(key, value)
            self._count += 1
        if self._eras[at] != self._era:
            chunk = self._renew(at)
        if old is None and chunk and key < next(reversed(chunk)):
            chunk[_UNSORTED] = b""
        chunk[key] = value
        return old

    def remove(self, key: bytes) -> Stored:
        """Remove `key`, and return its value. Raises KeyError if the map does not have it."""
        at = bisect_right(self._firsts, key) - 1
        value = self._chunks[at][key]
        chunk = self._chunks[at] if self._eras[at] == self._era else self._renew(at)
        del chunk[key]
        self._count -= 1
        if len(chunk) < _CHUNK_KEYS_MIN and len(self._chunks) > 1:
            self._merge(at - 1 if at else 0)
        return value

    def append_sorted(self, keys: list[bytes], values: Sequence[Stored]) -> None:
        """Add rows whose keys ascend, and all come after the last key of the map."""
        last = len(self._chunks) - 1
        chunk = self._chunks[last] if self._eras[last] == self._era else self._renew(last)
        # With full chunks, the first insert into each would split it, which takes twice as long.
        size = CHUNK_KEYS_MAX * 3 // 4
        room = max(0, size - len(chunk))
        chunk.update(zip(keys[:room], values[:room], strict=True))
        starts = range(room, len(keys), size)
        chunks = [
            dict(zip(keys[at : at + size], values[at : at + size], strict=True)) for at in starts
        ]
        self._replace(last, last + 1, [chunk, *chunks], [keys[at] for at in starts])
        self._count += len(keys)

    def first_key(self) -> bytes | None:
        """Return the least key, or None if the map is empty."""
        keys, _ = rows_of(self._chunks[0])
        return keys[0] if keys else None

    def last_key(self) -> bytes | None:
        """Return the greatest key, or None if the map is empty."""
        return max(self._chunks[-1], default=None) or None

    def chunks_between(self, start: bytes = b"", stop: bytes | None = None) -> list[Chunk]:
        """Return the chunks that may hold keys from `start` to before `stop` (None: to the end).

        They never change.
        """
        self._era += 1  # first: an interrupt may strike after any call
        first = bisect_right(self._firsts, start) - 1
        if stop is None:
            return self._chunks[first:]
        return self._chunks[first : max(first + 1, bisect_left(self._firsts, stop))]

    def _renew(self, at: int) -> Chunk:
        """Put a copy in the place of a chunk that a reader may have taken, and return it."""
        self._chunks[at] = chunk = self._chunks[at].copy()
        self._eras[at] = self._era
        return chunk

    def _split(self, at: int, key: bytes) -> None:
        """Make room for a new `key` in a full chunk."""
        chunk = self._chunks[at]
        if at + 1 == len(self._chunks) and key > max(chunk):
            # Keys that arrive in ascending order fill their chunks.
            self._replace(at, at + 1, [chunk, {}], [key])
        else:
            self._replace(at, at + 1, *_halves(chunk))

    def _merge(self, first: int) -> None:
        """Join a chunk and the next one, one of which is small."""
        joined = self._chunks[first] | self._chunks[first + 1]
        fits = len(joined) <= CHUNK_KEYS_MAX
        self._replace(first, first + 2, *(([joined], []) if fits else _halves(joined)))

    def _replace(
        self, first: int, end: int, chunks: Sequence[Chunk], firsts: Sequence[bytes]
    ) -> None:
        """Put `chunks` in the place of those from `first` to before `end`. The first keeps its
        bound, and the others get those in `firsts`. Between the changes of the version there is no
        call, so no signal handler runs there; a finalizer may."""
        eras = [self._era] * len(chunks)
        if chunks[0] is self._chunks[first]:  # a reader may have taken it
            eras[0] = self._eras[first]
        me = get_ident()
        try:
            self._writer = me
            self._version += 1
            self._chunks[first:end] = chunks
            self._firsts[first + 1 : end] = firsts
            self._eras[first:end] = eras
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
    chunks: list[Chunk], start: bytes, stop: bytes | None, *, reverse: bool
) -> Iterator[Rows]:
    """Yield the rows that `rows_between` yields, as those of each chunk together."""
    for chunk in reversed(chunks) if reverse else chunks:
        keys, values = rows_of(chunk, start, stop)
        yield (keys[::-1], values[::-1]) if reverse else (keys, values)


def rows_of(chunk: Chunk, start: bytes = b"", stop: bytes | None = None) -> Rows:
    """Return the keys of a chunk from `start` to before `stop`, ascending, and their values."""
    is_sorted = _UNSORTED not in chunk
    keys = [*chunk] if is_sorted else sorted(chunk)[1:]
    first = bisect_left(keys, start)
    last = len(keys) if stop is None else bisect_left(keys, stop)
    if not is_sorted:
        return keys[first:last], [*map(chunk.__getitem__, keys[first:last])]
    if last - first == len(keys):
        return keys, [*chunk.values()]
    return keys[first:last], [*islice(chunk.values(), first, last)]  # touches no later value


def _halves(chunk: Chunk) -> tuple[list[Chunk], list[bytes]]:
    """Return two chunks that share the rows of this one, and the least key of the second."""
    keys, values = rows_of(chunk)
    middle = len(keys) // 2
    halves = [
        dict(zip(keys[half], values[half], strict=True))
        for half in (slice(middle), slice(middle, None))
    ]
    return halves, [keys[middle]]
