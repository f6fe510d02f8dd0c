"""Basing: the new start of a mirror after bytes that it never got are gone.

A compaction removes segments that a checkpoint covers, at the latest when the mirror lacks too
many of them. And the log of a journal that gets its first mirror may begin late. Then a base goes
up: the checkpoints, and the log after the older one, in one blob. What came before it and was not
mirrored can't be restored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import NamedTuple

from journal._commit.writer import SyncedEnd
from journal._disk.disk import Directory
from journal._format.checkpoint import Checkpoint, checkpoint_lsns
from journal._format.segment import SegmentName, segment_names, segments_after
from journal._mirror.checkpointing import checkpoint_pieces, open_checkpoint
from journal._mirror.entry import Piece
from journal._mirror.retention import ALWAYS_KEPT
from journal._mirror.rolling_up import pieces_of
from journal._mirror.unshipped import BEGINNING, Cursor, Unshipped


class Base(NamedTuple):
    """The checkpoints, oldest first, and the ranges of the segments after the first of them."""

    checkpoints: list[Checkpoint]
    ranges: list[tuple[SegmentName, int, int]]

    @property
    def lsn(self) -> int:
        """The first LSN as of which it can be restored."""
        return self.checkpoints[0].lsn

    @property
    def cursor(self) -> Cursor:
        """The end of its bytes."""
        name, _, stop = self.ranges[-1]
        return Cursor(name, stop)

    def pieces(self, directory: Directory) -> Iterator[Piece]:
        """Yield its bytes. Raises the disk's errors, and FileNotFoundError if a file was removed
        meanwhile."""
        for checkpoint in self.checkpoints:
            yield from checkpoint_pieces(directory, checkpoint)
        for name, begin, stop in self.ranges:
            yield from pieces_of(directory, str(name), begin, stop)


def find_base(
    directory: Directory, epoch: int, end: SyncedEnd | None, lsn: int, *, is_closed: bool
) -> Base | None:
    """Return the base of a log that is synced up to `end`, with LSN `lsn`. Return None if there is
    no checkpoint after which the log has everything. The caller closes the checkpoints.

    Raises FileNotFoundError if compactions change the files meanwhile; then try again.
    """
    names = directory.names()
    base = _base_of(directory, names, epoch, end, lsn, is_closed=is_closed)
    if base is None and directory.names() != names:
        raise FileNotFoundError(f"{directory.path}: files were removed meanwhile")
    return base


def _base_of(
    directory: Directory,
    names: list[str],
    epoch: int,
    end: SyncedEnd | None,
    lsn: int,
    *,
    is_closed: bool,
) -> Base | None:
    lsns = [each for each in checkpoint_lsns(names) if each <= lsn][-ALWAYS_KEPT:]
    with ExitStack() as opened:
        checkpoints = list[Checkpoint]()
        for each in lsns:
            if checkpoint := open_checkpoint(directory, each):
                checkpoints.append(opened.enter_context(closing(checkpoint)))
        needed = segments_after(segment_names(names), checkpoints[0].lsn) if checkpoints else []
        if not needed or needed[0].first_lsn > checkpoints[0].lsn + 1:
            return None
        unshipped = Unshipped(directory, epoch, BEGINNING)
        found = unshipped.ranges(end, is_closed=is_closed, is_all=True)
        ranges = [each for each in found if each[0] in needed]
        if not ranges:
            return None
        opened.pop_all()
        return Base(checkpoints, ranges)
