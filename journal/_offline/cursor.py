"""Cursor: a reader's position in the log, and the records that can be read from there.

The end of a live log moves, so bytes there that don't parse may just be unfinished. They count as
damage only if they are still bad when they are read again, after the evidence was gathered.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import NoReturn

from journal import _time as time
from journal._disk.disk import Directory
from journal._format.checkpoint import checkpoint_lsns, floor_lsn
from journal._format.layout import FLAG_OS, FRAME_HEADER_BYTES, MARK
from journal._format.packed_records import read_spans
from journal._format.segment import (
    Segment,
    SegmentName,
    is_zero,
    segment_names,
    segments_after,
)
from journal._recovery.checkpoints import Checkpoints, read_proofs
from journal._recovery.stray_segments import Identity, blamed
from journal._recovery.walk import Reading, ReplayBatch, Walk
from journal.errors import CompactedError, CorruptionError

_PEEK_BYTES = 1 << 14
_PREALLOCATED_POLL_S = 1.0  # between two scans of all the space allocated ahead of a live log


def locate(segments: list[SegmentName], lsn: int) -> tuple[SegmentName, SegmentName | None]:
    """Return the segment that holds `lsn`, or that will hold it, and the next segment if any."""
    begun = bisect_right(segments, lsn, key=attrgetter("first_lsn"))
    if not begun:
        _raise_compacted(lsn, segments)
    following = segments[begun : begun + 1]
    return segments[begun - 1], following[0] if following else None


def kept_segments(segments: list[SegmentName], checkpoints: list[int]) -> list[SegmentName]:
    """Return the segments that every writer keeps.

    The others are leftovers of an interrupted removal, or belong to a writer that keeps more
    checkpoints. They may have gaps, so they are read only if they are requested by LSN.
    """
    return segments_after(segments, floor_lsn(checkpoints))


def open_segment(directory: Directory, name: SegmentName, lsn: int) -> Segment:
    try:
        return Segment(directory, name)
    except FileNotFoundError:
        _raise_compacted(lsn, segment_names(directory.names()))


def _raise_compacted(lsn: int, segments: list[SegmentName]) -> NoReturn:
    first_lsn = segments[0].first_lsn if segments else 0
    raise CompactedError(
        f"LSN {lsn} is no longer kept; the oldest LSN that is kept is {first_lsn}; "
        "start from a checkpoint, and read the records after it",
        first_lsn,
        lsn=lsn,
    )


class LogCursor:
    """A reader's position in the log: the next LSN, and the place of its frame in a segment.

    With `proven=False`, it reads every whole frame, and the caller decides which are durable.
    """

    def __init__(
        self,
        directory: Directory,
        after: int | None,
        *,
        proven: bool = True,
        read: Reading = read_spans,
    ) -> None:
        self._directory = directory
        self._proven = proven
        self._read = read
        self._next_lsn = None if after is None else after + 1
        # The files as they were last listed. Once the cursor is in the last of these segments, they
        # are listed again.
        self._segments: list[SegmentName] = []
        self._checkpoint_lsns: list[int] = []
        self._checkpoints = Checkpoints(directory, [])
        self._live = False
        self._name: SegmentName | None = None
        self._journal_id: bytes | None = None  # of the log, not of the segment that is read first
        self._walk = Walk(directory.path, 0)
        # Walks that are further on in the same segment. Every frame up to each of them is whole.
        self._ahead: list[Walk] = []
        self._checked_at_s = 0.0
        self._is_partly_proven = False  # True if the last probe found more than can be read
        # The place of bytes that look damaged. They are read again before they count as damage.
        self._suspect_place: tuple[str, int, int] | None = None
        self.at_end = False  # True if no more records can be read now

    def last_lsn(self) -> int:
        """Return the LSN of the last record that can be read now. Reads only the newest segment."""
        live = self._directory.lock_holder() is not None
        names = self._directory.names()
        segments = segment_names(names)
        if not segments:
            return 0
        name = segments[-1]
        try:
            with open_segment(self._directory, name, name.first_lsn) as segment:
                self._enter(segment)
                checkpoints = read_proofs(self._directory, checkpoint_lsns(names))
                lsn = self._probe(segment, live, checkpoints)[0]
            return self.last_lsn() if self._is_followed(name) else lsn
        except CorruptionError:  # advance() raises it, after it has yielded the good records
            return name.first_lsn - 1

    def seek_last(self, count: int) -> None:
        """Skip all but the last `count` records, without reading the segments before them."""
        names = self._directory.names()
        kept = kept_segments(segment_names(names), checkpoint_lsns(names))
        if kept:
            begin = kept[0].first_lsn if self._next_lsn is None else self._next_lsn
            self._next_lsn = max(begin, self.last_lsn() + 1 - count)

    def advance(self) -> Iterator[ReplayBatch]:
        """Yield the batches that can be read from the current position to the segment's end.

        Set `at_end`. Raises CorruptionError, after the good records before the damage, and
        CompactedError.
        """
        try:
            yield from self._advance()
        except CorruptionError as error:
            following = [name for name in self._segments if self._name and name >= self._name]
            raise blamed(self._directory, following, error) from error

    def _advance(self) -> Iterator[ReplayBatch]:
        if not self._segments or self._is_in_last_segment():
            self._list_files()
        segments, evidence = self._segments, self._checkpoints.evidence
        if self._next_lsn is None and segments:
            self._next_lsn = kept_segments(segments, self._checkpoint_lsns)[0].first_lsn
        if not segments and evidence:
            self._check_log_exists(evidence)
            return
        if self._next_lsn is None or not segments:
            self.at_end = True
            return
        name, after = locate(segments, self._next_lsn)
        with open_segment(self._directory, name, self._next_lsn) as segment:
            self._enter(segment)
            self._skip(segment)
            limit_lsn, error = None, None
            if not after:
                limit_lsn, error = self._probe(segment, self._live, self._checkpoints)
                if self._is_followed(name):
                    self.at_end = False  # now all of this segment can be read
                    return
            after_lsn = self._next_lsn - 1
            batches = self._walk.batches(
                segment, after, after_lsn=after_lsn, limit_lsn=limit_lsn, read=self._read
            )
            for batch in batches:
                self._next_lsn = batch.last_lsn + 1
                yield batch
                del batch  # free the memory before the next batch: each may be one large frame
            if after:
                self._check_kept(name, after)
                self._walk.leave(after)
                self._next_lsn = max(self._next_lsn, after.first_lsn)
            if error:
                raise error
            self.at_end = not after and self._suspect_place is None

    def _check_kept(self, name: SegmentName, after: SegmentName) -> None:
        """Raise CompactedError if what follows a segment is gone, and checkpoints cover it: the
        segment is a leftover, such as a follower has that went on from a checkpoint. Its mark may
        be removed while it is looked for, which looks like damage at the end."""
        assert self._next_lsn is not None
        is_gap = self._walk.next_lsn < after.first_lsn and not self._walk.resumes_lsn
        if is_gap and name not in (kept := kept_segments(self._segments, self._checkpoint_lsns)):
            _raise_compacted(self._walk.next_lsn, kept)

    def _is_in_last_segment(self) -> bool:
        return self._next_lsn is None or self._next_lsn >= self._segments[-1].first_lsn

    def _list_files(self) -> None:
        self._live = self._directory.lock_holder() is not None  # determined before any read
        names = self._directory.names()
        self._segments, lsns = segment_names(names), checkpoint_lsns(names)
        if lsns != self._checkpoint_lsns:
            self._checkpoint_lsns, self._checkpoints = lsns, read_proofs(self._directory, lsns)

    def _check_log_exists(self, evidence: int) -> None:
        """Raise CorruptionError if a second look finds no segment either.

        The last segment is never removed, so then it is lost.
        """
        place = (self._directory.path, 0, 1)
        if self._suspect_place == place:
            Walk(self._directory.path, evidence).finish()
        self._suspect_place = place

    def _enter(self, segment: Segment) -> None:
        if segment.name != self._name:
            is_later = self._name is not None and self._name < segment.name
            if self._journal_id is None:
                names = segment_names(self._directory.names())
                self._journal_id = Identity(self._directory, names).journal_id
            before = self._journal_id or None, self._walk.epoch if is_later else 0
            self._name = segment.name
            # Damage before the first entry that is wanted is no reason not to read that entry.
            covered_lsn = self._next_lsn - 1 if self._next_lsn else 0
            self._walk = Walk.at(segment, segment.name.first_lsn - 1, *before, covered_lsn)
            self._ahead, self._checked_at_s = [], 0.0
            self._walk.enter(segment)

    def _skip(self, segment: Segment) -> None:
        """Move the walk past the frames that were read already, or that are not wanted."""
        assert self._next_lsn is not None
        for walk in self._ahead:
            if self._walk.next_lsn < walk.next_lsn <= self._next_lsn:
                self._walk = walk
        self._walk.pass_over(segment, self._next_lsn - 1)

    def _probe(
        self, segment: Segment, live: bool, checkpoints: Checkpoints
    ) -> tuple[int, CorruptionError | None]:
        """Return the LSN up to which the last segment can be read, and the damage after it.

        Damage is returned only when it is found at the same place for the second time.
        """
        self._ahead = [walk for walk in self._ahead if walk.next_lsn > self._walk.next_lsn]
        probe = (self._ahead or [self._walk])[-1].branch(checkpoints.evidence)
        self._ahead.extend(walk.branch() for walk in probe.skip_frames(segment))
        damage: CorruptionError | None = None
        try:
            if not (live and self._was_checked_lately() and _has_no_frame_ahead(probe, segment)):
                for _ in probe.frames(segment, None):
                    pass
            if live and probe.damage:
                probe.read_evidence(segment, segment.file.read(FRAME_HEADER_BYTES, probe.end))
            probe.finish()
            damage = checkpoints.past_end(probe.next_lsn)
        except CorruptionError as error:
            damage = error
        last_lsn = limit_lsn = probe.next_lsn - 1
        if self._proven and live and not segment.header.flags & FLAG_OS:
            limit_lsn = min(last_lsn, probe.evidence)
        self._is_partly_proven = limit_lsn < last_lsn
        known_place, self._suspect_place = self._suspect_place, None
        if damage and known_place != (place := (damage.path, damage.offset, damage.lsn)):
            self._suspect_place, damage = place, None
        return limit_lsn, damage

    def _is_followed(self, name: SegmentName) -> bool:
        """Return whether another segment has come after the one that was probed, whose name proves
        all before it. A follower has removed the mark then, which proved the last records."""
        if not self._is_partly_proven:
            return False
        self._list_files()
        return bool(self._segments) and self._segments[-1] > name

    def _was_checked_lately(self) -> bool:
        """Return whether all preallocated space was scanned within `_PREALLOCATED_POLL_S`. If not,
        the caller scans it now."""
        now_s, then_s = time.monotonic(), self._checked_at_s
        if is_due := now_s >= then_s + _PREALLOCATED_POLL_S:
            self._checked_at_s = now_s
        return not is_due


def _has_no_frame_ahead(walk: Walk, segment: Segment) -> bool:
    """Return whether only a mark and zeros are in sight. Add the mark's evidence to the walk."""
    data = segment.file.read(_PEEK_BYTES, walk.end)
    header = walk.read_evidence(segment, data)
    if header and header.kind == MARK:
        data = data[FRAME_HEADER_BYTES:]
    return is_zero(data)
