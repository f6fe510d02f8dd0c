"""Copying: the files of a mirror become those of a new directory, and are cut where asked.

Until everything is there and synced, each file has the name of an unfinished one, which no open
reads. Then the files get their names, the newest first. So even without the mark of an incomplete
copy, an open after a crash finds no record, or finds that the log begins too late, and refuses.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import Literal

from journal._disk.disk import TMP, Directory, File, FileMode, write_all
from journal._format import frame
from journal._format.checkpoint import checkpoint_lsns, checkpoint_name
from journal._format.layout import FRAME_HEADER_BYTES, LSN_MAX, MARK, SEGMENT_HEADER_BYTES
from journal._format.segment import Segment, SegmentName, segment_names
from journal._mirror.entry import MirrorDamageError, Piece
from journal._recovery.walk import Walk


class Copy:
    """The unfinished files of a copy. Each is synced before the next one is opened."""

    def __init__(self, target: Directory) -> None:
        self._target = target
        self._name = ""
        self._file: File | None = None
        self._size = 0
        self._files = _Unfinished(target)

    def write(self, piece: Piece, number: int) -> None:
        """Write the bytes of entry `number`. Writing them twice changes nothing. Raises
        MirrorDamageError if bytes before them are missing."""
        if piece.name != self._name or self._file is None:
            self._open(piece.name)
        assert self._file is not None
        if piece.offset > self._size:
            problem = f"bytes {self._size} to {piece.offset} of {piece.name} are missing"
            raise MirrorDamageError(number, problem)
        write_all(self._file, piece.data, piece.offset)
        self._size = max(self._size, piece.end)

    @property
    def has_segment(self) -> bool:
        """True if it has a segment. Without one, no journal opens."""
        return bool(segment_names(self._files.names()))

    @property
    def begun_at_ns(self) -> int | None:
        """The time of the first frame, or None if there is no frame."""
        segments = segment_names(self._files.names())
        at_ns = self._begun_at_ns(segments[0]) if segments else LSN_MAX
        return None if at_ns == LSN_MAX else at_ns

    def close(self) -> None:
        """Sync and close the open file."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.sync()
        finally:
            file.close()

    def _open(self, name: str) -> None:
        self.close()
        mode: Literal["update", "create"] = "update" if name in self._files.names() else "create"
        self._file = self._files.open(name, mode)
        self._name, self._size = name, self._file.size()

    def cut(self, lsn: int) -> int:
        """Cut the log after the commit that holds `lsn`, and return the LSN at which it ends then.

        The log holds `lsn`, or a checkpoint is as of it. A mark states that the end is durable.
        Raises CorruptionError and the disk's errors.
        """
        names = self._files.names()
        segments = segment_names(names)
        # The first segment stays even if it begins after `lsn`, because each log has a segment.
        last = max(bisect_right(segments, lsn, key=attrgetter("first_lsn")), 1)
        last_lsn = self._cut_segment(segments[last - 1], lsn) if segments else lsn
        for name in reversed(segments[last:]):
            self._files.remove(str(name))
        for each in checkpoint_lsns(names):
            if each > last_lsn:
                self._files.remove(checkpoint_name(each))
        return last_lsn

    def _cut_segment(self, name: SegmentName, lsn: int) -> int:
        with Segment(self._files, name) as segment:
            walk = Walk.at(segment)
            walk.enter(segment)
            walk.pass_over(segment, lsn - 1)
            end, next_lsn, written_at_ns = walk.end, walk.next_lsn, 0
            for scanned in walk.frames(segment, None):
                written_at_ns = scanned.header.written_at_ns
                if next_lsn <= lsn:
                    end, next_lsn = walk.end, walk.next_lsn
                if next_lsn > lsn:
                    break
            seed = segment.header.seed
        file = self._files.open(str(name), "update")
        try:
            if written_at_ns:  # otherwise nothing follows, and the end stays as it was
                file.truncate(end)
                numbers = {"lsn": next_lsn, "durable_lsn": next_lsn - 1, "now_ns": written_at_ns}
                write_all(file, frame.encode(MARK, b"", 0, **numbers, seed=seed), end)
            file.sync()
        finally:
            file.close()
        return next_lsn - 1

    def lsn_at(self, unix_ns: int) -> int:
        """Return the last LSN that was written at this time or before, or the LSN before the first
        one. Raises CorruptionError and the disk's errors."""
        segments = segment_names(self._files.names())
        lsn = segments[0].first_lsn - 1 if segments else 0
        begun = bisect_right(segments, unix_ns, key=self._begun_at_ns)
        if not begun:
            return lsn
        with Segment(self._files, segments[begun - 1]) as segment:
            walk = Walk.at(segment)
            walk.enter(segment)
            lsn = walk.next_lsn - 1
            for scanned in walk.frames(segment, None):
                if scanned.header.written_at_ns > unix_ns:
                    break
                lsn = walk.next_lsn - 1
        return lsn

    def _begun_at_ns(self, name: SegmentName) -> int:
        """Return the time of a segment's first frame, or a time that never comes if it has none."""
        file = self._files.open(str(name), "read")
        try:
            data = file.read(SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES, 0)
        finally:
            file.close()
        return first_written_at_ns(Piece(str(name), 0, data)) or LSN_MAX

    def finish(self) -> None:
        """Give all files their names, durably. Raises the disk's errors."""
        names = self._files.names()
        self._target.sync()
        ordered = [*map(checkpoint_name, checkpoint_lsns(names)), *map(str, segment_names(names))]
        for name in reversed(ordered):
            self._target.rename_new(f"{name}{TMP}", name)
            self._target.sync()  # so that a crash can't leave an older one without a newer one


def first_written_at_ns(piece: Piece) -> int:
    """Return the time of the first frame of a segment that begins with a piece, or 0."""
    seed = int.from_bytes(piece.data[SEGMENT_HEADER_BYTES - 4 : SEGMENT_HEADER_BYTES], "little")
    header = frame.parse(piece.data, SEGMENT_HEADER_BYTES, seed) if not piece.offset else None
    return header.written_at_ns if header else 0


class _Unfinished:
    """The unfinished files of a directory, under the names that they will get."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def open(self, name: str, mode: FileMode) -> File:
        return self._directory.open(name + TMP, mode)

    def names(self) -> list[str]:
        return [n.removesuffix(TMP) for n in self._directory.names() if n.endswith(TMP)]

    def remove(self, name: str) -> None:
        self._directory.remove(name + TMP)
