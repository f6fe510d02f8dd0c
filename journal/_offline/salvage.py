"""Salvage: a segment whose header may be damaged, while its frames still verify.

A log never continues through such a segment. Only `frames`, which lists its frames, and `repair`,
which salvages them, read it.
"""

from __future__ import annotations

from journal._format import frame
from journal._format.crc32c import checksum
from journal._format.layout import CRC, FRAME_HEADER_BYTES, SEGMENT_CRC_OFFSET, SEGMENT_HEADER_BYTES
from journal._format.segment import Segment, SegmentHeader
from journal.errors import CorruptionError


class SalvageSegment(Segment):
    """A segment whose header may be damaged. Its frames still verify if the seed survives or can be
    recomputed. For salvage only: if the header is damaged, only the file's name says that the
    segment belongs to this journal.
    """

    is_whole = True

    def _read_header(self) -> SegmentHeader:
        try:
            return super()._read_header()
        except CorruptionError:
            data = self.file.read(SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES, 0)
            seeds = _seeds(data)
            if len(seeds) < 2:
                raise  # the header is cut short, or its CRC matches and another check fails
            first_frame, seed = next(
                (
                    (header, seed)
                    for seed in seeds
                    if (header := frame.parse(data, SEGMENT_HEADER_BYTES, seed))
                ),
                (None, seeds[0]),
            )
            if first_frame and first_frame.first_lsn != self.name.first_lsn:
                raise
            self.is_whole = False
            return SegmentHeader(0, self.name.epoch, b"", self.name.first_lsn, 0, seed)


def _seeds(data: bytes) -> list[int]:
    """Return the seeds that a damaged header allows: the stored one, and the recomputed one."""
    if len(data) < SEGMENT_HEADER_BYTES:
        return []
    stored: int = CRC.unpack_from(data, SEGMENT_CRC_OFFSET)[0]
    return list(dict.fromkeys((stored, checksum(data[:SEGMENT_CRC_OFFSET]))))
