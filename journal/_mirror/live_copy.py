"""LiveCopy: a directory that gets a mirror's bytes as they come, while readers read it.

It looks to a reader like the directory of a live writer. A segment gets its name once it has its
header, and once the segment before it is synced. After the last frame comes a mark, which states
that the frames before it are durable. The mark is not the mirror's: the next bytes overwrite it. A
part of a frame's header would take its place and prove nothing, so it waits for the rest.

Where the mirror has removed the log, it goes on from checkpoints. The log would seem to end too
early until it reaches the newest of them, so until then readers see the files as they were.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from journal._disk.disk import (
    TMP,
    Directory,
    File,
    is_disk_error,
    remove_if_exists,
    write_all,
)
from journal._format import frame
from journal._format.checkpoint import (
    CHECKPOINTS_KEPT_MIN,
    BadCheckpointError,
    checkpoint_lsns,
    read_checkpoint,
)
from journal._format.layout import FRAME_HEADER_BYTES, MARK, SEGMENT_HEADER_BYTES
from journal._format.segment import Segment, SegmentName, segment_names
from journal._mirror.entry import CHECKPOINT, MirrorEntry, Piece, is_checkpoint
from journal._mirror.place_note import Known
from journal._mirror.staging import Staging
from journal._recovery.recovery import drop_covered
from journal._recovery.walk import Walk


class LiveCopy:
    """The files of a followed mirror. One thread changes them."""

    def __init__(self, directory: Directory, known: Known) -> None:
        """Go on from `known`, all of which is in the directory."""
        self._directory = directory
        self.known = known
        self._file: File | None = None
        self._staging = Staging(directory)  # checkpoints and what is after them, until it is shown
        self._whole = set[str]()  # the checkpoints in it that are whole
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
        """True if all bytes that are known are in the files that readers see."""
        return self._held is None and not self.is_catching_up

    @property
    def is_catching_up(self) -> bool:
        """True while readers do not see what came last."""
        return bool(self._staging.names)

    def apply(self, entry: MirrorEntry) -> None:
        """Write the bytes of an entry or of a part of a blob, durably, and show them to readers
        unless it is catching up. Raises the disk's errors, CorruptionError, and
        MirrorDamageError."""
        for piece in entry.pieces:
            if piece.is_checkpoint:
                self._staging.write(piece)
                continue
            size = self.known.size(piece.name)
            self.known.add_piece(piece, entry.number)
            if piece.end > size:
                rest = Piece(piece.name, size, piece.data[size - piece.offset :])
                if self.is_catching_up:
                    self._stage(rest)
                else:
                    self._write(rest)
        if not entry.more:
            self._whole = {*filter(is_checkpoint, self._staging.names)}
            # The segments after a checkpoint are still to come.
            newest_lsn = max(checkpoint_lsns([*self._whole]), default=0)
            if self._whole and entry.kind != CHECKPOINT and entry.last_lsn >= newest_lsn:
                self._show()
        if not self.is_catching_up:
            self._finish()
        self.known.pass_by(entry)

    def add_checkpoint(self, parts: Iterable[MirrorEntry]) -> None:
        """Write a checkpoint of what is in the directory already, and remove what two checkpoints
        cover, as the writer does. Raises the disk's errors and what `parts` raises."""
        try:
            for part in parts:
                for piece in part.pieces:
                    self._staging.write(piece)
        except BaseException:
            self._staging.drop()
            raise
        self._staging.put()
        verified: list[int] = []
        for lsn in reversed(checkpoint_lsns(self._directory.names())):
            with suppress(BadCheckpointError):
                read_checkpoint(self._directory, lsn).close()
                verified.insert(0, lsn)
            if len(verified) == CHECKPOINTS_KEPT_MIN:
                break
        drop_covered(self._directory, verified, CHECKPOINTS_KEPT_MIN)

    def forget_parts(self) -> None:
        """Remove parts of checkpoints whose rest could not be read. Another start may follow."""
        self._staging.drop({*filter(is_checkpoint, self._staging.names)} - self._whole)

    def close(self) -> None:
        """Close the open files, and remove those that readers do not see. A second call does
        nothing."""
        self._close_file()
        try:
            self._staging.drop()
        except OSError as error:  # an unfinished file that stays does no harm
            if not is_disk_error(error):
                raise

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _stage(self, piece: Piece) -> None:
        """Add bytes to a file that readers do not see yet."""
        held = self._held
        if held and held.name == piece.name:
            piece, self._held = Piece(held.name, held.offset, held.data + piece.data), None
        self._staging.write(piece)

    def _show(self) -> None:
        """Show all that came to readers, and go on with the newest segment."""
        names = self._staging.names
        self._staging.put(at_once=True)
        self._whole = set()
        segments = segment_names([*names])
        if segments:
            if self._file is not None and str(self._name) not in names:
                self._end_segment(self._file)
            self._open(segments[-1])

    def _end_segment(self, file: File) -> None:
        """Remove the mark of the open segment. Readers need it until a later segment has its
        name."""
        if held := self._held:
            self._held = None
            self._put(held)
        file.truncate(self.known.size(str(self._name)))
        file.sync()

    def _write(self, piece: Piece) -> None:
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
            walk.pass_over(segment)
            if walk.end == size:  # the mirror has no part of another frame yet, and no mark
                write_all(file, _mark(walk.next_lsn, segment), size)
            walk.read_evidence(segment, segment.file.read(FRAME_HEADER_BYTES, walk.end))
        # A reader takes only what a later header proves.
        self.last_lsn = max(self.last_lsn, min(walk.next_lsn - 1, walk.evidence))


def _mark(lsn: int, segment: Segment) -> bytes:
    """Return a mark, which states that every record before `lsn` is durable."""
    at_ns, seed = segment.header.created_at_ns, segment.header.seed
    return frame.encode(MARK, b"", 0, lsn=lsn, durable_lsn=lsn - 1, now_ns=at_ns, seed=seed)
