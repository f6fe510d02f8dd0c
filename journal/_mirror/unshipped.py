"""Unshipped: the bytes of a journal's segments that its mirror does not have yet.

Only synced bytes are shipped, so a mirror never has what a power cut could take from the journal. A
sealed segment is shipped as far as its log reaches: neither the zeros that were allocated ahead of
the log, nor any other file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from journal._commit.writer import SyncedEnd
from journal._disk.disk import Directory, file_size
from journal._format.checkpoint import checkpoint_lsns, floor_lsn
from journal._format.segment import SegmentName, segment_names, segments_after
from journal._mirror.content import sealed_bytes
from journal._mirror.entry import Piece, segment_name
from journal.errors import CorruptionError


class Cursor(NamedTuple):
    """The end of what is shipped: an offset in a segment. The segment None stands for the place
    before the first segment."""

    segment: SegmentName | None = None
    offset: int = 0

    def after(self, pieces: list[Piece]) -> Cursor:
        """Return the cursor after the pieces, which are in the order of the log. Checkpoints are
        no part of that."""
        for piece in reversed(pieces):
            if not piece.is_checkpoint:
                return Cursor(segment_name(piece.name), piece.end)
        return self


BEGINNING = Cursor()


class Unshipped:
    """Reads what follows the cursor. One thread uses it."""

    def __init__(self, directory: Directory, epoch: int, cursor: Cursor = BEGINNING) -> None:
        """Begin at the cursor. `epoch`: the writer's own; it seals and trims its own segments."""
        self._directory = directory
        self.epoch = epoch
        self.cursor = cursor

    def read(
        self, end: SyncedEnd | None, bytes_max: int, *, is_closed: bool = False
    ) -> tuple[list[Piece], bool]:
        """Return the next pieces, of at most `bytes_max` bytes together, up to the writer's synced
        `end`, and whether they reach that. If the log is closed, that is the end of its files.

        Raises the disk's errors, and FileNotFoundError if a segment was removed before it was
        shipped.
        """
        pieces: list[Piece] = []
        room = bytes_max
        for name, begin, stop in self.ranges(end, is_closed=is_closed):
            data = read_range(self._directory, str(name), begin, min(stop - begin, room))
            pieces.append(Piece(str(name), begin, data))
            room -= len(data)
            if begin + len(data) < stop:
                return pieces, False
        return pieces, True

    def sync_closed(self) -> None:
        """Sync the end of a log that was closed: its mark was not synced. Raises the disk's
        errors."""
        own = [name for name in segment_names(self._directory.names()) if name.epoch == self.epoch]
        if own:
            file = self._directory.open(str(own[-1]), "read")
            try:
                file.sync()
            finally:
                file.close()

    def size(self) -> int:
        """Return the number of bytes after the cursor that earlier epochs left. Raises the disk's
        errors."""
        found = self.ranges(None, is_closed=False, is_all=True)
        return sum(stop - begin for _, begin, stop in found)

    def ranges(
        self, end: SyncedEnd | None, *, is_closed: bool, is_all: bool = False
    ) -> Iterator[tuple[SegmentName, int, int]]:
        """Yield the ranges of bytes that may be shipped, in the order of the log. `is_all`: also
        of a log of which a part is gone. Otherwise, raises FileNotFoundError for one.

        A segment whose header is damaged counts as gone if two checkpoints cover it. Otherwise,
        raises CorruptionError for it.
        """
        files = self._directory.names()
        names, at = segment_names(files), self.cursor.segment
        if at is not None and at not in names and not is_all:
            raise FileNotFoundError(f"{at} was removed before it was shipped")
        if at is None and names and names[0].first_lsn > 1 and not is_all:
            raise FileNotFoundError(f"the log before {names[0]} was removed")
        last = segment_name(end[0].rpartition("/")[2]) if end else None
        for name in names:
            is_open = name.epoch == self.epoch and not is_closed and (last is None or name >= last)
            if is_open and name != last:
                return  # nothing of it is synced yet
            if at is not None and name < at:
                continue
            begin = self.cursor.offset if name == at else 0
            if is_open and end:
                stop = end[1]
            elif name.epoch == self.epoch:  # the writer has cut it where its log ends
                stop = file_size(self._directory, str(name))
            else:
                try:
                    stop = sealed_bytes(self._directory, name)
                except CorruptionError as error:
                    if name in segments_after(names, floor_lsn(checkpoint_lsns(files))):
                        raise
                    if not is_all:
                        raise FileNotFoundError(f"{error.path}: {error.what}") from error
                    continue
            if begin < stop:
                yield name, begin, stop

    def advance(self, pieces: list[Piece]) -> None:
        """Note that the pieces are shipped."""
        self.cursor = self.cursor.after(pieces)


def read_range(directory: Directory, name: str, offset: int, size: int) -> bytes:
    """Return bytes of a file that must have them. Raises the disk's errors."""
    file = directory.open(name, "read")
    try:
        data = file.read(size, offset)
    finally:
        file.close()
    if len(data) < size:
        raise OSError(f"{file.path}: ends at {offset + len(data)}, before what was synced")
    return data
