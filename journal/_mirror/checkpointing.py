"""Checkpointing: a journal's checkpoints go to its mirror as blobs, and what they cover is removed.

A checkpoint states what the log leads to. So it may go up once the mirror has every record up to
its LSN, and it is true, whichever writer puts it. Nothing is removed before two checkpoints cover
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple

from journal._disk.disk import Directory
from journal._format.checkpoint import (
    BadCheckpointError,
    Checkpoint,
    checkpoint_lsns,
    checkpoint_name,
    read_checkpoint,
)
from journal._format.segment import SegmentName, segments_after
from journal._mirror.blobs import CheckpointName, checkpoint_names
from journal._mirror.claiming import Appender
from journal._mirror.entry import MirrorEntry, Piece, segment_name
from journal._mirror.removing import Removal
from journal._mirror.retention import ALWAYS_KEPT
from journal._mirror.rolling_up import pieces_of
from journal._mirror.store import Store
from journal._mirror.unshipped import Cursor


class _Place(NamedTuple):
    """The entry after which the bytes of a segment begin: its number and its nonce."""

    number: int
    nonce: bytes


class Checkpoints:
    """The checkpoints of one writer's mirror. One thread runs it, and another one may add."""

    def __init__(
        self,
        store: Store,
        appender: Appender,
        directory: Directory,
        cursor: Cursor,
        *,
        keep_s: float,
        now_ms: Callable[[], int],
    ) -> None:
        """Begin at the cursor, where shipping goes on."""
        self._store = store
        self._appender = appender
        self._directory = directory
        self._keep_s = keep_s
        self._now_ms = now_ms
        self._segments: list[SegmentName] = []
        self._begun: dict[SegmentName, _Place] = {}
        self._put_lsns: set[int] | None = None  # None: not known yet
        self._removal = Removal(store)
        self.begin(cursor)

    def begin(self, cursor: Cursor) -> None:
        """Forget what was shipped before the cursor."""
        self._segments = [cursor.segment] if cursor.segment else []
        self._begun = {}

    def add(self, entry: MirrorEntry) -> None:
        """Note an entry that was appended."""
        for piece in entry.pieces:
            if not piece.offset:
                name = segment_name(piece.name)
                self._segments.append(name)
                self._begun[name] = _Place(entry.number - 1, entry.follows)

    def run(self, mirrored_lsn: int) -> bool:
        """Put the newest checkpoints that the mirror lacks, and remove what is not kept any more.

        Return whether a later call has to try again, because the mirror does not have the records
        yet. Raises what the store raises, and the disk's errors.
        """
        lacking = self._lacking()
        put = [lsn for lsn in lacking if lsn <= mirrored_lsn and self._put(lsn)]
        if put:
            self._removal.run(self._appender, self._now_ms(), self._keep_s)
        return any(lsn > mirrored_lsn for lsn in lacking)

    def _lacking(self) -> list[int]:
        lsns = checkpoint_lsns(self._directory.names())[-ALWAYS_KEPT:]
        if self._put_lsns is None:
            self._put_lsns = {name.lsn for name in checkpoint_names(self._store.blob_names())}
        return [lsn for lsn in lsns if lsn not in self._put_lsns]

    def _put(self, lsn: int) -> bool:
        """Put a checkpoint, unless the mirror's log does not show where its segments begin, or it
        is gone or damaged."""
        segments = list(self._segments)  # the other thread adds to it
        needed = segments_after(segments, lsn)
        if not needed:
            return False
        # Readers take all segments from that LSN on, also one that was shipped before and cut off.
        first = next(name for name in segments if name.first_lsn >= needed[0].first_lsn)
        place = self._begun.get(first)
        if place is None or first.first_lsn > lsn + 1:
            return False
        opened = open_checkpoint(self._directory, lsn)
        if opened is None:
            return False
        with closing(opened):
            name = CheckpointName(place.number, lsn, opened.created_at_ms)
            pieces = checkpoint_pieces(self._directory, opened)
            try:
                from_lsn = first.first_lsn
                self._appender.put_checkpoint(name, place.nonce, from_lsn, pieces)
            except FileNotFoundError:  # a later one covers it
                return False
        assert self._put_lsns is not None
        self._put_lsns.add(lsn)
        return True


def open_checkpoint(directory: Directory, lsn: int) -> Checkpoint | None:
    """Return a checkpoint, or None if it is gone or does not verify."""
    try:
        return read_checkpoint(directory, lsn)
    except (BadCheckpointError, FileNotFoundError):
        return None


def checkpoint_pieces(directory: Directory, checkpoint: Checkpoint) -> Iterator[Piece]:
    """Yield the bytes of a checkpoint's file. Raises the disk's errors."""
    return pieces_of(directory, checkpoint_name(checkpoint.lsn), 0, checkpoint.size_bytes)
