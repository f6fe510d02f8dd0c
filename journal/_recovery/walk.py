"""Walk: which frames of the log count, and where it ends.

Source: journal/docs/FORMAT.md, "Recovery".

This is the rule itself, and the one way to read the log: a walk is led over segments in the order
of the log, yields the records that recovery keeps, gathers evidence, and in the end says where the
log ends or why it can't be trusted. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from journal._format.record import UNPACKING, Record, Span, unpack_spans
from journal._format.segment import (
    FrameRun,
    FrameState,
    ScannedFrame,
    Segment,
    SegmentName,
)
from journal._mutex import is_raised_by_call
from journal.errors import CorruptionError, DamageReason

_WRITTEN_AT = WRITTEN_AT_OFFSET - FRAME_HEADER_BYTES  # from where a payload begins

# Makes the records of payloads, or checks them and returns none: `unpack_spans`, `check_spans`.
Reading = Callable[[bytes, list[Span]], list[Record]]


class ReplayBatch(NamedTuple):
    """The records of a run of whole frames in the segment `path`, of `epoch`."""

    path: str
    epoch: int
    run: FrameRun
    records: list[Record]

    @property
    def first_lsn(self) -> int:
        """The LSN of the first record."""
        return self.run.first_lsn

    @property
    def last_lsn(self) -> int:
        """The LSN of the last record."""
        return self.run.next_lsn - 1

    @property
    def written_at_ns(self) -> int:
        """Return when the last frame was written, in Unix nanoseconds."""
        return self._written_at_ns(self.run.spans[-1][0])

    def frames(self) -> Iterator[tuple[int, int, int, list[Record]]]:
        """Part the batch. Yield the offset of each frame, when it was written (Unix nanoseconds),
        its first LSN, and its records."""
        lsn, records, begin = self.run.first_lsn, self.records, 0
        for start, _, count in self.run.spans:
            its_own = records[begin : begin + count] if count < len(records) else records
            yield self._offset(start), self._written_at_ns(start), lsn, its_own
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
        """Return the batch without the records up to `lsn`, which is in its first frame if any."""
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

    `next_lsn` is the first LSN not yet seen, `evidence` the highest that anything proves to
    have been durable. `damage` is where the last segment stops being a log. `end` is where its
    good frames end, `marked` whether a mark stands there (the next frame is written over it).
    `dead_offset` is where another segment than the last goes on after its cut.
    """

    def __init__(
        self,
        path: str,
        evidence: int,
        journal_id: bytes | None = None,
        epoch: int = 0,
        next_lsn: int = 1,
    ) -> None:
        """`path`: of the directory. `journal_id` (None: any) and `epoch` are what the log had up
        to `next_lsn`."""
        self.evidence = evidence
        self.next_lsn = next_lsn
        self.epoch = epoch
        self.journal_id = journal_id
        self.damage: CorruptionError | None = None
        self.path = path
        self.end = 0
        self.marked = False
        self.dead_offset: int | None = None
        self._bytes_before = 0

    @classmethod
    def at(
        cls,
        segment: Segment,
        evidence: int = 0,
        journal_id: bytes | None = None,
        epoch: int = 0,
    ) -> Self:
        """Return a walk that begins with `segment`, whatever the log before it holds.

        `journal_id` (None: any) and `epoch` are those of the segment before it.
        """
        first_lsn = segment.name.first_lsn
        return cls(segment.file.path, evidence, journal_id, epoch, first_lsn)

    def branch(self, evidence: int = 0) -> Walk:
        """Return a copy that goes on by itself, with this `evidence`, too."""
        branch = copy(self)
        branch.evidence = max(self.evidence, evidence)
        return branch

    @property
    def log_bytes(self) -> int:
        """The size of the log that the walk went over."""
        return self._bytes_before + self.end

    def enter(self, segment: Segment) -> None:
        """Go on with `segment`. Raises CorruptionError if it does not belong there."""
        header, self.path = segment.header, segment.file.path
        self._bytes_before, self.end = self.log_bytes, SEGMENT_HEADER_BYTES
        if self.journal_id not in (None, header.journal_id):
            its_id = header.journal_id.hex()
            what, place = f"a segment of another journal, {its_id}", (self.path, 16)
            raise CorruptionError(
                *place, header.first_lsn, what, reason=DamageReason.FOREIGN, journal_id=its_id
            )
        if header.epoch < self.epoch:
            what = f"epoch {header.epoch} behind epoch {self.epoch}"
            reason = DamageReason.EPOCH_ORDER
            raise CorruptionError(self.path, 12, header.first_lsn, what, reason=reason)
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
        read: Reading = unpack_spans,
    ) -> Iterator[ReplayBatch]:
        """Yield the records after `after_lsn` in the segment that was entered last, from `end` on.

        `after` is the segment after it, where its log ends. Stops after the frame of `limit_lsn`;
        with None it goes on to the end of the log, and looks at everything that stands after that.
        Raises CorruptionError for what no crash leaves.
        """
        cut_lsn = after.first_lsn - 1 if after else LSN_MAX
        cut_lsn = cut_lsn if limit_lsn is None else min(cut_lsn, limit_lsn)
        for _ in self.skip_frames(segment, min(after_lsn, cut_lsn)):
            pass
        for run in segment.runs(self.end, self.next_lsn, cut_lsn):
            try:
                records = read(run.data, run.spans)
            except ValueError as error:
                if not is_raised_by_call(error, *UNPACKING):
                    raise
                break  # what follows finds the frame that is to blame
            self._advance(run)
            yield _replay_batch(segment, run, records).after(after_lsn)
            del records  # before the next run is read: each may be one large frame
        if limit_lsn is not None and self.next_lsn > limit_lsn:
            return
        for scanned in self.frames(segment, after):
            if self.next_lsn > after_lsn + 1:
                yield decode(scanned, segment, read).after(after_lsn)
            if limit_lsn is not None and self.next_lsn > limit_lsn:
                return

    def skip_frames(self, segment: Segment, limit_lsn: int = LSN_MAX) -> Iterator[Walk]:
        """Go over the whole frames up to `limit_lsn`, and yield after each run of them. Their
        records are not looked at."""
        for run in segment.runs(self.end, self.next_lsn, limit_lsn):
            self._advance(run)
            yield self

    def _advance(self, run: FrameRun) -> None:
        self.end, self.next_lsn = run.end, run.next_lsn
        self.evidence = max(self.evidence, run.durable_lsn)

    def read_evidence(self, segment: Segment, data: bytes) -> frame.Header | None:
        """Take the evidence of the header that `data`, the bytes at `end`, begins with.

        Returns that header, or None if there is none. While a frame replaces a mark, neither may be
        whole: the frame's header then states as much as the mark did.
        """
        header = frame.parse(data, 0, segment.header.seed)
        if header is None or header.broken_rule(self.next_lsn):
            return None
        self.evidence = max(self.evidence, header.durable_lsn)
        return header

    def frames(self, segment: Segment, after: SegmentName | None) -> Iterator[ScannedFrame]:
        """Yield the frames from `end` on, in the segment that was entered last, up to where its log
        ends. Gather the evidence of everything after that."""
        self.marked, self.damage, self.dead_offset = False, None, None
        for scanned in segment.scan(self.end, self.next_lsn):
            if after and self.next_lsn == after.first_lsn and not self._is_own_mark(scanned):
                # An opening after a crash, or a repair, cut the log here: its own segment begins at
                # this LSN. What stands here was never acknowledged, and proves nothing.
                self.dead_offset = scanned.offset
                return
            if not self.damage:
                self.damage = self._damage(scanned)
            # A commit may reach the disk in any order, so a crash leaves valid headers after the
            # damage as well as before it. If one of them states that a lost LSN was durable, then
            # this was no crash.
            self.evidence = max(self.evidence, scanned.header.durable_lsn)
            if self.damage:
                continue
            if scanned.state is FrameState.MARK:
                # The log fell idle, or was closed; a crash or the close came before another commit.
                self.marked = True
            else:
                self.next_lsn += scanned.header.record_count
                self.end = scanned.end
                yield scanned

    def leave(self, after: SegmentName) -> None:
        """Raise CorruptionError unless `after` goes on where this segment ends."""
        if self.next_lsn != after.first_lsn:
            what = f"LSN {self.next_lsn} is missing, the next segment begins at {after[0]}"
            raise self._refusal(what, DamageReason.GAP)

    def cut_short(self) -> CorruptionError | None:
        """Return the error of a log that ends before something that was durable, if it does."""
        if self.evidence >= self.next_lsn:
            what = f"the log ends before LSN {self.next_lsn}, but {self.evidence} was durable"
            return self._refusal(what, DamageReason.END_MISSING, self.evidence)
        return None

    def finish(self) -> None:
        """Raise CorruptionError if what was durable is missing at the end of the log, or if it
        leaves no LSN to go on with."""
        if missing := self.cut_short():
            raise missing
        if self.next_lsn > LSN_MAX:
            last = f"LSN {self.next_lsn - 1}, the last that the format can number"
            what = f"the log ends at {last}, so nothing can follow it"
            reason = DamageReason.NUMBERS_EXHAUSTED
            raise CorruptionError(self.path, self.end, self.next_lsn, what, reason=reason)

    def _is_own_mark(self, scanned: ScannedFrame) -> bool:
        """Return whether `scanned` is the mark that the segment itself ends with."""
        is_first = scanned.state is FrameState.MARK and not self.marked
        return is_first and scanned.header.broken_rule(self.next_lsn) is None

    def _damage(self, scanned: ScannedFrame) -> CorruptionError | None:
        """Return the damage that a crash may have left here, None if there is none.

        Raises CorruptionError for what no crash leaves.
        """
        if self.marked:
            # The next frame is written over the mark. A crash cut that write short: the page of
            # the mark is still the old one, while a later page of the frame reached the disk.
            what = "something stands behind a mark"
        elif scanned.state is FrameState.GARBAGE:
            # A crash cut the write of a frame short before its header was on the disk.
            what = "no frame stands here"
        elif broken := scanned.header.broken_rule(self.next_lsn):
            # No crash does this: the header's CRC proves that it was written like that.
            what = scanned.header.describe(broken, self.next_lsn)
            reason = DamageReason.FRAME_IMPOSSIBLE
            raise CorruptionError(self.path, scanned.offset, self.next_lsn, what, reason=reason)
        elif scanned.state is FrameState.DAMAGED_PAYLOAD:
            # A crash cut the write of a frame short after its header was on the disk.
            what = "a frame's payload is damaged"
        else:
            return None
        reason = DamageReason.FRAME_DAMAGED
        return CorruptionError(self.path, scanned.offset, self.next_lsn, what, reason=reason)

    def _refusal(
        self, what: str, reason: DamageReason, durable_lsn: int | None = None
    ) -> CorruptionError:
        if self.damage:
            what = f"{self.damage.what}; {what}"
        place = self.path, self.damage.offset if self.damage else self.end, self.next_lsn
        return CorruptionError(*place, what, reason=reason, durable_lsn=durable_lsn)


def decode(scanned: ScannedFrame, segment: Segment, read: Reading = unpack_spans) -> ReplayBatch:
    """Return the batch that a whole frame is. Raises CorruptionError if its records are not what
    its header says."""
    run = scanned.run()
    try:
        records = read(run.data, run.spans)
    except ValueError as error:
        if not is_raised_by_call(error, *UNPACKING):
            raise
        what = f"a frame whose payload is whole, but {error}"
        path, reason = segment.file.path, DamageReason.RECORD_UNREADABLE
        raise CorruptionError(path, run.offset, run.first_lsn, what, reason=reason) from error
    return _replay_batch(segment, run, records)


def _replay_batch(segment: Segment, run: FrameRun, records: list[Record]) -> ReplayBatch:
    return ReplayBatch(segment.file.path, segment.header.epoch, run, records)
