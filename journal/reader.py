"""Reader: a journal seen from outside. Takes no lock, maps no file, writes nothing.

Of a dead journal it shows what recovery would keep. Of a live one it shows what a durable LSN
in the log covers (in "os" durability every whole frame): the end of the log is moving, so bytes
that don't parse there are not finished rather than damaged, and damage is only what is still
bad when it is read again after the evidence against it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import copy
from typing import NoReturn

from journal import frame
from journal.checkpoint import (
    BadCheckpointError,
    Checkpoint,
    checkpoint_lsns,
    read_application,
    read_checkpoint,
)
from journal.errors import CompactedError, CorruptionError, FormatVersionError, JournalError
from journal.options import PAYLOAD_BYTES_MAX
from journal.posix import PosixDisk
from journal.record import Entry
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
from journal.verify import Finding, FrameInfo, find_journal_id, frames, survey, verify
from journal.walk import Batch, Walk, decode

_POLL_S = 0.02
_LEAP_BYTES = 1 << 18
_PEEK_BYTES = 1 << 14
_LOOK_S = 1.0  # between two looks at all that was allocated ahead of a live log
_LSN_MAX = 1 << 64


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
    def application(self) -> str | None:
        """Whose journal it is, as the newest checkpoint that has a first line says in it; None
        without one. Reads no more than that, so it need not verify."""
        for lsn in reversed(checkpoint_lsns(self._directory.names())):
            with suppress(BadCheckpointError, FormatVersionError, FileNotFoundError):
                return read_application(self._directory, lsn)
        return None

    @property
    def first_lsns(self) -> list[int]:
        """The first LSN of each segment that `entries` shows, ascending. Reads no file."""
        names = self._directory.names()
        return [name.first_lsn for name in _shown(segment_names(names), checkpoint_lsns(names))]

    @property
    def last_lsn(self) -> int:
        """The LSN of the last entry that `entries` shows now, 0 before there is one. Reads only
        the newest segment; if nothing in that is whole, the LSN that it goes on from."""
        return _Tail(self._directory, None).last_lsn()

    def entries(
        self,
        after: int | None = None,
        *,
        last: int | None = None,
        follow: bool = False,
        wait: Callable[[], object] | None = None,
    ) -> Iterator[Entry]:
        """Entries after LSN `after` (None: all that are kept), in order; of them the `last` ones
        (None: all), for which the segments before them are not read.

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
        tail = _Tail(self._directory, after)
        if last is not None:
            tail.go_to_last(last)
        while True:
            for batch in tail.advance():
                for lsn, record in enumerate(batch.records, batch.first_lsn):
                    yield Entry(
                        lsn, batch.epoch, batch.written_at_ns, record, batch.offset, batch.path
                    )
            if tail.at_end:
                if not follow:
                    return
                (wait or _sleep)()

    def frames(self, after: int | None = None) -> Iterator[FrameInfo]:
        """What stands in the segments, whether the log goes through it or not, in the order of
        the files; without frames that hold nothing after LSN `after`."""
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
        return [info for info, _ in survey(self._directory)]

    def verify(
        self, *, from_lsn: int = 1, progress: Callable[[int], object] | None = None
    ) -> Iterator[Finding]:
        """Look at every segment, record and checkpoint, needed for recovery or not.

        `from_lsn`: leave out the segments that end before it. `progress` is told the bytes that
        were looked at since it was last called.
        """
        return verify(self._directory, from_lsn, progress or _ignore)


def _sleep() -> None:
    time.sleep(_POLL_S)


def _ignore(size_bytes: int) -> None:
    pass


