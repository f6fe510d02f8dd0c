"""Writer: the end of the log. Whoever holds it is alone there: the flusher.

A segment is born whole: made as `*.tmp`, synced, renamed, its name synced; only then is a frame
written to it, and only after the segment before it is synced. So its existence proves that all
before its first LSN was durable.

What the disk refuses for want of space raises OSError and may be tried again: the same bytes
at the same offset. What must not be tried again (a sync that failed) raises FailedError.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass

from journal import frame
from journal.buffer import Batch
from journal.errors import FailedError
from journal.options import Options
from journal.segment import FLAG_OS, SegmentHeader, SegmentName, encode_header
from journal.segment import HEADER_BYTES as SEGMENT_HEADER_BYTES
from journal.storage import TMP, Directory, Disk, File, remove_if_there, write_all

NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE))


@dataclass(frozen=True, slots=True)
class Commit:
    """Bytes with their place: writing them twice is writing them once."""

    data: bytes
    offset: int
    last_lsn: int


class Writer:
    def __init__(
        self,
        directory: Directory,
        disk: Disk,
        options: Options,
        *,
        journal_id: str,
        epoch: int,
        last_lsn: int,
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._options = options
        self._journal_id = bytes.fromhex(journal_id)
        self._epoch = epoch
        self._written_lsn = last_lsn
        self._synced_lsn = last_lsn
        self._said_lsn = last_lsn  # the highest durable LSN that is written down
        self._marked = False  # whether a mark stands at the end
        self._file: File | None = None
        self._seed = 0
        self._offset = 0
        self.bytes = 0  # of frames and headers, since open

    @property
    def synced_lsn(self) -> int:
        return self._synced_lsn

    def prepare(self, batch: Batch) -> Commit:
        """The batch's frames, all in one segment, and where they go."""
        payloads = list(batch.frames(self._options.frame_bytes_max))
        size = sum(frame.HEADER_BYTES + len(payload) for _, _, payload in payloads)
        begun = self._offset > SEGMENT_HEADER_BYTES
        if self._file and begun and self._offset + size > self._options.segment_bytes:
            self._seal()
        if self._file is None:
            self.begin_segment(size)
        frames = [
            frame.encode(
                frame.RECORDS,
                payload,
                count,
                lsn=lsn,
                durable_lsn=self._synced_lsn,
                now_ns=self._disk.now_ns(),
                seed=self._seed,
            )
            for lsn, count, payload in payloads
        ]
        self._said_lsn = self._synced_lsn
        return Commit(b"".join(frames), self._offset, batch.last_lsn)

    def begin_segment(self, size: int = 0) -> None:
        """Make the segment for what comes next, with room for `size` bytes of frames."""
        name = SegmentName(self._written_lsn + 1, self._epoch)
        flags = FLAG_OS if self._options.durability == "os" else 0
        header = encode_header(
            SegmentHeader(flags, name.epoch, self._journal_id, name.first_lsn, self._disk.now_ns())
        )
        tmp = str(name) + TMP
        remove_if_there(self._directory, tmp)
        file = self._directory.open(tmp, "create")
        try:
            self._allocate(file, max(self._options.segment_bytes, SEGMENT_HEADER_BYTES + size))
            write_all(file, header, 0)
            file.sync()
            self._directory.rename(tmp, str(name))
        except BaseException:
            file.close()
            remove_if_there(self._directory, tmp)
            raise
        try:
            self._directory.sync()
        except OSError as error:
            file.close()
            raise FailedError(f"{self._directory.path}: can't be synced: {error}") from error
        self._file, self._offset = file, len(header)
        self._said_lsn = self._written_lsn  # the segment's name says so
        self._marked = False
        self._seed = int.from_bytes(header[-4:], "little")
        self.bytes += len(header)

    def write(self, commit: Commit) -> None:
        assert self._file is not None
        write_all(self._file, commit.data, commit.offset)
        self._offset = commit.offset + len(commit.data)
        self._marked = False
        self._written_lsn = commit.last_lsn
        self.bytes += len(commit.data)

    def sync(self) -> None:
        """Put all that is written on stable storage, and see that it can be found again."""
        if self._file is not None:
            path = self._file.path
            try:
                self._file.sync()
                linked = self._file.is_linked()
            except OSError as error:
                raise FailedError(f"{path}: can't be synced: {error}") from error
            if not linked:
                raise FailedError(f"{path}: was deleted underneath")
        self._synced_lsn = self._written_lsn

    def mark(self) -> None:
        """Say that all so far is durable, unless that stands there already.

        It costs no sync, proves nothing that is not so, and the next frame is written over it.
        """
        if self._file is None or self._said_lsn == self._synced_lsn:
            return
        mark = frame.encode(
            frame.MARK,
            b"",
            0,
            lsn=self._written_lsn + 1,
            durable_lsn=self._synced_lsn,
            now_ns=self._disk.now_ns(),
            seed=self._seed,
        )
        self._said_lsn = self._synced_lsn
        try:
            write_all(self._file, mark, self._offset)
            self._marked = True
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise

    def close(self) -> None:
        """After a clean end: sync, mark, and give back the space preallocated in vain."""
        if self._file is None:
            return
        self.sync()
        self.mark()
        self._trim(self._offset + frame.HEADER_BYTES * self._marked)
        self.release()

    def release(self) -> None:
        """Close the handle, and nothing else."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _seal(self) -> None:
        self._trim(self._offset)
        self.sync()
        self.release()

    def _trim(self, size: int) -> None:
        assert self._file is not None
        with suppress(OSError):  # saves space, proves nothing
            if self._file.size() > size:
                self._file.truncate(size)

    def _allocate(self, file: File, size: int) -> None:
        try:
            file.allocate(size)
        except OSError:
            with suppress(OSError):
                file.truncate(0)  # leave what there is to the records
