"""Expiry: the times at which rows expire, and the index of expired rows to remove.

A value that expires is stored after a head: a byte with which no msgpack object begins, one with
which no JSON text begins, and the time in Unix milliseconds. In a value in pieces, the head is the
first piece.

    c1 01, then 8 bytes, big-endian

The clock decides what a read shows, and which rows are removed. A removal is journaled like any
other, so replay needs no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from journal._format.wrong_place import short_repr
from journal._tables.chunked_map import ChunkedMap, Stored, rows_of

MARK_BYTE = 0xC1  # msgpack never uses this byte
HEAD_BYTES = 10
EXPIRES_AT_MS_MAX = (1 << 53) - 1  # every reader of JSON reads it exactly
HEAD = b"\xc1\x01"
_NEVER = float("inf")
_REMOVAL_BYTES = 16  # of a removal in a record, besides the table's name and the key


def to_ms(expires_at: float) -> int:
    """Return Unix seconds as milliseconds. Raises TypeError or ValueError."""
    if type(expires_at) is not int and type(expires_at) is not float:
        kind = type(expires_at).__name__
        raise TypeError(f"expires_at is of type {kind}; give Unix seconds, an int or a float")
    if not 0 <= expires_at * 1000 <= EXPIRES_AT_MS_MAX:  # NaN is refused here, too
        rule = f"give Unix seconds from 0 to {EXPIRES_AT_MS_MAX // 1000}"
        raise ValueError(f"expires_at is {short_repr(expires_at)}; {rule}")
    return round(expires_at * 1000)


def with_expiry(stored: bytes, expires_at_ms: int | None) -> bytes:
    """Return `stored` with the head for a time at which it expires; None: never."""
    return stored if expires_at_ms is None else head_of(expires_at_ms) + stored


def head_of(expires_at_ms: int) -> bytes:
    """Return the head of a value that expires at that time."""
    if type(expires_at_ms) is not int or not 0 <= expires_at_ms <= EXPIRES_AT_MS_MAX:
        raise ValueError(f"expires_at_ms is {expires_at_ms!r:.80}")
    return HEAD + expires_at_ms.to_bytes(8, "big")


def expiry_of(stored: Stored | None) -> int | None:
    """Return the time at which a stored value expires, in Unix milliseconds; None: never."""
    if not stored:
        return None
    head = stored[0] if isinstance(stored, tuple) else stored
    if head[:2] != HEAD:
        return None
    return int.from_bytes(head[2:HEAD_BYTES], "big")


class Moment:
    """A moment that decides which rows are visible. It reads the clock once, when first needed."""

    __slots__ = ("_clock_ms", "_now_ms")

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._now_ms: int | None = None

    def visible(self, stored: Stored | None) -> Stored | None:
        """Return `stored`, or None if it has expired."""
        if stored is None or (type(stored) is bytes and stored[:2] != HEAD):
            return stored
        expires_at_ms = expiry_of(stored)
        if expires_at_ms is None:
            return stored
        if self._now_ms is None:
            self._now_ms = self._clock_ms()
        return stored if self._now_ms < expires_at_ms else None

    def visible_rows(self, rows: Iterator[tuple[bytes, Stored]]) -> Iterator[tuple[bytes, Stored]]:
        """Yield the rows that have not expired."""
        visible = self.visible
        for row in rows:
            stored = row[1]
            # Most values never expire. Without this check, the calls for them add a tenth.
            if (type(stored) is bytes and stored[:2] != HEAD) or visible(stored) is not None:
                yield row


class ExpiryIndex:
    """The rows that expire, in the order of their times. Guarded by the owner's lock.

    An entry is a key of a ChunkedMap: the time, the table and the row's key. It is removed with its
    row, so a row that is set many times has one entry. A heap would have one for each set.
    """

    __slots__ = ("_earliest_ms", "_entries", "_loaded", "count")

    def __init__(self) -> None:
        self._entries = ChunkedMap()
        self._earliest_ms = _NEVER  # no entry has an earlier time than this
        self._loaded: list[bytes] = []  # entries of a checkpoint, in the order of its rows
        self.count = 0

    def load(self, name: str, key: bytes, expires_at_ms: int) -> None:
        """Add a row of a checkpoint."""
        self._loaded.append(_entry(name, key, expires_at_ms))
        self.count += 1

    def settle(self) -> None:
        """Sort the loaded entries into the index."""
        if self._loaded:
            self._entries.append_sorted(loaded := sorted(self._loaded), [b""] * len(loaded))
            self._earliest_ms = _time_of(loaded[0])
            self._loaded = []

    def change(self, name: str, key: bytes, old: Stored | None, new: Stored | None) -> None:
        """Update the entry of a row whose value changed from `old` to `new`; None: no row."""
        before, after = expiry_of(old), expiry_of(new)
        if before == after:
            return
        self.settle()
        if before is not None:
            self._entries.remove(_entry(name, key, before))
            self.count -= 1
        if after is not None:
            self._earliest_ms = min(self._earliest_ms, after)
            self._entries.put(_entry(name, key, after), b"")
            self.count += 1

    def has_due(self, now_ms: int) -> bool:
        """Return whether a row may have expired by `now_ms`; `due` returns which. Needs no lock."""
        return bool(self._loaded) or self._earliest_ms <= now_ms

    def due(self, now_ms: int, rows_max: int, bytes_max: int) -> list[tuple[str, bytes]]:
        """Return at most `rows_max` rows that have expired by `now_ms`, the earliest first.

        Their removals take at most `bytes_max` of a record, unless the first one alone takes more.
        """
        self.settle()
        places: list[tuple[str, bytes]] = []
        for chunk in self._entries.chunks_between(b"", (now_ms + 1).to_bytes(8, "big")):
            for entry in rows_of(chunk)[0]:
                bytes_max -= len(entry) + _REMOVAL_BYTES
                is_full = len(places) == rows_max or (places and bytes_max < 0)
                if is_full:
                    return places
                if _time_of(entry) > now_ms:
                    break
                places.append(_place_of(entry))
        if not places:
            first = self._entries.first_key()
            self._earliest_ms = _NEVER if first is None else _time_of(first)
        return places


def _entry(name: str, key: bytes, expires_at_ms: int) -> bytes:
    encoded = name.encode()
    return b"%b%c%b%b" % (expires_at_ms.to_bytes(8, "big"), len(encoded), encoded, key)


def _time_of(entry: bytes) -> int:
    return int.from_bytes(entry[:8], "big")


def _place_of(entry: bytes) -> tuple[str, bytes]:
    end = 9 + entry[8]
    return entry[9:end].decode(), entry[end:]
