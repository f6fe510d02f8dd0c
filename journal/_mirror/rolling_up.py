"""Rolling up: the bytes of many entries go into one blob, and the entries are trimmed.

A mirror with few objects is restored quickly. The bytes come from the local files, which hold the
same and cost nothing to read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from journal._disk.disk import Directory
from journal._mirror.blobs import PART_BYTES
from journal._mirror.claiming import Appender
from journal._mirror.entry import MirrorEntry, Piece
from journal._mirror.unshipped import read_range

ROLL_UP_ENTRIES = 1000


class _Range(NamedTuple):
    number: int
    name: str
    begin: int
    end: int


class RollUps:
    """The entries of one writer that are to be rolled up. One thread uses it."""

    def __init__(self, appender: Appender) -> None:
        self._appender = appender
        self._follows = appender.claimed.follows
        self._first = appender.claimed.number
        self._ranges: list[_Range] = []

    def add(self, entry: MirrorEntry) -> None:
        """Note an entry that was appended."""
        self._ranges += [
            _Range(entry.number, piece.name, piece.offset, piece.end) for piece in entry.pieces
        ]

    @property
    def is_due(self) -> bool:
        """True if a segment was sealed, or if there are many entries."""
        if not self._ranges:
            return False
        first, last = self._ranges[0], self._ranges[-1]
        return first.name != last.name or last.number - first.number >= ROLL_UP_ENTRIES

    def take(self) -> RollUp:
        """Return the roll-up of all entries so far. The next one begins after them."""
        last = self._appender.last
        taken = RollUp(self._first, self._follows, self._ranges, last)
        self.begin()
        return taken

    def give_back(self, roll_up: RollUp) -> None:
        """Include the entries of a roll-up that could not be put."""
        self._first, self._follows = roll_up.first, roll_up.follows
        self._ranges = roll_up.ranges + self._ranges

    def begin(self) -> None:
        """Begin the next roll-up after the last entry."""
        last = self._appender.last
        self._first, self._follows, self._ranges = last.number + 1, last.nonce, []

    @property
    def first_file(self) -> str | None:
        """The name of the first segment that the next roll-up needs, None if it needs none."""
        return self._ranges[0].name if self._ranges else None


class RollUp(NamedTuple):
    """A roll-up to be put: of the entries from `first` to `last`, which have bytes in `ranges`.
    `follows` is the nonce of the entry before them."""

    first: int
    follows: bytes
    ranges: list[_Range]
    last: MirrorEntry

    def put(self, appender: Appender, directory: Directory) -> None:
        """Put it, and trim the entries. Raises what the store and the disk raise, and
        FileNotFoundError if a segment is gone; then the entries stay as they are."""
        pieces = self._pieces(directory)
        name = appender.roll_up(self.first, self.follows, pieces, last=self.last)
        appender.trim(name, sorted({each.number for each in self.ranges}))

    def _pieces(self, directory: Directory) -> Iterator[Piece]:
        merged: list[tuple[str, int, int]] = []
        for _, name, begin, end in self.ranges:
            if merged and merged[-1][0] == name and begin <= merged[-1][2]:
                merged[-1] = name, merged[-1][1], max(end, merged[-1][2])
            else:
                merged.append((name, begin, end))
        for name, begin, end in merged:
            yield from pieces_of(directory, name, begin, end)


def pieces_of(directory: Directory, name: str, begin: int, end: int) -> Iterator[Piece]:
    """Yield a range of a file in pieces, each of the size of a blob's part. Raises the disk's
    errors."""
    for offset in range(begin, end, PART_BYTES):
        size = min(PART_BYTES, end - offset)
        yield Piece(name, offset, read_range(directory, name, offset, size))
