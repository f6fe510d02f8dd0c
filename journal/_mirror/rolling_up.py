"""Rolling up: the bytes of many entries go into one blob, and the entries are trimmed.

A mirror with few objects is restored quickly. The bytes come from the local files, which are the
same and cost nothing to read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from journal._disk.disk import Directory
from journal._mirror.blobs import PART_BYTES
from journal._mirror.claiming import Appender
from journal._mirror.entry import MirrorEntry, Piece
from journal._mirror.store import RefusedError, UnreachableError
from journal._mirror.unshipped import read_range

ROLL_UP_ENTRIES = 1000


class RollUps:
    """The roll-ups of one writer. One thread uses it."""

    def __init__(self, appender: Appender, directory: Directory) -> None:
        self._appender = appender
        self._directory = directory
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

    @property
    def first_file(self) -> str | None:
        """The name of the first segment that the next roll-up needs, None if it needs none."""
        return self._ranges[0].name if self._ranges else None

    def run(self) -> None:
        """Roll up all entries so far. If the store can't be reached, the next call tries again."""
        numbers = sorted({each.number for each in self._ranges})
        try:
            name = self._appender.roll_up(self._first, self._follows, self._pieces())
            self._appender.trim(name, numbers)
        except FileNotFoundError:
            pass  # Compaction removed a segment first. The entries stay as they are.
        except (UnreachableError, RefusedError):
            return
        self.begin()

    def begin(self) -> None:
        """Begin the next roll-up after the last entry."""
        last = self._appender.last
        self._first, self._follows, self._ranges = last.number + 1, last.nonce, []

    def _pieces(self) -> Iterator[Piece]:
        merged: list[tuple[str, int, int]] = []
        for _, name, begin, end in self._ranges:
            if merged and merged[-1][0] == name and begin <= merged[-1][2]:
                merged[-1] = name, merged[-1][1], max(end, merged[-1][2])
            else:
                merged.append((name, begin, end))
        for name, begin, end in merged:
            yield from pieces_of(self._directory, name, begin, end)


def pieces_of(directory: Directory, name: str, begin: int, end: int) -> Iterator[Piece]:
    """Yield a range of a file in pieces, each of the size of a blob's part. Raises the disk's
    errors."""
    for offset in range(begin, end, PART_BYTES):
        size = min(PART_BYTES, end - offset)
        yield Piece(name, offset, read_range(directory, name, offset, size))


class _Range(NamedTuple):
    number: int
    name: str
    begin: int
    end: int
