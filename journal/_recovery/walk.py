"""Walk: which frames of the log count, and where it ends.

Source: journal/docs/FORMAT.md, "Recovery".

This is the rule itself: a walk is led over segments in the order of the log, yields the frames
that recovery keeps, gathers evidence, and in the end says where the log ends or why it can't be
trusted. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, NoReturn

from journal._disk.disk import LOCK, TMP, Directory
from journal._format import frame
from journal._format.checkpoint import checkpoint_lsns
from journal._format.layout import FRAME_HEADER_BYTES, LSN_MAX, SEGMENT_HEADER_BYTES
from journal._format.record import UNPACKING, Record, Span, unpack, unpack_spans
from journal._format.segment import (
    FrameState,
    Leap,
    ScannedFrame,
    Segment,
    SegmentName,
    segment_names,
)
from journal._mutex import is_raised_by_call
from journal.errors import CorruptionError, DamageReason


class Batch(NamedTuple):
    """A good frame's records; `first_lsn` is the first one's. Or those of many frames, `spans`
    of the bytes from `offset` on; then `written_at_ns` is 0."""

    first_lsn: int
    epoch: int
    written_at_ns: int
    records: list[Record]
    offset: int
    end: int
    path: str
    spans: Sequence[Span] = ()

    @property
    def last_lsn(self) -> int:
        return self.first_lsn + len(self.records) - 1

    def offset_of(self, lsn: int) -> int:
        """Of the frame that holds `lsn`."""
        next_lsn = self.last_lsn + 1
        for start, _, count in reversed(self.spans):
            next_lsn -= count
            if next_lsn <= lsn:
                return self.offset + start - FRAME_HEADER_BYTES
        return self.offset

    def after(self, lsn: int) -> Batch:
        """Without the records up to `lsn`."""
        skip = max(0, lsn + 1 - self.first_lsn)
        if not skip:
            return self
        return self._replace(first_lsn=self.first_lsn + skip, records=self.records[skip:])


Frames = Iterator[ScannedFrame]


class Walk:
    """Led over the segments that matter, oldest first, after the checkpoint at `base_lsn`.

    `next_lsn` is the first LSN not yet seen, `evidence` the highest that anything proves to
    have been durable. `damage` is where the last segment stops being a log. `end` is where its
    good frames end, `marked` whether a mark stands there (the next frame is written over it).
    `dead_offset` is where another segment than the last goes on behind its cut.
    """

    def __init__(self, directory: Directory, base_lsn: int, evidence: int) -> None:
        self.base_lsn = base_lsn
        self.evidence = evidence
        self.next_lsn = 1
        self.epoch = 0
        self.journal_id: bytes | None = None
        self.damage: CorruptionError | None = None
        self.path = directory.path
        self.end = 0
        self.marked = False
        self.dead_offset: int | None = None
        self.log_bytes = 0

    def segment(self, segment: Segment, after: SegmentName | None) -> Frames:
        """The frames of `segment` that the log keeps; `after` is the segment behind it.

        Raises CorruptionError for what no crash can leave: a gap, an impossible header.
        """
        self.enter(segment)
        yield from self.rest(segment, after)

    def rest(self, segment: Segment, after: SegmentName | None) -> Frames:
        """Those from `end` on, of the segment that was entered last."""
        yield from self.frames(segment, after)
        self.log_bytes += self.end
        if after:
            self.leave(after)

    def pass_over(self, leap: Leap) -> None:
        """Go on behind frames of which there is nothing to say."""
        self.end, self.next_lsn = leap.end, leap.after_lsn
        self.evidence = max(self.evidence, leap.evidence)

    def enter(self, segment: Segment) -> None:
        header, self.path, self.end = segment.header, segment.file.path, SEGMENT_HEADER_BYTES
        if self.journal_id not in (None, header.journal_id):
            what = f"a segment of another journal, {header.journal_id.hex()}"
            reason = DamageReason.FOREIGN
            raise CorruptionError(self.path, 16, header.first_lsn, what, reason=reason)
        if header.epoch < self.epoch:
            what = f"epoch {header.epoch} behind epoch {self.epoch}"
            reason = DamageReason.EPOCH_ORDER
            raise CorruptionError(self.path, 12, header.first_lsn, what, reason=reason)
        if self.epoch == 0:
            self.next_lsn = header.first_lsn
            if header.first_lsn > self.base_lsn + 1:
                what = f"the log begins here, what follows LSN {self.base_lsn} is missing"
                reason = DamageReason.BEGINNING_MISSING
                raise CorruptionError(self.path, 0, self.base_lsn + 1, what, reason=reason)
        self.journal_id, self.epoch = header.journal_id, header.epoch

    def frames(self, segment: Segment, after: SegmentName | None) -> Frames:
        """Yield the frames from `end` on, in the segment that was entered last, up to where its log
        ends. Gather the evidence of everything after that."""
        self.marked, self.damage, self.dead_offset = False, None, None
        for found in segment.scan(self.end, self.next_lsn):
            if after and self.next_lsn == after.first_lsn and not self._is_own_mark(found):
                # An opening after a crash, or a repair, cut the log here: its own segment begins at
                # this LSN. What stands here was never acknowledged, and proves nothing.
                self.dead_offset = found.offset
                return
            if not self.damage:
                self.damage = self._damage(found)
            # A commit may reach the disk in any order, so a crash leaves valid headers after the
            # damage as well as before it. If one of them states that a lost LSN was durable, then
            # this was no crash.
            self.evidence = max(self.evidence, found.header.durable_lsn)
            if self.damage:
                continue
            if found.state is FrameState.MARK:
                # The log fell idle, or was closed; a crash or the close came before another commit.
                self.marked = True
            else:
                self.next_lsn += found.header.record_count
                self.end = found.end
                yield found

    def leave(self, after: SegmentName) -> None:
        """Raise CorruptionError unless `after` goes on where this segment ends."""
        if self.next_lsn != after.first_lsn:
            what = f"LSN {self.next_lsn} is missing, the next segment begins at {after[0]}"
            self._refuse(what, DamageReason.GAP)

    def finish(self) -> None:
        """Raise CorruptionError if what was durable is missing at the end of the log, or if it
        leaves no LSN to go on with."""
        if self.evidence >= self.next_lsn:
            what = f"the log ends before LSN {self.next_lsn}, but {self.evidence} was durable"
            self._refuse(what, DamageReason.END_MISSING)
        if self.next_lsn > LSN_MAX:
            last = f"LSN {self.next_lsn - 1}, the last that the format can number"
            what = f"the log ends at {last}, so nothing can follow it"
            reason = DamageReason.NUMBERS_EXHAUSTED
            raise CorruptionError(self.path, self.end, self.next_lsn, what, reason=reason)

    def _is_own_mark(self, found: ScannedFrame) -> bool:
        """Return whether `found` is the mark that the segment itself ends with."""
        is_first = found.state is FrameState.MARK and not self.marked
        return is_first and not found.header.impossible(self.next_lsn)

    def _damage(self, found: ScannedFrame) -> CorruptionError | None:
        """Return the damage that a crash may have left here, None if there is none.

        Raises CorruptionError for what no crash leaves.
        """
        if self.marked:
            # The next frame is written over the mark. A crash cut that write short: the page of
            # the mark is still the old one, while a later page of the frame reached the disk.
            what = "something stands behind a mark"
        elif found.state is FrameState.GARBAGE:
            # A crash cut the write of a frame short before its header was on the disk.
            what = "no frame stands here"
        elif impossible := found.header.impossible(self.next_lsn):
            # No crash does this: the header's CRC proves that it was written like that.
            place = self.path, found.offset, self.next_lsn
            raise CorruptionError(*place, impossible, reason=DamageReason.FRAME_IMPOSSIBLE)
        elif found.state is FrameState.DAMAGED_PAYLOAD:
            # A crash cut the write of a frame short after its header was on the disk.
            what = "a frame's payload is damaged"
        else:
            return None
        place = self.path, found.offset, self.next_lsn
        return CorruptionError(*place, what, reason=DamageReason.FRAME_DAMAGED)

    def _refuse(self, what: str, reason: DamageReason) -> NoReturn:
        if self.damage:
            what = f"{self.damage.what}; {what}"
        offset = self.damage.offset if self.damage else self.end
        raise CorruptionError(self.path, offset, self.next_lsn, what, reason=reason)


def is_journal(names: list[str]) -> bool:
    """Whether a directory of files with these names is a journal."""
    # Of a journal that had just begun, a crash may leave no more than a file that was being made.
    names = [name.removesuffix(TMP) for name in names]
    return LOCK in names or bool(segment_names(names)) or bool(checkpoint_lsns(names))


def decode(found: ScannedFrame, segment: Segment, after_lsn: int = 0) -> Batch:
    """The frame's records after `after_lsn`. Raises CorruptionError if they are not what its
    header says."""
    header, path = found.header, segment.file.path
    skip = max(0, after_lsn + 1 - header.first_lsn)
    try:
        records = unpack(found.payload, header.record_count, skip)
    except ValueError as error:
        if not is_raised_by_call(error, *UNPACKING):
            raise
        what = f"a frame whose payload is whole, but {error}"
        reason = DamageReason.RECORD_UNREADABLE
        raise CorruptionError(path, found.offset, header.first_lsn, what, reason=reason) from error
    return Batch(
        header.first_lsn + skip,
        segment.header.epoch,
        header.written_at_ns,
        records,
        found.offset,
        found.end,
        path,
    )


def split(leap: Leap, segment: Segment) -> Iterator[Batch]:
    """The batches of a leap, of a frame each. Raises ValueError at once if one holds anything
    else than its header says."""
    records = unpack_spans(leap.data, leap.spans)

    def batches() -> Iterator[Batch]:
        begin = 0
        for start, end, count in leap.spans:
            yield Batch(
                leap.first_lsn + begin,
                segment.header.epoch,
                frame.written_at_ns(leap.data, start),
                records[begin : begin + count] if count < len(records) else records,
                leap.offset + start - FRAME_HEADER_BYTES,
                leap.offset + end,
                segment.file.path,
            )
            begin += count

    return batches()


def leap_over(
    walk: Walk, segment: Segment, after: SegmentName | None, receive: Callable[[Batch], None]
) -> None:
    """Over the whole frames that a segment begins with, many at a time. What needs a closer look,
    or an error that says where, is left to it."""
    limit_lsn = after.first_lsn - 1 if after else LSN_MAX
    for leap in segment.leap(walk.end, walk.next_lsn, limit_lsn):
        if leap.after_lsn > walk.base_lsn + 1:
            try:
                records = unpack_spans(leap.data, leap.spans)
            except ValueError as error:
                if not is_raised_by_call(error, *UNPACKING):
                    raise
                return
            place = leap.offset, leap.end, segment.file.path, leap.spans
            batch = Batch(leap.first_lsn, segment.header.epoch, 0, records, *place)
            receive(batch.after(walk.base_lsn))
            del records, batch  # one leap's are held at a time: it may be one large frame
        walk.pass_over(leap)
