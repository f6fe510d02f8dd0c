"""Reader: a view of a journal from outside. It takes no lock, maps no file and writes nothing.

From a dead journal, it yields the records that recovery would keep. From a live one, it yields the
records that a durable LSN in the log covers (with durability "os", every whole frame). The end of a
live log moves, so bytes there that don't parse may just be unfinished. They count as damage only if
they are still bad when they are read again, after the evidence was gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from journal import _time as time
from journal._disk.disk import Directory, Disk, StrPath
from journal._disk.posix import disk_or_default
from journal._format.checkpoint import (
    BadCheckpointError,
    Checkpoint,
    checkpoint_lsns,
    read_application,
    read_checkpoint,
)
from journal._format.layout import SEGMENT_VERSION
from journal._format.packed_records import read_spans
from journal._format.record import Entry, Record
from journal._format.segment import (
    SegmentName,
    segment_names,
)
from journal._handle import OpenHandle
from journal._names import JournalFile, file_at, is_incomplete_copy, is_journal
from journal._offline.cursor import LogCursor, kept_segments, locate, open_segment
from journal._public import public
from journal._recovery.plan import Plan, foreign_to
from journal._recovery.stray_segments import find_journal_id
from journal._recovery.walk import Reading, ReplayBatch, Walk
from journal._waits import check_lsn, refuse
from journal.errors import ClosedError, CorruptionError, FormatVersionError, NotAJournalError

# Most readers never use these modules, and importing them takes as long as everything they do use.
if TYPE_CHECKING:
    from journal._format.segment_info import SegmentInfo
    from journal._offline.findings import Finding, FrameInfo
    from journal._offline.recovery_preview import RecoveryPreview

_POLL_S = 0.02
_MEMORY_MAX_MIN = 1 << 25  # the records of a small frame are decoded together


def _reading(memory_max_bytes: int | None) -> Reading:
    """Return the function that unpacks payloads, with a LargeRecord for each record whose objects
    would take more memory than this (None: any)."""
    if memory_max_bytes is None:
        return read_spans
    if memory_max_bytes < _MEMORY_MAX_MIN:
        raise ValueError(
            f"memory_max_bytes must be at least {_MEMORY_MAX_MIN}, not {memory_max_bytes}"
        )
    return partial(read_spans, memory_max=memory_max_bytes)


def read_batches(directory: Directory, after_lsn: int, limit_lsn: int) -> Iterator[ReplayBatch]:
    """Yield the records after `after_lsn` up to `limit_lsn`, which is known to be in the log.

    Raises CompactedError if the next record to read is no longer kept, at the beginning or later.
    """
    next_lsn = after_lsn + 1
    segments: list[SegmentName] = []
    while next_lsn <= limit_lsn:
        if not segments or segments[-1].first_lsn <= next_lsn:  # newer segments may exist by now
            segments = segment_names(directory.names())
        name, after = locate(segments, next_lsn)
        with open_segment(directory, name, next_lsn) as segment:
            walk = Walk.at(segment, limit_lsn, covered_lsn=next_lsn - 1)
            walk.enter(segment)
            batches = walk.batches(segment, after, after_lsn=next_lsn - 1, limit_lsn=limit_lsn)
            for batch in batches:
                next_lsn = batch.last_lsn + 1
                yield batch
                del batch  # free the memory before the next batch: each may be one large frame
            if next_lsn > limit_lsn:
                return
            if after:
                walk.leave(after)
            else:
                walk.finish()


def readable(directory: Directory, after: int | None) -> Iterator[ReplayBatch]:
    """Yield the records after LSN `after` that a reader can read now."""
    cursor = LogCursor(directory, after)
    while not cursor.at_end:
        yield from cursor.advance()


@public
class JournalReader(OpenHandle):
    """A read-only view of the journal in the directory `path`, whether a writer is live or not.

    It is a context manager. Each call reads the directory anew, and raises ClosedError after
    `close`.
    """

    path: str
    """The directory of the journal."""

    def __init__(self, directory: Directory, read: Reading = read_spans) -> None:
        self._opened = directory
        self._read = read
        self._is_closed = False
        self.path = directory.path

    @classmethod
    def open(
        cls, path: StrPath, *, disk: Disk | None = None, memory_max_bytes: int | None = None
    ) -> JournalReader:
        """Open the journal at `path` for reading.

        `memory_max_bytes`: `entries` and `frames` return a LargeRecord for each record whose
        objects would take more memory than this (None: for none). At least 32 MiB.

        Raises FileNotFoundError, UnsafePathError, and NotAJournalError if the directory is not a
        journal, and ValueError for too low a limit.
        """
        read = _reading(memory_max_bytes)
        directory = disk_or_default(disk).open_directory(path, write=False)
        try:
            names = directory.names()
            if not is_journal(names):
                is_copy = is_incomplete_copy(names)
                raise NotAJournalError(directory.path, is_incomplete_copy=is_copy)
        except BaseException:
            directory.close(unlock=False)
            raise
        return cls(directory, read)

    def close(self) -> None:
        """Close the directory's handle. A second call does nothing."""
        self._is_closed = True
        self._opened.close(unlock=False)

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<JournalReader {self.path} {'closed' if self._is_closed else 'open'}>"

    @property
    def _directory(self) -> Directory:
        if self._is_closed:
            raise ClosedError("the reader is closed; open it again")
        return self._opened

    @property
    def writer_pid(self) -> int | None:
        """The pid of the live writer: 0 if the pid is unknown, None if there is no live writer."""
        return self._directory.lock_holder()

    @property
    def live(self) -> bool:
        """True if a writer has the journal open now."""
        return self.writer_pid is not None

    @property
    def format_version(self) -> int:
        """The version of the segment format. Reading a newer one raises FormatVersionError."""
        return SEGMENT_VERSION

    @property
    def journal_id(self) -> str | None:
        """The journal's id: that of its segments. If these do not agree, it is the one that the
        checkpoints that verify have, too, or else the one that most files have. None if no file
        states it."""
        return find_journal_id(self._directory)

    @property
    def application(self) -> str | None:
        """The application that owns the journal, from the first line of the newest checkpoint in
        which that line can be read; None without one. The checkpoint need not verify."""
        for lsn in reversed(checkpoint_lsns(self._directory.names())):
            with suppress(BadCheckpointError, FormatVersionError, FileNotFoundError):
                return read_application(self._directory, lsn)
        return None

    def files(self) -> list[JournalFile]:
        """Return the files in the directory, ordered by name. None of them is read."""
        return [file_at(f"{self.path}/{name}") for name in self._directory.names()]

    @property
    def first_lsns(self) -> list[int]:
        """The first LSN of each segment that `entries` reads, ascending. No file is read."""
        names = self._directory.names()
        return [
            name.first_lsn for name in kept_segments(segment_names(names), checkpoint_lsns(names))
        ]

    @property
    def last_lsn(self) -> int:
        """The LSN of the last entry that `entries` would yield now, or 0 if there is none.

        Only the newest segment is read. If it holds no whole frame, this is the LSN before the
        segment's first LSN.
        """
        return LogCursor(self._directory, None).last_lsn()

    @property
    def first_state_lsn(self) -> int:
        """The first LSN as of which a state can be rebuilt from the files that every writer keeps.

        This is 1 if the log has its beginning. Otherwise it is the LSN of the oldest checkpoint
        from which the log continues, or 0 if there is none.
        """
        plan = self._plan()
        _close(plan.checkpoints)
        return plan.first_state_lsn

    def base(self, at: int | None = None, *, oldest: bool = False) -> Checkpoint | None:
        """Return the checkpoint from which to rebuild the state as of LSN `at` (None: the end of
        the log). Return None if the state is rebuilt from nothing.

        The entries after the checkpoint complete the state. The caller closes the checkpoint.

        `oldest`: instead of the newest checkpoint up to `at`, return the oldest one from which the
        log continues, or None if the log has its beginning. Raises CorruptionError for a checkpoint
        of another journal, as an open does.
        """
        if at is not None:
            check_lsn(at, "at")
        plan, base = self._plan(), None
        try:
            journal_id, chosen = plan.agreed_id or self.journal_id, plan.base(at, oldest=oldest)
            # An open does not judge older checkpoints, but `chosen` may be one of them.
            foreign = plan.foreign_to(journal_id)
            if foreign := foreign or foreign_to(journal_id, [chosen] if chosen else []):
                raise foreign
            base = chosen
            return base
        finally:
            _close([checkpoint for checkpoint in plan.checkpoints if checkpoint is not base])

    def check_beginning(self) -> None:
        """Raise CorruptionError if the log begins after the records that the newest checkpoint
        holds, as an open does. No segment is read."""
        # A compaction between two reads of the directory may make records look missing. Then a
        # second look finds nothing missing.
        if self._missing() and (missing := self._missing()):
            raise missing

    def _missing(self) -> CorruptionError | None:
        plan = self._plan()
        _close(plan.checkpoints)
        return plan.missing()

    def _plan(self) -> Plan[SegmentName]:
        """Return the plan of an open. Its checkpoints are open.

        The segments are listed before the checkpoints are read. So if a live writer publishes a
        checkpoint meanwhile, the segments before it are not missing from the plan.
        """
        names = self._directory.names()
        segments = kept_segments(segment_names(names), checkpoint_lsns(names))
        return Plan(self.path, segments, self.checkpoints())

    def entries(
        self,
        after: int | None = None,
        *,
        last: int | None = None,
        follow: bool = False,
        wait: Callable[[], object] | None = None,
    ) -> Iterator[Entry]:
        """Yield the entries after LSN `after`, in order.

        `after`: None stands for everything that every writer keeps, which is the log after the
        older of the two newest checkpoints. `last`: yield only the last `last` entries of these
        (None: all); the segments before them are not read.

        `follow`: continue forever, across new segments, restarts and compaction of a live writer, a
        few hundredths of a second behind it. `wait` is called whenever all entries have been
        yielded; it sleeps, or raises to end the iteration (None: sleep for 20 ms).

        Raises CompactedError if the records after `after` are no longer kept. Raises
        CorruptionError if the log is damaged, after the good entries before the damage.
        """
        if last is not None:
            _check_count(last)
        cursor = self._cursor(after)
        if last is not None:
            cursor.seek_last(last)
        while True:
            for batch in cursor.advance():
                epoch, path, filler_lsn = batch.epoch, batch.path, batch.filler_lsn
                for offset, at_ns, first_lsn, records in batch.frames():
                    is_filler = first_lsn == filler_lsn  # it has its own frame
                    for lsn, record in enumerate(records, first_lsn):
                        yield Entry(lsn, epoch, at_ns, record, offset, path, is_filler)
                del batch, records  # free the memory before the next batch: each may be large
            if cursor.at_end:
                if not follow:
                    return
                (wait or _sleep)()

    def records(self, after: int | None = None) -> Iterator[tuple[int, Sequence[Record]]]:
        """Yield the records after LSN `after`, in order, in sequences, each with its first LSN. A
        program that needs nothing else of the entries saves a quarter of the time.

        A filler is left out: the sequence begins after it, and may be empty. `after` and the errors
        are those of `entries`.
        """
        cursor = self._cursor(after)
        while not cursor.at_end:
            for batch in cursor.advance():
                fillers = 1 if batch.filler_lsn else 0
                yield (
                    batch.first_lsn + fillers,
                    batch.records[fillers:] if fillers else batch.records,
                )
                del batch  # free the memory before the next batch: each may be one large frame

    def _cursor(self, after: int | None) -> LogCursor:
        if after is not None:
            check_lsn(after, "after")
        return LogCursor(self._directory, after, read=self._read)

    def frames(self, after: int | None = None) -> Iterator[FrameInfo]:
        """Yield the pieces of all segments, whether they belong to the log or not, in the order of
        the files. Leave out frames that hold no record after LSN `after`."""
        from journal._offline.verify import frames

        if after is not None:
            check_lsn(after, "after")
        return frames(self._directory, after or 0, self._read)

    def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints that verify, newest first. They stay open until they are closed or
        garbage-collected."""
        verified = []
        for lsn in reversed(checkpoint_lsns(self._directory.names())):
            try:
                verified.append(read_checkpoint(self._directory, lsn))
            except (BadCheckpointError, FileNotFoundError):
                continue
        return verified

    def segments(self) -> list[SegmentInfo]:
        """Return a report on each segment, oldest first. All of them are read."""
        from journal._offline.verify import check_segments

        return [info for info, _ in check_segments(self._directory)]

    def preview_recovery(self) -> RecoveryPreview:
        """Return a forecast of the next open of a journal without a live writer: whether it
        refuses, and where the log ends, with or without a repair. Reads all that an open reads.

        Raises UnsafePathError if the open would: for a file that is not regular, or a directory
        that others can write to.
        """
        from journal._offline.place_check import check_marker, check_place
        from journal._offline.recovery_preview import RecoveryDryRun

        check_place(self._directory)
        preview = RecoveryDryRun(self._directory).preview_recovery()
        if preview.problem is None and (finding := check_marker(self._directory)):
            error = finding.as_error()
            return replace(preview, problem=str(error), refusal=error.refusal)
        return preview

    def verify(
        self,
        *,
        from_lsn: int = 1,
        progress: Callable[[int], object] | None = None,
        segments: list[SegmentInfo] | None = None,
    ) -> Iterator[Finding]:
        """Check every segment, record and checkpoint, whether recovery needs it or not, and the
        file MIRROR, and yield the problems.

        `from_lsn`: leave out the segments that end before this LSN. `progress` is called with the
        number of bytes that were checked since its last call. `segments`: a list, to which the
        report on each segment that was read is appended, as `segments` would return it.

        After the last problem, it raises UnsafePathError if others can write to the directory, or
        if LOCK or MIRROR is not a regular file.
        """
        from journal._offline.verify import verify

        into = [] if segments is None else segments
        return verify(self._directory, from_lsn, progress or _ignore, into)


def _check_count(last: object) -> None:
    rule = "last must be a number of entries, at least 0"
    if isinstance(last, bool) or not isinstance(last, int):
        refuse(TypeError, rule, last)
    if last < 0:
        refuse(ValueError, rule, last)


def _close(checkpoints: Sequence[Checkpoint]) -> None:
    for checkpoint in checkpoints:
        checkpoint.close()


def _sleep() -> None:
    time.sleep(_POLL_S)


def _ignore(size_bytes: int) -> None:
    pass
