"""LiveCopy: a directory that gets a mirror's bytes as they come, while readers read it.

It looks to a reader like the directory of a live writer. A segment gets its name once it has its
header, and once the segment before it is synced. After the last frame comes a mark, which states
that the frames before it are durable. The mark is not the mirror's: the next bytes overwrite it. A
part of a frame's header would take its place and prove nothing, so it waits for the rest.

Where the mirror has removed the log, it goes on from checkpoints. They get their names together
with the first segment after them: until that is there, the log would seem to end too early.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from journal._disk.disk import TMP, Directory, File, remove_if_exists, write_all
from journal._format import frame
from journal._format.checkpoint import (
    CHECKPOINTS_KEPT_MIN,
    BadCheckpointError,
    checkpoint_lsns,
    checkpoint_name,
    read_checkpoint,
)
from journal._format.layout import FRAME_HEADER_BYTES, MARK, SEGMENT_HEADER_BYTES
from journal._format.segment import Segment, SegmentName, segment_names
from journal._mirror.entry import CHECKPOINT, MirrorEntry, Piece
from journal._mirror.place_note import Known
from journal._recovery.recovery import drop_covered
from journal._recovery.walk import Walk


class LiveCopy:
    """The files of a followed mirror. One thread changes them."""

    def __init__(self, directory: Directory, known: Known) -> None:
        """Go on from `known`, all of which is in the directory."""
        self._directory = directory
        self.known = known
        self._file: File | None = None
        self._checkpoint: File | None = None  # one that is unfinished
        self._unnamed = set[int]()  # the LSNs of checkpoints that are whole and have no name yet
        self._name: SegmentName | None = None
        self._walk: Walk | None = None
        self._held: Piece | None = None  # the part of a frame's header with which the bytes end
        self._seed = 0
        self._next_header = 0  # the offset of the next frame's header
        self.last_lsn = 0
        names = segment_names(list(known.extents))
        if names:
            self._open(names[-1])
            self._finish()

    @property
    def is_complete(self) -> bool:
        """True if all bytes that are known are in the files."""
        return self._held is None and not self._unnamed

    def apply(self, entry: MirrorEntry) -> None:
        """Write the bytes of an entry or a roll-up, durably, and show them to readers. Raises the
        disk's errors, CorruptionError, and MirrorDamageError."""
        for piece in entry.pieces:
            if piece.is_checkpoint:
                self._add_to_checkpoint(piece)
                continue
            size = self.known.size(piece.name)
            self.known.add_piece(piece, entry.number)
            if piece.end > size:
                self._write(Piece(piece.name, size, piece.data[size - piece.offset :]))
        if not entry.more:
            self._end_checkpoint()
            # The segments after a checkpoint are still to come.
            if self._unnamed and entry.kind != CHECKPOINT:
                self._name_checkpoints()
                self._directory.sync()
        self._finish()
        self.known.pass_by(entry)

    def add_checkpoint(self, parts: Iterable[MirrorEntry]) -> None:
        """Write a checkpoint of what is in the directory already, and remove what two checkpoints
        cover, as the writer does. Raises the disk's errors and what `parts` raises."""
        for part in parts:
            for piece in part.pieces:
                self._add_to_checkpoint(piece)
        self._end_checkpoint()
        self._name_checkpoints()
        self._directory.sync()
        verified: list[int] = []
        for lsn in reversed(checkpoint_lsns(self._directory.names())):
            with suppress(BadCheckpointError):
                read_checkpoint(self._directory, lsn).close()
                verified.insert(0, lsn)
            if len(verified) == CHECKPOINTS_KEPT_MIN:
                break
        drop_covered(self._directory, verified, CHECKPOINTS_KEPT_MIN)

    def forget_part(self) -> None:
        """Forget the part of a checkpoint whose rest could not be read."""
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is not None:
            checkpoint.close()

    def close(self) -> None:
        """Close the open files. A second call does nothing."""
        self._close_file()
        self.forget_part()

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _add_to_checkpoint(self, piece: Piece) -> None:
        if self._checkpoint and not self._checkpoint.path.endswith(f"/{piece.name}{TMP}"):
            self._end_checkpoint()
        if self._checkpoint is None:
            self._unnamed -= {*checkpoint_lsns([piece.name])}
            remove_if_exists(self._directory, piece.name + TMP)
            self._checkpoint = self._directory.open(piece.name + TMP, "create")
        write_all(self._checkpoint, piece.data, piece.offset)

    def _end_checkpoint(self) -> None:
        """Sync an unfinished checkpoint."""
        file, self._checkpoint = self._checkpoint, None
        if file is None:
            return
        try:
            file.sync()
        finally:
            file.close()
        name = file.path.rpartition("/")[2].removesuffix(TMP)
        self._unnamed.update(checkpoint_lsns([name]))

    def _name_checkpoints(self) -> None:
        """Give whole checkpoints their names, the oldest first: after a crash, a comparison fetches
        only those after the newest one. The caller syncs the directory."""
        for lsn in sorted(self._unnamed):
            self._directory.rename(checkpoint_name(lsn) + TMP, checkpoint_name(lsn))
            self._unnamed.remove(lsn)

    def _write(self, piece: Piece) -> None:
        self._end_checkpoint()
        name = segment_names([piece.name])[0]
        if held := self._held:
            self._held = None
            if held.name == piece.name:
                piece = Piece(piece.name, held.offset, held.data + piece.data)
            else:
                self._put(held)  # the segment ends with it
        if piece.offset == 0:
            if len(piece.data) < SEGMENT_HEADER_BYTES:
                self._held = piece
                return
            self._create(name, piece.data[:SEGMENT_HEADER_BYTES])
            piece = Piece(piece.name, SEGMENT_HEADER_BYTES, piece.data[SEGMENT_HEADER_BYTES:])
        if name != self._name or self._file is None:
            self._finish()
            self._open(name)
        self._put(self._without_part_of_header(piece))

    def _put(self, piece: Piece) -> None:
        assert self._file is not None
        write_all(self._file, piece.data, piece.offset)

    def _without_part_of_header(self, piece: Piece) -> Piece:
        """Return a piece without the part of a frame's header with which it ends. Hold that."""
        assert self._walk is not None
        at = max(self._next_header, self._walk.end) - piece.offset
        while 0 <= at <= len(piece.data) - FRAME_HEADER_BYTES:
            header = frame.parse(piece.data, at, self._seed)
            if header is None:
                return piece  # a torn tail
            at += FRAME_HEADER_BYTES + header.payload_bytes
        self._next_header = piece.offset + at
        if not 0 <= at < len(piece.data):
            return piece
        self._held = Piece(piece.name, piece.offset + at, piece.data[at:])
        return Piece(piece.name, piece.offset, piece.data[:at])

    def _create(self, name: SegmentName, header: bytes) -> None:
        self._finish()  # the segment's name states that the one before it is durable
        unfinished = f"{name}{TMP}"
        remove_if_exists(self._directory, unfinished)
        file = self._directory.open(unfinished, "create")
        try:
            write_all(file, header, 0)
            file.sync()
            self._name_checkpoints()
            self._directory.rename(unfinished, str(name))
        finally:
            file.close()
        self._directory.sync()
        if self._file is not None:
            # A reader needs the mark of the last segment until the next segment has its name.
            self._file.truncate(self.known.size(str(self._name)))
        self._open(name)

    def _open(self, name: SegmentName) -> None:
        self._close_file()
        self._file = self._directory.open(str(name), "update")
        self._name = name
        with Segment(self._directory, name) as segment:
            self._walk = Walk.at(segment)
            self._walk.enter(segment)
            self._seed = segment.header.seed
        self._next_header = 0

    def _finish(self) -> None:
        """Sync the open segment, and mark its last frame."""
        file, walk, name = self._file, self._walk, self._name
        if file is None or walk is None or name is None:
            return
        file.sync()
        size = self.known.size(str(name)) - (len(self._held.data) if self._held else 0)
        with Segment(self._directory, name) as segment:
            for _ in walk.skip_frames(segment):
                pass
            if walk.end == size:  # the mirror has no part of another frame yet, and no mark
                write_all(file, _mark(walk.next_lsn, segment), size)
            walk.read_evidence(segment, segment.file.read(FRAME_HEADER_BYTES, walk.end))
        # A reader takes only what a later header proves.
        self.last_lsn = max(self.last_lsn, min(walk.next_lsn - 1, walk.evidence))


def _mark(lsn: int, segment: Segment) -> bytes:
    """Return a mark, which states that every record before `lsn` is durable."""
    at_ns, seed = segment.header.created_at_ns, segment.header.seed
    return frame.encode(MARK, b"", 0, lsn=lsn, durable_lsn=lsn - 1, now_ns=at_ns, seed=seed)