class _Tail:
    """Where a reader stands in the log: an LSN, and in a segment the place of its frame."""

    def __init__(self, directory: Directory, after: int | None) -> None:
        self._directory = directory
        self._next_lsn = None if after is None else after + 1
        self._name: SegmentName | None = None
        self._walk = Walk(directory, 0, 0)
        # Further on in the same segment, where all up to there is known to be whole.
        self._ahead: list[Walk] = []
        self._looked_at_s = 0.0
        # What must be read again before it is called damage.
        self._doubt: tuple[str, int, int] | None = None
        self.at_end = False  # nothing more is to be had now

    def last_lsn(self) -> int:
        """That of the last entry that is to be had, told from the newest segment alone."""
        live = self._directory.lock_holder() is not None
        names = self._directory.names()
        segments = segment_names(names)
        if not segments:
            return 0
        name = segments[-1]
        try:
            with _open(self._directory, name, name.first_lsn) as segment:
                self._enter(segment)
                evidence = max(checkpoint_lsns(names), default=0)
                return self._probe(segment, live, evidence)[0]
        except CorruptionError:  # advance() raises it, after what is good before it
            return name.first_lsn - 1

    def go_to_last(self, count: int) -> None:
        """Stand in front of the last `count` entries, or as far back as it may go."""
        names = self._directory.names()
        shown = _shown(segment_names(names), checkpoint_lsns(names))
        if shown:
            begin = shown[0].first_lsn if self._next_lsn is None else self._next_lsn
            self._next_lsn = max(begin, self.last_lsn() + 1 - count)

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
            self._skip(segment, after)
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
            self._ahead, self._looked_at_s = [], 0.0
            self._walk.enter(segment)

    def _skip(self, segment: Segment, after: SegmentName | None) -> None:
        """Go over what is wanted of nobody."""
        assert self._next_lsn is not None
        for walk in self._ahead:
            if self._walk.next_lsn < walk.next_lsn <= self._next_lsn:
                self._walk = walk
        ends = after.first_lsn if after else _LSN_MAX
        for _ in _leap(self._walk, segment, min(self._next_lsn, ends) - 1):
            pass

    def _probe(
        self, segment: Segment, live: bool, evidence: int
    ) -> tuple[int, CorruptionError | None]:
        """Up to which LSN the last segment may be shown, and what is wrong with what follows."""
        self._ahead = [walk for walk in self._ahead if walk.next_lsn > self._walk.next_lsn]
        probe = copy((self._ahead or [self._walk])[-1])
        probe.evidence = max(probe.evidence, evidence)
        self._ahead.extend(map(copy, _leap(probe, segment, _LSN_MAX)))
        found: CorruptionError | None = None
        try:
            if not (live and self._looked_lately() and _is_quiet(probe, segment)):
                for _ in probe.frames(segment, None):
                    pass
            probe.finish()
        except CorruptionError as error:
            found = error
        limit_lsn = probe.next_lsn - 1
        if live and not segment.header.flags & FLAG_OS:
            limit_lsn = min(limit_lsn, probe.evidence)
        doubt, self._doubt = self._doubt, None
        if found and doubt != (place := (found.path, found.offset, found.lsn)):
            self._doubt, found = place, None
        return limit_lsn, found

    def _looked_lately(self) -> bool:
        now_s, then_s = time.monotonic(), self._looked_at_s
        if is_due := now_s >= then_s + _LOOK_S:
            self._looked_at_s = now_s
        return not is_due

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


def _leap(walk: Walk, segment: Segment, limit_lsn: int) -> Iterator[Walk]:
    """Lead `walk` over whole frames up to `limit_lsn`, as frames() would, many at a time."""
    size, seed = _LEAP_BYTES, segment.header.seed
    while walk.next_lsn <= limit_lsn:
        asked = max(0, min(size, segment.size - walk.end))
        data = segment.file.read(asked, walk.end)
        length, walk.next_lsn, evidence = frame.leap(data, seed, walk.next_lsn, limit_lsn)
        walk.end += length
        walk.evidence = max(walk.evidence, evidence)
        if length:
            yield walk
            continue
        header = frame.parse(data, 0, seed)
        if not header or len(data) < asked:  # the file may have been trimmed since it was opened
            return
        wanted = frame.HEADER_BYTES + min(header.payload_bytes, PAYLOAD_BYTES_MAX)
        if not asked < wanted <= segment.size - walk.end:
            return
        size = wanted  # a frame larger than that


def _is_quiet(walk: Walk, segment: Segment) -> bool:
    """Whether no more than a mark and zeros is in sight; a mark testifies."""
    data = segment.file.read(_PEEK_BYTES, walk.end)
    header = frame.parse(data, 0, segment.header.seed)
    if header and header.kind == frame.MARK and not header.impossible(walk.next_lsn):
        walk.evidence = max(walk.evidence, header.durable_lsn)
        data = data[frame.HEADER_BYTES :]
    return not data.strip(b"\0")
