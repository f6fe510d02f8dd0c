"""Reader: a journal seen from outside. Takes no lock, maps no file, writes nothing.

Of a dead journal it shows what recovery would keep. Of a live one it shows what a durable LSN
in the log covers (in "os" durability every whole frame): the end of the log is moving, so bytes
that don't parse there are not finished rather than damaged, and damage is only what is still
bad when it is read again after the evidence against it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from journal._disk.disk import Directory, Disk, StrPath
from journal._disk.posix import PosixDisk
from journal._format.checkpoint import (
    BadCheckpointError,
    Checkpoint,
    checkpoint_lsns,
    read_application,
    read_checkpoint,
)
from journal._format.layout import SEGMENT_VERSION
from journal._format.record import Entry
from journal._format.segment import (
    SegmentName,
    find_journal_id,
    segment_names,
)
from journal._handle import OpenHandle
from journal._names import JournalFile, file_at, is_journal
from journal._offline.cursor import LogCursor, kept_segments, locate, open_segment
from journal._public import public
from journal._recovery.plan import Plan, foreign_to
from journal._recovery.walk import ReplayBatch, Walk
from journal.errors import CorruptionError, FormatVersionError, NotAJournalError

if TYPE_CHECKING:  # most readers never ask for it, and it takes as long to import as all they use
    from journal._format.segment_info import SegmentInfo
    from journal._offline.findings import Finding, FrameInfo
    from journal._offline.recovery_preview import RecoveryPreview

_POLL_S = 0.02


def read_batches(directory: Directory, after_lsn: int, limit_lsn: int) -> Iterator[ReplayBatch]:
    """All after `after_lsn` up to `limit_lsn`, which is known to be in the log.

    Raises CompactedError if the first of them, or one further on by now, is no longer kept.
    """
    next_lsn = after_lsn + 1
    segments: list[SegmentName] = []
    while next_lsn <= limit_lsn:
        if not segments or segments[-1].first_lsn <= next_lsn:  # more may be behind it by now
            segments = segment_names(directory.names())
        name, after = locate(segments, next_lsn)
        with open_segment(directory, name, next_lsn) as segment:
            walk = Walk.at(segment, limit_lsn)
            walk.enter(segment)
            batches = walk.batches(segment, after, after_lsn=next_lsn - 1, limit_lsn=limit_lsn)
            for batch in batches:
                next_lsn = batch.last_lsn + 1
                yield batch
                del batch  # before the next is read: each may be one large frame
            if next_lsn > limit_lsn:
                return
            if after:
                walk.leave(after)
            else:
                walk.finish()


def readable(directory: Directory, after: int | None) -> Iterator[ReplayBatch]:
    """All after LSN `after` that a reader is shown now."""
    cursor = LogCursor(directory, after)
    while not cursor.at_end:
        yield from cursor.advance()


@public
class JournalReader(OpenHandle):
    """A read-only view of the journal in the directory `path`, whether a writer lives or not.

    A context manager. Each call looks at the directory as it is then.
    """

    path: str
    """The directory of the journal."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.path = directory.path

    @classmethod
    def open(cls, path: StrPath, *, disk: Disk | None = None) -> JournalReader:
        """Raises FileNotFoundError, UnsafePathError, and NotAJournalError if it is no journal."""
        directory = (disk or PosixDisk()).open_directory(path, write=False)
        try:
            if not is_journal(directory.names()):
                raise NotAJournalError(directory.path)
        except BaseException:
            directory.close(unlock=False)
            raise
        return cls(directory)

    def close(self) -> None:
        """Close the directory's handle. Again: nothing."""
        self._directory.close(unlock=False)

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def writer_pid(self) -> int | None:
        """The live writer's pid (0: unknown), None if there is none."""
        return self._directory.lock_holder()

    @property
    def live(self) -> bool:
        """Whether a writer has it open now."""
        return self.writer_pid is not None

    @property
    def format_version(self) -> int:
        """Of the bytes on disk. What a newer one wrote is a FormatVersionError when it is read."""
        return SEGMENT_VERSION

    @property
    def journal_id(self) -> str | None:
        """That of the newest segment whose header is whole; None without one."""
        return find_journal_id(self._directory)

    @property
    def application(self) -> str | None:
        """Whose journal it is, as the newest checkpoint that has a first line says in it; None
        without one. Reads no more than that, so it need not verify."""
        for lsn in reversed(checkpoint_lsns(self._directory.names())):
            with suppress(BadCheckpointError, FormatVersionError, FileNotFoundError):
                return read_application(self._directory, lsn)
        return None

    def files(self) -> list[JournalFile]:
        """List the files in the directory, ordered by name. None of them is read."""
        return [file_at(f"{self.path}/{name}") for name in self._directory.names()]

    @property
    def first_lsns(self) -> list[int]:
        """The first LSN of each segment that `entries` shows, ascending. Reads no file."""
        names = self._directory.names()
        return [
            name.first_lsn for name in kept_segments(segment_names(names), checkpoint_lsns(names))
        ]

    @property
    def last_lsn(self) -> int:
        """The LSN of the last entry that `entries` shows now, 0 before there is one. Reads only
        the newest segment; if nothing in that is whole, the LSN that it goes on from."""
        return LogCursor(self._directory, None).last_lsn()

    @property
    def first_state_lsn(self) -> int:
        """The first LSN as of which a state can be rebuilt: 1, or that of the oldest checkpoint
        that the log goes on from, of what every writer keeps; 0 if there is none."""
        plan = self._plan()
        _close(plan.checkpoints)
        return plan.first_state_lsn

    def base(self, at: int | None = None, *, oldest: bool = False) -> Checkpoint | None:
        """Return the checkpoint from which to rebuild the state as of LSN `at` (None: the end), to
        be closed by the caller; None: from nothing. The entries after it are the rest of the state.

        `oldest`: not the newest checkpoint up to `at`, but the first one that the log goes on
        from, or None where it has its beginning. Raises CorruptionError for a checkpoint of
        another journal, as an open does.
        """
        plan, base = self._plan(), None
        try:
            journal_id, chosen = plan.agreed_id or self.journal_id, plan.base(at, oldest=oldest)
            # An open does not read the older ones, but the state would be rebuilt from `chosen`.
            foreign = plan.foreign_to(journal_id)
            if foreign := foreign or foreign_to(journal_id, [chosen] if chosen else []):
                raise foreign
            base = chosen
            return base
        finally:
            _close([checkpoint for checkpoint in plan.checkpoints if checkpoint is not base])

    def check_beginning(self) -> None:
        """Raise CorruptionError if the log begins after what the newest checkpoint holds, as an
        open does. Reads no segment."""
        # Compaction may have been between what is looked at: then it is not missing any more.
        if self._missing() and (missing := self._missing()):
            raise missing

    def _missing(self) -> CorruptionError | None:
        plan = self._plan()
        _close(plan.checkpoints)
        return plan.missing()

    def _plan(self) -> Plan[SegmentName]:
        """Return the plan of an open, with its checkpoints open. The names are listed first, so no
        segment is missing before a checkpoint that a live writer publishes meanwhile."""
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
        """Entries after LSN `after` (None: all that every writer keeps, which is what follows the
        older of the two newest checkpoints), in order; of them the `last` ones (None: all), for
        which the segments before them are not read.

        With `follow` it goes on for ever, across rolls, restarts and compaction of a live
        writer, a few hundredths of a second behind it; each time that it has yielded all there
        is it calls `wait`, which sleeps (None: for that long) or raises. Raises CompactedError
        if `after` is older than what is kept, CorruptionError where the log is damaged, after
        what is good before it.
        """
        if after is not None and after < 0:
            raise ValueError(f"after must be an LSN, or 0, not {after}")
        if last is not None and last < 0:
            raise ValueError(f"last must be a number of entries, not {last}")
        cursor = LogCursor(self._directory, after)
        if last is not None:
            cursor.seek_last(last)
        while True:
            for batch in cursor.advance():
                epoch, path = batch.epoch, batch.path
                for offset, at_ns, first_lsn, records in batch.frames():
                    for lsn, record in enumerate(records, first_lsn):
                        yield Entry(lsn, epoch, at_ns, record, offset, path)
                del batch, records  # before the next is read: each may be one large frame
            if cursor.at_end:
                if not follow:
                    return
                (wait or _sleep)()

    def frames(self, after: int | None = None) -> Iterator[FrameInfo]:
        """What stands in the segments, whether the log goes through it or not, in the order of
        the files; without frames that hold nothing after LSN `after`."""
        from journal._offline.verify import frames

        return frames(self._directory, after or 0)

    def checkpoints(self) -> list[Checkpoint]:
        """Those that verify, newest first, open until they are closed or dropped."""
        found = []
        for lsn in reversed(checkpoint_lsns(self._directory.names())):
            try:
                found.append(read_checkpoint(self._directory, lsn))
            except (BadCheckpointError, FileNotFoundError):
                continue
        return found

    def segments(self) -> list[SegmentInfo]:
        """What each segment holds, oldest first. Reads all of them."""
        from journal._offline.verify import check_segments

        return [info for info, _ in check_segments(self._directory)]

    def preview_recovery(self) -> RecoveryPreview:
        """Whether an open would refuse, and how far a journal without a live writer goes, by
        itself or after a repair. Reads all that an open would."""
        from journal._offline.recovery_preview import RecoveryDryRun

        return RecoveryDryRun(self._directory).preview_recovery()

    def verify(
        self, *, from_lsn: int = 1, progress: Callable[[int], object] | None = None
    ) -> Iterator[Finding]:
        """Look at every segment, record and checkpoint, needed for recovery or not.

        `from_lsn`: leave out the segments that end before it. `progress` is told the bytes that
        were looked at since it was last called.
        """
        from journal._offline.verify import verify

        return verify(self._directory, from_lsn, progress or _ignore)


def _close(checkpoints: Sequence[Checkpoint]) -> None:
    for checkpoint in checkpoints:
        checkpoint.close()


def _sleep() -> None:
    time.sleep(_POLL_S)


def _ignore(size_bytes: int) -> None:
    pass
