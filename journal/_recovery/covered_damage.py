"""Covered damage: damaged frames that no open needs, because a checkpoint holds the state.

An open reads on after such damage only at a place that proves itself: at a whole frame, whose
payload verifies, or at a mark. Source: journal/docs/FORMAT.md, "Damage that a checkpoint covers".
"""

from __future__ import annotations

from typing import NamedTuple

import msgpack

from journal._format.layout import FRAME_HEADER_BYTES, PAYLOAD_BYTES_MAX
from journal._format.segment import FrameState, ScannedFrame, Segment

_READ_BYTES = 1 << 18


class Hole(NamedTuple):
    """The LSNs that can't be read because of damage at `offset` of the segment `path`."""

    path: str
    offset: int
    first_lsn: int
    last_lsn: int

    @property
    def records(self) -> int:
        """The number of LSNs."""
        return self.last_lsn - self.first_lsn + 1


def find_resumption(
    segment: Segment, offset: int, lsn: int, covered_lsn: int
) -> ScannedFrame | None:
    """Return the frame or mark at which reading resumes after damage at `offset`, where `lsn` is
    due. Return None if nothing is damaged there, or if there is no such place.

    It is the first whole frame or mark after the damage whose first LSN is more than `lsn`, and at
    most one past `covered_lsn`, the LSN of the checkpoint. A frame that is quoted in a record is no
    such place.
    """
    pieces = segment.scan(offset, lsn)
    damaged = next(pieces, None)
    if damaged is None or not _is_damaged(damaged, lsn):
        return None
    # The place of the next header. The bytes before it belong to the frame whose end it is.
    header_at = offset
    if damaged.state is FrameState.DAMAGED_PAYLOAD:
        header_at = _stated_end(damaged)
    quotes: _Quotes | None = None  # in the payload after that header, if it is damaged
    for scanned in pieces:
        if scanned.state is FrameState.GARBAGE or scanned.offset < header_at:
            continue
        if scanned.offset > header_at:
            quotes = quotes or _Quotes(segment, header_at + FRAME_HEADER_BYTES)
            if quotes.contain(scanned):
                continue
        if is_resumption(scanned, lsn, covered_lsn):
            return scanned
        header_at, quotes = _stated_end(scanned), None
    return None


def _is_damaged(scanned: ScannedFrame, lsn: int) -> bool:
    """Return whether `scanned` is damage where `lsn` is due, and not a whole frame or a header that
    no crash and no damage leave there."""
    if scanned.state is FrameState.GARBAGE:
        return True
    # A mark is the end of the log, unless other bytes follow: then a frame had replaced it.
    is_bad = scanned.state in (FrameState.DAMAGED_PAYLOAD, FrameState.MARK)
    return is_bad and scanned.header.broken_rule(lsn) is None


def is_resumption(scanned: ScannedFrame, lsn: int, covered_lsn: int) -> bool:
    """Return whether `scanned` is a whole frame or mark after `lsn`, at most one LSN past
    `covered_lsn`."""
    if scanned.state not in (FrameState.RECORDS, FrameState.MARK):
        return False
    header = scanned.header
    return lsn < header.first_lsn <= covered_lsn + 1 and not header.broken_rule(header.first_lsn)


def _stated_end(scanned: ScannedFrame) -> int:
    """Return where the frame ends, as its valid header says."""
    return scanned.offset + FRAME_HEADER_BYTES + scanned.header.payload_bytes


class _Quotes:
    """The frames that are quoted in the records of a payload that begins at `start`.

    The header of that payload is damaged, so only the records themselves say where each ends.
    """

    def __init__(self, segment: Segment, start: int) -> None:
        self._segment = segment
        self._start = self._read_until = self._record_end = start
        self._records = msgpack.Unpacker(raw=True, max_buffer_size=PAYLOAD_BYTES_MAX)
        self._is_readable = True

    def contain(self, scanned: ScannedFrame) -> bool:
        """Return whether `scanned` is quoted: a record begins before it, and ends at or after the
        end of the run of whole frames that begins with it. Call this in the order of the segment.

        If the payload is damaged, too, the records are not those that were written. They then end
        in the middle of frames, or never.
        """
        try:
            while self._is_readable and self._record_end <= scanned.offset:
                if self._record_end == scanned.offset:
                    return False
                self._read_record()
        except (ValueError, msgpack.BufferFull):
            self._is_readable = False
        return self._is_readable and self._run_end(scanned) <= self._record_end

    def _read_record(self) -> None:
        while True:
            try:
                self._records.skip()
                self._record_end = self._start + self._records.tell()
                return
            except msgpack.OutOfData:
                data = self._segment.file.read(_READ_BYTES, self._read_until)
                self._records.feed(data)
                self._read_until += len(data)
                if not data:
                    raise ValueError("the last record is cut short") from None

    def _run_end(self, first: ScannedFrame) -> int:
        """Return the offset at which the run of whole frames that begins with `first` ends, or an
        offset past the end of the record."""
        end = first.offset + max(len(first.data), FRAME_HEADER_BYTES)
        if not first.data:
            return end
        lsn = first.header.first_lsn + first.header.record_count
        for scanned in self._segment.scan(end, lsn):
            is_next = scanned.offset == end and is_resumption(scanned, lsn - 1, lsn - 1)
            if end > self._record_end or not is_next:
                break
            end, lsn = scanned.end, lsn + scanned.header.record_count
        return end
