"""Writer: writes to the end of the log. One thread at a time uses it.

A segment is complete before it gets its name: it is created as `*.tmp`, synced, and given a name
that no other file has, and then its directory is synced. Frames are written to it only after that,
and only after the segment before it was synced. So its existence proves that every record before
its first LSN was durable.

A call that finds no space raises OSError and may be repeated, as may one that was interrupted: it
writes the same bytes at the same offset. A failed sync must never be repeated, so it raises
FailedError, and so does every later call.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from journal._commit.batch import Commit, CommitBatch, Filler
from journal._commit.open_segment import OpenSegment
from journal._disk.disk import (
    TMP,
    Clock,
    Directory,
    File,
    clock_ns,
    is_disk_error,
    remove_if_exists,
    write_all,
)
from journal._format import frame
from journal._format.crc32c import crc32c
from journal._format.layout import FLAG_OS, FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES
from journal._format.segment import SegmentHeader, SegmentName, encode_header, segment_names
from journal.errors import FailedError
from journal.options import Options

# A segment's path, the offset after what is synced, the last LSN, the bytes of the log since open.
SyncedEnd = tuple[str, int, int, int]
_CHECK_NS = 10_000_000  # the time between two checks of the segment's name by "os" commits
NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE))


class Writer:
    def __init__(
        self,
        directory: Directory,
        clock: Clock,
        options: Options,
        *,
        journal_id: str,
        epoch: int,
        last_lsn: int,
    ) -> None:
        crc32c()  # loads the library
        self._directory = directory
        self._clock = clock
        self._options = options
        self._journal_id = bytes.fromhex(journal_id)
        self._epoch = epoch
        self._written_lsn = last_lsn
        self._synced_lsn = last_lsn
        self._segment: OpenSegment | None = None
        self._failure: OSError | None = None
        self._sync_error: OSError | None = None  # a sync's error, from the disk or a handler
        self._prepared_ns = self._checked_ns = -_CHECK_NS
        self._ended: OpenSegment | None = None  # a segment that takes no further commit
        self.log_bytes = 0  # frames and headers written since open
        self.synced_end: SyncedEnd | None = None  # since open; any thread may read it

    @property
    def synced_lsn(self) -> int:
        return self._synced_lsn

    @property
    def failed(self) -> bool:
        """True if a sync failed or the segment was deleted: nothing more may be acknowledged."""
        return self._failure is not None

    @property
    def directory_path(self) -> str:
        """The path of the journal's directory, for messages."""
        return self._directory.path

    @property
    def segment_bytes(self) -> int | None:
        """The number of bytes written to the open segment, or None if there is none."""
        segment = self._segment
        return segment.offset if segment else None

    def has_segment_for(self, batch: CommitBatch) -> bool:
        """Return whether the batch fits in the open segment, so that `prepare` does no I/O."""
        segment, options, size = self._segment, self._options, batch.bytes
        if segment is None or segment is self._ended or type(batch.records[0]) is Filler:
            return False
        is_full = segment.offset + FRAME_HEADER_BYTES + size > options.segment_bytes
        return not is_full and size <= options.frame_bytes_max

    def prepare(self, batch: CommitBatch) -> None:
        """Encode the batch's frames, all for one segment, and set their offset in it."""
        segment, records = self._segment, batch.records
        if segment is None or not self.has_segment_for(batch):
            segment, data = self._prepare_in_frames(batch)
        else:  # nearly always
            payload = frame.joined(records, batch.bytes)
            self._prepared_ns = now_ns = clock_ns(self._clock)
            data = segment.encode(
                payload,
                len(records),
                lsn=batch.first_lsn,
                durable_lsn=self._synced_lsn,
                now_ns=now_ns,
            )
        last_lsn, log_bytes = batch.first_lsn + len(records) - 1, self.log_bytes + len(data)
        batch.place(Commit(data, segment.offset, last_lsn, log_bytes))

    def _prepare_in_frames(self, batch: CommitBatch) -> tuple[OpenSegment, bytes]:
        """Encode the batch in as many frames as it needs, and begin a segment if it needs one."""
        has_filler = type(batch.records[0]) is Filler  # a segment begins with it
        payloads = [(0, len(batch.records), frame.joined(batch.records, batch.bytes))]
        if has_filler or batch.bytes > self._options.frame_bytes_max:
            payloads = list(_split(batch, self._options.frame_bytes_max, skip=int(has_filler)))
        size = batch.bytes + FRAME_HEADER_BYTES * len(payloads)
        segment = self._segment
        if segment and segment.offset > SEGMENT_HEADER_BYTES:  # it has frames
            is_full = segment.offset + size > self._options.segment_bytes
            if is_full or has_filler or segment is self._ended:
                self._seal(segment)
                segment = None
        if segment is None:
            segment = self.begin_segment(size)
        self._prepared_ns = clock_ns(self._clock)
        frames = [
            segment.encode(
                payload,
                count,
                lsn=batch.first_lsn + index,
                # A filler states no durable LSN, which is how a reader tells it from a record.
                durable_lsn=0 if has_filler and not index else self._synced_lsn,
                now_ns=self._prepared_ns,
            )
            for index, count, payload in payloads
        ]
        return segment, b"".join(frames)

    def end_segment(self) -> None:
        """Let no commit after the current one write to this segment. Any thread may call this."""
        self._ended = self._segment

    def begin_segment(self, size: int = 0) -> OpenSegment:
        """Create the next segment, with space for at least `size` bytes of frames."""
        name = SegmentName(self._written_lsn + 1, self._epoch)
        flags = FLAG_OS if self._options.durability == "os" else 0
        header = encode_header(
            SegmentHeader(
                flags, name.epoch, self._journal_id, name.first_lsn, clock_ns(self._clock)
            )
        )
        self._check_sole_writer()
        tmp = str(name) + TMP
        remove_if_exists(self._directory, tmp)
        file = self._directory.open(tmp, "create")
        try:
            self._allocate(file, max(self._options.segment_bytes, SEGMENT_HEADER_BYTES + size))
            write_all(file, header, 0)
            file.sync()
            self._directory.rename_new(tmp, str(name))
        except BaseException as error:
            file.close()
            remove_if_exists(self._directory, tmp)
            if isinstance(error, FileExistsError):
                # Each opening takes a new epoch, so another writer made that segment.
                raise _second_writer_error(self._directory.path, name) from error
            raise
        try:
            self._directory.sync()
        except OSError as error:
            file.close()
            raise FailedError(f"{self._directory.path}: can't be synced: {error}") from error
        path = f"{self._directory.path}/{name}"
        # The segment's name states that every record before it is durable.
        self._segment = segment = OpenSegment(file, path, header, recorded_lsn=self._written_lsn)
        self.log_bytes += len(header)
        return segment

    def write(self, batch: CommitBatch) -> None:
        """Write the batch at the offset that `prepare` has set. May be repeated."""
        assert self._segment is not None
        assert batch.commit is not None
        data, offset, last_lsn, self.log_bytes = batch.commit
        self._segment.write(data, offset)
        self._written_lsn = last_lsn
        # "os" commits sync nothing, so without this check they would be acknowledged even if the
        # directory was deleted. A check at each commit would take up to a fifth of its time; one
        # every 10 ms costs next to nothing.
        is_os = self._options.durability == "os"
        if is_os and abs(self._prepared_ns - self._checked_ns) >= _CHECK_NS:
            self._check_linked()

    def sync(self) -> None:
        """Sync everything written so far, and check that the segment still has a name."""
        if self._sync_error is not None:  # an interrupt came before its cause was determined
            self._record_sync_failure()
        if self._failure is None and self._segment is not None:
            try:
                self._segment.file.sync()
            except OSError as error:
                # Set before any call, so that no interrupt can lead to a second sync.
                self._sync_error = error
                self._record_sync_failure()
                if self._failure is None:
                    raise
        self._check_linked()
        self._synced_lsn = self._written_lsn
        if segment := self._segment:
            self.synced_end = segment.path, segment.offset, self._synced_lsn, self.log_bytes

    def handle(self, lane: int) -> File | None:
        """Return the handle on which a lane syncs the open segment, or None if it has none."""
        return self._segment.handle(lane) if self._segment else None

    @property
    def written_end(self) -> SyncedEnd:
        """The value of `synced_end` once everything written so far is synced."""
        assert self._segment is not None
        return self._segment.path, self._segment.offset, self._written_lsn, self.log_bytes

    def synced_to(self, end: SyncedEnd, error: BaseException | None) -> None:
        """Note that a lane's sync up to `end` succeeded, or raise FailedError for its error."""
        if isinstance(error, OSError):
            self._failure = self._failure or error
        elif error is not None:
            raise error
        self._check_linked()
        self._synced_lsn, self.synced_end = end[2], end

    def _record_sync_failure(self) -> None:
        """Record a failed sync's error as final if the disk raised it, not a signal handler."""
        error = self._sync_error
        if error is not None and is_disk_error(error, self._segment and self._segment.file):
            self._failure = error
        self._sync_error = None

    def _check_linked(self) -> None:
        """Raise FailedError, now and in every later call, if a sync failed or the segment has no
        name left, so that its frames can't be found again."""
        segment = self._segment
        if self._failure is None and segment is not None and not segment.file.is_linked():
            self._failure = FileNotFoundError(errno.ENOENT, "it was deleted while it was open")
        if self._failure is not None:
            path = segment.path if segment else self._directory.path
            cause = self._failure.strerror or self._failure
            raise FailedError(f"{path}: can't be synced: {cause}") from self._failure
        self._checked_ns = self._prepared_ns

    def _check_sole_writer(self) -> None:
        """Raise FailedError if a later opening has begun a segment, because records that this
        opening writes would then be lost.

        The lock prevents that, unless it works only within a machine, and the two openings are on
        different machines.
        """
        names: list[SegmentName] = []
        # Listing takes two file handles. With only one left, a segment can still be created.
        with _ignore_no_space():
            names = segment_names(self._directory.names())
        newest = max(names, key=lambda name: name.epoch, default=None)
        if newest is not None and newest.epoch > self._epoch:
            raise _second_writer_error(self._directory.path, newest)

    def mark(self) -> None:
        """Write a mark, which states that every record so far is durable.

        Does nothing if the segment states that already. A mark is not synced: it states only what
        is true, so losing it breaks no promise. The next frame is written over it. Raises
        FailedError if the segment was deleted, or if there is another writer.
        """
        self._check_linked()
        self._check_sole_writer()
        segment = self._segment
        if segment is None or segment.recorded_lsn == self._synced_lsn:
            return
        with _ignore_no_space():
            segment.mark(self._written_lsn + 1, self._synced_lsn, clock_ns(self._clock))

    def close(self) -> None:
        """Finish the log: sync, write a mark, and free the space that was not used."""
        segment = self._segment
        if segment is None:
            return
        self.sync()
        self.mark()
        segment.trim()
        self.release()

    def release(self) -> None:
        """Close the file handle, and do nothing else."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _seal(self, segment: OpenSegment) -> None:
        segment.trim()
        self.sync()
        self.release()

    def _allocate(self, file: File, size: int) -> None:
        try:
            file.allocate(size)
        except OSError:
            with suppress(OSError):
                file.truncate(0)  # leave the free space to the records


def _split(
    batch: CommitBatch, payload_bytes_max: int, *, skip: int
) -> Iterator[tuple[int, int, bytes]]:
    """Yield the frames that the batch needs, as `split_frames` does. `skip`: 1 if the batch begins
    with a filler, which has its own frame, or 0."""
    if skip:
        yield 0, 1, batch.records[0]
    if records := batch.records[skip:]:
        groups = [(begin - skip, end - skip) for begin, end in batch.groups]
        for index, count, payload in frame.split_frames(records, groups, payload_bytes_max):
            yield index + skip, count, payload


@contextmanager
def _ignore_no_space() -> Iterator[None]:
    """Ignore a full disk or a lack of file handles."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise


def _second_writer_error(path: str, name: SegmentName) -> FailedError:
    return FailedError(
        f"{path}/{name}: another process created this segment. The lock does not work here, so "
        "there are two writers. This one has replaced nothing, but the records that it wrote since "
        "the other one opened the journal may be lost. Stop one of them, move the journal to a "
        "local file system, and reopen it"
    )
