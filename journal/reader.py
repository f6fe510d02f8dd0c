"""Reader: a journal seen from outside. Takes no lock, maps no file, writes nothing.

Of a dead journal it shows what recovery would keep. Of a live one it shows what a durable LSN
in the log covers (in "os" durability every whole frame): the end of the log is moving, so bytes
that don't parse there are not finished rather than damaged, and damage is only what is still
bad when it is read again after the evidence against it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from typing import NoReturn

from journal.checkpoint import (
    BadCheckpointError,
    Checkpoint,
    checkpoint_lsns,
    read_checkpoint,
)
from journal.errors import CompactedError, CorruptionError, JournalError
from journal.posix import PosixDisk
from journal.record import Entry
from journal.recovery import Batch, Walk, decode
from journal.segment import (
    FLAG_OS,
    VERSION,
    Segment,
    SegmentInfo,
    SegmentName,
    kept_after,
    segment_names,
)
from journal.storage import LOCK, TMP, Directory, Disk, StrPath
from journal.verify import Finding, find_journal_id, survey, verify

_POLL_S = 0.02


def is_journal(names: list[str]) -> bool:
    # Of a journal that had just begun, a crash may leave no more than a file that was being made.
    names = [name.removesuffix(TMP) for name in names]
    return LOCK in names or bool(segment_names(names)) or bool(checkpoint_lsns(names))


def read_batches(directory: Directory, after_lsn: int, limit_lsn: int) -> Iterator[Batch]:
    """All after `after_lsn` up to `limit_lsn`, which is known to be in the log.

    Raises CompactedError if the first of them, or one further on by now, is no longer kept.
    """
    next_lsn = after_lsn + 1
    while next_lsn <= limit_lsn:
        name, after = _find(segment_names(directory.names()), next_lsn)
        with _open(directory, name, next_lsn) as segment:
            walk = Walk(directory, name.first_lsn - 1, limit_lsn)
            for found, header in walk.segment(segment, after):
                if walk.next_lsn > next_lsn:
                    yield decode(found, header, segment).after(next_lsn - 1)
                    next_lsn = walk.next_lsn
                if next_lsn > limit_lsn:
                    return
            if not after:
                walk.finish()


def _find(segments: list[SegmentName], lsn: int) -> tuple[SegmentName, SegmentName | None]:
    """The segment that holds `lsn`, or will, and the one behind it."""
    begun = [name for name in segments if name.first_lsn <= lsn]
    if not begun:
        _raise_compacted(lsn, segments)
    behind = segments[len(begun) : len(begun) + 1]
    return begun[-1], behind[0] if behind else None


def _shown(segments: list[SegmentName], checkpoints: list[int]) -> list[SegmentName]:
    """The segments that are kept; others are leftovers of an unfinished removal."""
    # Two checkpoints are kept, with what follows the older one.
    return kept_after(segments, checkpoints[-2] if len(checkpoints) > 1 else 0)


def _open(directory: Directory, name: SegmentName, lsn: int) -> Segment:
    try:
        return Segment(directory, name)
    except FileNotFoundError:
        _raise_compacted(lsn, segment_names(directory.names()))


def _raise_compacted(lsn: int, segments: list[SegmentName]) -> NoReturn:
    first_lsn = segments[0].first_lsn if segments else 0
    raise CompactedError(
        f"LSN {lsn} is no longer kept, the first that is: {first_lsn}; "
        "start from a checkpoint and read what follows it",
        first_lsn,
    )


def readable(directory: Directory, after: int | None) -> Iterator[Batch]:
    """All after LSN `after` that a reader is shown now."""
    tail = _Tail(directory, after)
    while not tail.at_end:
        yield from tail.advance()


class JournalReader:
    """A read-only view of the journal at `path`, whether a writer lives or not."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.path = directory.path

    @classmethod
    def open(cls, path: StrPath, *, disk: Disk | None = None) -> JournalReader:
        """Raises FileNotFoundError, UnsafePathError, and JournalError if it is no journal."""
        directory = (disk or PosixDisk()).open_directory(path, write=False)
        try:
            if not is_journal(directory.names()):
                raise JournalError(
                    f"{directory.path}: not a journal: no segment, checkpoint or LOCK in it"
                )
        except BaseException:
            directory.close(unlock=False)
            raise
        return cls(directory)

    def close(self) -> None:
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
        return self.writer_pid is not None

    @property
    def format_version(self) -> int:
        """Of the bytes on disk. What a newer one wrote is a FormatVersionError when it is read."""
        return VERSION

    @property
    def journal_id(self) -> str | None:
        """That of the newest segment whose header is whole; None without one."""
        return find_journal_id(self._directory)

    @property
    def first_lsns(self) -> list[int]:
        """The first LSN of each segment that `entries` shows, ascending. Reads no file."""
        names = self._directory.names()
        return [name.first_lsn for name in _shown(segment_names(names), checkpoint_lsns(names))]

    @property
    def last_lsn(self) -> int:
        """The LSN of the last entry that `entries` shows now, 0 before there is one. Reads only
        the newest segment; if nothing in that is whole, the LSN that it goes on from."""
        last_lsn = max(self.first_lsns, default=1) - 1
        with suppress(CorruptionError):  # entries() raises it, after what is good before it
            for batch in readable(self._directory, last_lsn):
                last_lsn = batch.last_lsn
        return last_lsn

    def entries(self, after: int | None = None, *, follow: bool = False) -> Iterator[Entry]:
        """Entries after LSN `after` (None: all that are kept), in order.

        With `follow` it goes on for ever, across rolls, restarts and compaction of a live
        writer, a few hundredths of a second behind it. Raises CompactedError if `after` is
        older than what is kept, CorruptionError where the log is damaged, after what is good
        before it.
        """
        if after is not None and after < 0:
            raise ValueError(f"after must be an LSN, or 0, not {after}")
        tail = _Tail(self._directory, after)
        while True:
            for batch in tail.advance():
                for lsn, record in enumerate(batch.records, batch.first_lsn):
                    yield Entry(
                        lsn, batch.epoch, batch.written_at_ns, record, batch.offset, batch.path
                    )
            if tail.at_end:
                if not follow:
                    return
                time.sleep(_POLL_S)

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
        return [info for info, _ in survey(self._directory)]

    def verify(self) -> Iterator[Finding]:
        """Look at every segment, record and checkpoint, needed for recovery or not."""
        return verify(self._directory)


