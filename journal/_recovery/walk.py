"""Walk: the rule that decides which frames belong to the log, and where the log ends.

Source: journal/docs/FORMAT.md, "Recovery".

Everything that reads the log uses this module. A walk goes over the segments in the order of the
log, yields the records that recovery keeps, and gathers evidence. In the end it states where the
log ends, or why the log can't be trusted. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import NamedTuple, Self

from journal._format import frame
from journal._format.layout import (
    FRAME_HEADER_BYTES,
    LSN_MAX,
    SEGMENT_HEADER_BYTES,
    WRITTEN_AT,
    WRITTEN_AT_OFFSET,
)
from journal._format.packed_records import read_spans
from journal._format.record import UNPACKING, Record, Span
from journal._format.segment import (
    FrameRun,
    FrameState,
    ScannedFrame,
    Segment,
    SegmentName,
)
from journal._mutex import is_raised_by_call
from journal._recovery.covered_damage import Hole, find_resumption, is_resumption
from journal._recovery.stray_segments import foreign_segment
from journal.errors import CorruptionError, DamageReason

_WRITTEN_AT = WRITTEN_AT_OFFSET - FRAME_HEADER_BYTES  # relative to the beginning of the payload

# A function that unpacks payloads: `read_spans` returns their records, `check_spans` only checks
# them and returns none.
Reading = Callable[[bytes, list[Span]], Sequence[Record]]


class ReplayBatch(NamedTuple):
    """The records of a run of whole frames in the segment `path`, of `epoch`."""

    path: str
    epoch: int
    run: FrameRun
    records: Sequence[Record]

    @property
    def first_lsn(self) -> int:
        return self.run.first_lsn

    @property
    def last_lsn(self) -> int:
        return self.run.next_lsn - 1

    @property
    def filler_lsn(self) -> int:
        """The LSN of the filler with which the batch begins, or 0 if it begins with none."""
        run = self.run
        is_first = run.offset == SEGMENT_HEADER_BYTES
        return run.first_lsn if is_first and frame.is_filler(run.data) else 0

    def numbered(self) -> Iterator[tuple[int, Record]]:
        """Yield the LSN and the value of each record that an owner has appended: not a filler."""
        filler_lsn = self.filler_lsn
        for lsn, record in enumerate(self.records, self.first_lsn):
            if lsn != filler_lsn:
                yield lsn, record

    @property
    def written_at_ns(self) -> int:
        """The time at which the last frame was written, in Unix nanoseconds."""
        return self._written_at_ns(self.run.spans[-1][0])

    def frames(self) -> Iterator[tuple[int, int, int, Sequence[Record]]]:
        """Yield, for each frame of the batch, its offset, the time at which it was written (Unix
        nanoseconds), its first LSN, and its records."""
        lsn, records, begin = self.run.first_lsn, self.records, 0
        for start, _, count in self.run.spans:
            of_frame = records[begin : begin + count] if count < len(records) else records
            yield self._offset(start), self._written_at_ns(start), lsn, of_frame
            lsn, begin = lsn + count, begin + count

    def offset_of(self, lsn: int) -> int:
        """Return the offset of the frame that holds `lsn`."""
        next_lsn = self.run.next_lsn
        for start, _, count in reversed(self.run.spans):
            next_lsn -= count
            if next_lsn <= lsn:
                return self._offset(start)
        return self.run.offset

    def after(self, lsn: int) -> ReplayBatch:
        """Return the batch without the records up to `lsn`, which must be in the first frame."""
        skip = max(0, lsn + 1 - self.run.first_lsn)
        if not skip:
            return self
        (start, end, count), *rest = self.run.spans
        run = self.run._replace(first_lsn=lsn + 1, spans=[(start, end, count - skip), *rest])
        return self._replace(run=run, records=self.records[skip:])

    def _offset(self, payload_start: int) -> int:
        return self.run.offset + payload_start - FRAME_HEADER_BYTES

    def _written_at_ns(self, payload_start: int) -> int:
        at_ns: int = WRITTEN_AT.unpack_from(self.run.data, payload_start + _WRITTEN_AT)[0]
        return at_ns


class Walk:
    """A walk over the segments that matter, oldest first.

    `next_lsn` is the LSN that is due, and `evidence` the highest LSN that anything proves to have
    been durable. The other fields are about the segment entered last. `end` is the offset at which
    its good frames end, and `marked` is true if a mark begins there, over which the next frame is
    written. `damage` is the error for the first piece that is not part of the log. `dead_offset` is
    the offset of the first dead bytes, if the next segment cut this one. `resumes_lsn` is the first
    LSN of the first whole frame or mark after the damage, or 0.

    `holes` are the damaged places that were passed over, because the checkpoint at `covered_lsn`
    covers them. A walk that begins without a checkpoint passes over nothing.
    """

    def __init__(
        self,
        path: str,
        evidence: int,
        journal_id: bytes | None = None,
        epoch: int = 0,
        next_lsn: int = 1,
        covered_lsn: int = 0,
    ) -> None:
        """Prepare a walk over the directory `path`, from `next_lsn` on.

        `journal_id` (None: any) and `epoch` are those of the log before `next_lsn`.
        `covered_lsn`: the LSN of the checkpoint that holds the state of the log before it.
        """
        self.evidence = evidence
        self.next_lsn = next_lsn
        self.epoch = epoch
        self.journal_id = journal_id
        self.damage: CorruptionError | None = None
        self.path = path
        self.end = 0
        self.marked = False
        self.dead_offset: int | None = None
        self.covered_lsn = covered_lsn
        self.holes: list[Hole] = []
        self.resumes_lsn = 0
        self._bytes_before = 0

    @classmethod
    def at(
        cls,
        segment: Segment,
        evidence: int = 0,
        journal_id: bytes | None = None,
        epoch: int = 0,
        covered_lsn: int = 0,
    ) -> Self:
        """Return a walk that begins with `segment`, whatever the log before it holds.

        `journal_id` (None: any) and `epoch` are those of the segment before it. `covered_lsn`: the
        LSN up to which damage is passed over.
        """
        first_lsn = segment.name.first_lsn
        return cls(segment.file.path, evidence, journal_id, epoch, first_lsn, covered_lsn)

    def branch(self, evidence: int = 0) -> Walk:
        """Return an independent copy of the walk, which also knows this `evidence`."""
        branch = copy(self)
        branch.evidence = max(self.evidence, evidence)
        return branch

    @property
    def log_bytes(self) -> int:
        """The size of the log that the walk has covered so far, in bytes."""
        return self._bytes_before + self.end

    def enter(self, segment: Segment) -> None:
        """Continue with `segment`. Raises CorruptionError if it does not belong there."""
        header, self.path = segment.header, segment.file.path
        self._bytes_before, self.end = self.log_bytes, SEGMENT_HEADER_BYTES
        if self.journal_id not in (None, header.journal_id):
            raise foreign_segment(self.path, header.journal_id)
        if header.epoch < self.epoch:
            problem = f"the segment's epoch {header.epoch} can't follow epoch {self.epoch}"
            reason = DamageReason.EPOCH_ORDER
            raise CorruptionError(self.path, 12, header.first_lsn, problem, reason=reason)
        if self.epoch == 0:
            self.next_lsn = header.first_lsn
        self.journal_id, self.epoch = header.journal_id, header.epoch

    def batches(
        self,
        segment: Segment,
        after: SegmentName | None,
        *,
        after_lsn: int = 0,
        limit_lsn: int | None = None,
        read: Reading = read_spans,
    ) -> Iterator[ReplayBatch]:
        """Yield the records after `after_lsn` in the segment entered last, from `end` on.

        `after`: the next segment, where the log of this one ends. `limit_lsn`: stop after the frame
        that holds this LSN. With None, continue to the end of the log, and gather the evidence in
        everything after it. Raises CorruptionError for anything that no crash leaves.
        """
        cut_lsn = after.first_lsn - 1 if after else LSN_MAX
        cut_lsn = cut_lsn if limit_lsn is None else min(cut_lsn, limit_lsn)
        self.pass_over(segment, min(after_lsn, cut_lsn))
        for run in segment.runs(self.end, self.next_lsn, cut_lsn):
            try:
                records = read(run.data, run.spans)
            except ValueError as error:
                if not is_raised_by_call(error, *UNPACKING):
                    raise
                break  # the scan below finds the frame to blame
            self._advance(run)
            yield _replay_batch(segment, run, records).after(after_lsn)
            del records  # free the memory before the next run is read: each may be one large frame
        if limit_lsn is not None and self.next_lsn > limit_lsn:
            return
        for scanned in self.frames(segment, after):
            if self.next_lsn > after_lsn + 1:
                yield decode(scanned, segment, read).after(after_lsn)
            if limit_lsn is not None and self.next_lsn > limit_lsn:
                return

    def skip_frames(self, segment: Segment, limit_lsn: int = LSN_MAX) -> Iterator[Walk]:
        """Pass over the whole frames up to `limit_lsn`, and yield the walk after each run of them.
        Their records are not unpacked."""
        for run in segment.runs(self.end, self.next_lsn, limit_lsn):
            self._advance(run)
            yield self

    def pass_over(self, segment: Segment, limit_lsn: int = LSN_MAX) -> None:
        """Pass over the frames up to `limit_lsn`, and over damage that the checkpoint covers."""
        while True:
            for _ in self.skip_frames(segment, limit_lsn):
                pass
            if self.next_lsn > self.covered_lsn:
                return
            place = find_resumption(segment, self.end, self.next_lsn, self.covered_lsn)
            if place is None:
                return
            self._resume_at(place)

    def pass_over_damage(self, segment: Segment, limit_lsn: int) -> bool:
        """Pass over the damage at which the walk has stopped, whether a checkpoint covers it or
        not. Return False if no LSN up to `limit_lsn` + 1 can be read after it."""
        place = find_resumption(segment, self.end, self.next_lsn, limit_lsn)
        if place:
            self._resume_at(place)
        return place is not None

    def _resume_at(self, place: ScannedFrame) -> None:
        resumed_lsn = place.header.first_lsn
        self.holes.append(Hole(self.path, self.end, self.next_lsn, resumed_lsn - 1))
        self.end, self.next_lsn = place.offset, resumed_lsn

    def _advance(self, run: FrameRun) -> None:
        self.end, self.next_lsn = run.end, run.next_lsn
        self.evidence = max(self.evidence, run.durable_lsn)

    def read_evidence(self, segment: Segment, data: bytes) -> frame.Header | None:
        """Add the evidence of the header with which `data`, the bytes at `end`, begins.

        Return that header, or None if it is not valid. While the writer replaces a mark by a frame,
        neither may be whole. A second read then finds the frame's header, which states at least as
        much as the mark did.
        """
        header = frame.parse(data, 0, segment.header.seed)
        if header is None or header.broken_rule(self.next_lsn):
            return None
        self.evidence = max(self.evidence, header.durable_lsn)
        return header

    def frames(self, segment: Segment, after: SegmentName | None) -> Iterator[ScannedFrame]:
        """Yield the frames of the log in the segment entered last, from `end` on. Gather the
        evidence in everything after them."""
        self.marked, self.damage, self.dead_offset = False, None, None
        self.resumes_lsn = 0
        for scanned in segment.scan(self.end, self.next_lsn):
            if after and self.next_lsn == after.first_lsn and not self._is_own_mark(scanned):
                # An open after a crash, or a repair, cut the log here: its own segment begins at
                # this LSN. The bytes after the cut were never acknowledged, and are no evidence.
                self.dead_offset = scanned.offset
                return
            if not self.damage:
                self.damage = self._damage(scanned)
            # The pages of a commit may reach the disk in any order, so a crash leaves valid headers
            # after the damage as well as before it. But if one of them states that a lost LSN was
            # durable, the damage did not come from a crash.
            self.evidence = max(self.evidence, scanned.header.durable_lsn)
            if self.damage:
                if not self.resumes_lsn and is_resumption(scanned, self.next_lsn, LSN_MAX):
                    self.resumes_lsn = scanned.header.first_lsn
                continue
            if scanned.state is FrameState.MARK:
                # The log went idle or was closed, and a crash or the close came before another
                # commit.
                self.marked = True
            else:
                self.next_lsn += scanned.header.record_count
                self.end = scanned.end
                yield scanned

    def leave(self, after: SegmentName) -> None:
        """Raise CorruptionError unless `after` continues the log where this segment ends."""
        if self.next_lsn > after.first_lsn:
            # A frame spans that LSN, and every cut lies between two frames. So `after` is a copy,
            # or has a wrong name.
            directory, _, name = self.path.rpartition("/")
            problem = f"the file does not belong here: LSN {after.first_lsn} is in {name}"
            place = f"{directory}/{after}", 0, after.first_lsn
            raise CorruptionError(*place, problem, reason=DamageReason.OUT_OF_PLACE)
        if self.next_lsn != after.first_lsn:
            # A whole frame after the damage may have been cut off, so that `after` begins earlier.
            last_lsn = min(self.resumes_lsn or after.first_lsn, after.first_lsn) - 1
            problem = f"{describe_lsns(self.next_lsn, last_lsn)} can't be read"
            if not self.damage:
                problem += f"; the next segment begins at LSN {after.first_lsn}"
            raise self._refusal(problem, DamageReason.GAP, last_lsn=last_lsn)

    def cut_short(self) -> CorruptionError | None:
        """Return an error if the log ends before an LSN that was durable."""
        if self.evidence >= self.next_lsn:
            problem = (
                f"the log ends before LSN {self.next_lsn}, but LSN {self.evidence} was durable"
            )
            last_lsn = self.resumes_lsn - 1 if self.resumes_lsn else None
            if last_lsn is not None:
                problem = f"{describe_lsns(self.next_lsn, last_lsn)} can't be read"
            return self._refusal(problem, DamageReason.END_MISSING, self.evidence, last_lsn)
        return None

    def finish(self) -> None:
        """Raise CorruptionError if durable records are missing at the end of the log, or if no LSN
        is left to continue with."""
        if missing := self.cut_short():
            raise missing
        if self.next_lsn > LSN_MAX:
            last = f"LSN {self.next_lsn - 1}, the last one that the format can number"
            problem = f"the log ends at {last}, so nothing can follow it"
            reason = DamageReason.NUMBERS_EXHAUSTED
            raise CorruptionError(self.path, self.end, self.next_lsn, problem, reason=reason)

    def _is_own_mark(self, scanned: ScannedFrame) -> bool:
        """Return whether `scanned` is the mark with which the segment's own log ends."""
        is_first = scanned.state is FrameState.MARK and not self.marked
        return is_first and scanned.header.broken_rule(self.next_lsn) is None

    def _damage(self, scanned: ScannedFrame) -> CorruptionError | None:
        """Return the damage that a crash may have left here, or None if there is none.

        Raises CorruptionError for damage that no crash leaves.
        """
        if self.marked:
            # The next frame is written over the mark. A crash cut that write short: a later page of
            # the frame reached the disk, while the page of the mark is still the old one.
            problem = "bytes that are not zero follow a mark"
        elif scanned.state is FrameState.GARBAGE:
            # A crash cut the write of a frame short before its header reached the disk.
            problem = "no valid frame begins here"
        elif broken := scanned.header.broken_rule(self.next_lsn):
            # No crash leaves this: the header's CRC proves that it was written that way.
            problem = scanned.header.describe(broken, self.next_lsn)
            reason = DamageReason.FRAME_IMPOSSIBLE
            raise CorruptionError(self.path, scanned.offset, self.next_lsn, problem, reason=reason)
        elif scanned.state is FrameState.DAMAGED_PAYLOAD:
            # A crash cut the write of a frame short after its header reached the disk.
            problem = "the frame's payload is damaged"
        else:
            return None
        reason = DamageReason.FRAME_DAMAGED
        return CorruptionError(self.path, scanned.offset, self.next_lsn, problem, reason=reason)

    def _refusal(
        self,
        problem: str,
        reason: DamageReason,
        durable_lsn: int | None = None,
        last_lsn: int | None = None,
    ) -> CorruptionError:
        if self.damage:
            problem = f"{self.damage.what}; {problem}"
        place = self.path, self.damage.offset if self.damage else self.end, self.next_lsn
        return CorruptionError(
            *place, problem, reason=reason, durable_lsn=durable_lsn, last_lsn=last_lsn
        )


def describe_lsns(first_lsn: int, last_lsn: int) -> str:
    """Return a range of LSNs in words, such as `LSN 4 to 6 (3 records)`."""
    if first_lsn == last_lsn:
        return f"LSN {first_lsn}"
    return f"LSN {first_lsn} to {last_lsn} ({last_lsn - first_lsn + 1} records)"


def decode(scanned: ScannedFrame, segment: Segment, read: Reading = read_spans) -> ReplayBatch:
    """Return the records of a whole frame. Raises CorruptionError if its payload does not hold the
    records that its header counts."""
    run = scanned.run()
    try:
        records = read(run.data, run.spans)
    except ValueError as error:
        if not is_raised_by_call(error, *UNPACKING):
            raise
        problem = f"the frame's payload is whole, but {error}"
        path, reason = segment.file.path, DamageReason.RECORD_UNREADABLE
        raise CorruptionError(path, run.offset, run.first_lsn, problem, reason=reason) from error
    return _replay_batch(segment, run, records)


def _replay_batch(segment: Segment, run: FrameRun, records: Sequence[Record]) -> ReplayBatch:
    return ReplayBatch(segment.file.path, segment.header.epoch, run, records)