class _Tail:
    """Where a reader stands in the log: an LSN, and in a segment the place of its frame."""

    def __init__(self, directory: Directory, after: int | None) -> None:
        self._directory = directory
        self._next_lsn = None if after is None else after + 1
        self._name: SegmentName | None = None
        self._walk = Walk(directory, 0, 0)
        # What must be read again before it is called damage.
        self._doubt: tuple[str, int, int] | None = None
        self.at_end = False  # nothing more is to be had now

    def advance(self) -> Iterator[Batch]:
        """What is to be had from where it stands to the end of this segment."""
        live = self._directory.lock_holder() is not None  # asked before anything is read
        names = self._directory.names()
        segments, lsns = segment_names(names), checkpoint_lsns(names)
        if self._next_lsn is None and segments:
            self._next_lsn = _shown(segments, lsns)[0].first_lsn
        if self._next_lsn is None or not segments:
            self.at_end = True
            return
        name, after = _find(segments, self._next_lsn)
        with _open(self._directory, name, self._next_lsn) as segment:
            self._enter(segment)
            limit_lsn, error = None, None
            if not after:
                limit_lsn, error = self._probe(segment, live, max(lsns, default=0))
            yield from self._read(segment, after, limit_lsn)
            if after:
                self._walk.leave(after)
                self._next_lsn = max(self._next_lsn, after.first_lsn)
            if error:
                raise error
            self.at_end = not after and self._doubt is None

    def _enter(self, segment: Segment) -> None:
        if segment.name != self._name:
            journal_id = self._walk.journal_id
            self._name, first_lsn = segment.name, segment.name.first_lsn
            self._walk = Walk(self._directory, first_lsn - 1, first_lsn - 1)
            self._walk.journal_id = journal_id
            self._walk.enter(segment)

    def _probe(
        self, segment: Segment, live: bool, evidence: int
    ) -> tuple[int, CorruptionError | None]:
        """Up to which LSN the last segment may be shown, and what is wrong with what follows."""
        probe = copy(self._walk)
        probe.evidence = max(probe.evidence, evidence)
        for _ in probe.frames(segment, None):
            pass
        limit_lsn = probe.next_lsn - 1
        if live and not segment.header.flags & FLAG_OS:
            limit_lsn = min(limit_lsn, probe.evidence)
        doubt, self._doubt = self._doubt, None
        try:
            probe.finish()
        except CorruptionError as error:
            if doubt == (error.path, error.offset, error.lsn):
                return limit_lsn, error
            self._doubt = (error.path, error.offset, error.lsn)
        return limit_lsn, None

    def _read(
        self, segment: Segment, after: SegmentName | None, limit_lsn: int | None
    ) -> Iterator[Batch]:
        walk = self._walk
        assert self._next_lsn is not None
        if limit_lsn is not None and walk.next_lsn > limit_lsn:
            return
        for found, header in walk.frames(segment, after):
            if walk.next_lsn > self._next_lsn:
                yield decode(found, header, segment).after(self._next_lsn - 1)
                self._next_lsn = walk.next_lsn
            if limit_lsn is not None and walk.next_lsn > limit_lsn:
                return
