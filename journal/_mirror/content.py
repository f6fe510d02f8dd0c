"""Content: how far the bytes and the log of a segment reach, and which of its bytes are damaged."""

from __future__ import annotations

from journal._disk.disk import Directory, ReadableFiles
from journal._format import frame
from journal._format.layout import FRAME_HEADER_BYTES, MARK
from journal._format.segment import FrameState, Segment, SegmentName
from journal._recovery.walk import Walk

_BLOCK_BYTES = 1 << 12
_REPLACEABLE = (FrameState.MARK, FrameState.DAMAGED_PAYLOAD, FrameState.GARBAGE)


def damage_in(directory: Directory, name: SegmentName) -> list[tuple[int, int]]:
    """Return the places of a segment that hold no whole frame of records: where each begins and
    ends. A mark is one of them: a power cut may leave it, and after it the rest of a frame that was
    written over it."""
    with Segment(directory, name) as segment:
        return [
            (scanned.offset, scanned.end)
            for scanned in segment.scan()
            if scanned.state in _REPLACEABLE
        ]


def first_difference(own: bytes, other: bytes, begin: int) -> int:
    """Return the first place from `begin` on at which both differ, or the size of `own`."""
    for start in range(begin, len(own), _BLOCK_BYTES):
        block = own[start : start + _BLOCK_BYTES]
        if block != other[start : start + len(block)]:
            return next(at for at, byte in enumerate(block, start) if byte != other[at])
    return len(own)


def end_lsn(files: ReadableFiles, name: SegmentName, covered_lsn: int) -> int:
    """Return the LSN at which the log of a segment ends. Damage up to `covered_lsn` is passed
    over."""
    with Segment(files, name) as segment:
        walk = Walk.at(segment, covered_lsn=covered_lsn)
        walk.enter(segment)
        walk.pass_over(segment)
        return walk.next_lsn


def content_bytes(directory: Directory, name: SegmentName) -> int:
    """Return the size of a segment's content, with a torn tail.

    Zeros after the log are not content: they were allocated ahead of it, or a power cut left them
    in place of what was written. Nor is a mark: the next frame is written over it.
    """
    with Segment(directory, name) as segment:
        end, marked_end = _log_ends(segment)
        content_end = segment.content_end()
        if content_end <= marked_end:
            return end
        # A frame after the damage may end with zeros.
        return max([content_end, *(scanned.end for scanned in segment.scan(end) if scanned.data)])


def sealed_bytes(directory: Directory, name: SegmentName) -> int:
    """Return the size of a segment to which nobody appends any more, without zeros that were
    allocated ahead of its log. A crash may have left a torn tail, with zeros after it."""
    with Segment(directory, name) as segment:
        _, marked_end = _log_ends(segment)  # the last bytes of a mark are zeros
        return max(marked_end, segment.content_end())


def _log_ends(segment: Segment) -> tuple[int, int]:
    """Return the end of a segment's log without its mark, and with it."""
    walk = Walk.at(segment)
    walk.enter(segment)
    walk.pass_over(segment)
    end = walk.end
    header = frame.parse(segment.file.read(FRAME_HEADER_BYTES, end), 0, segment.header.seed)
    is_marked = header is not None and header.kind == MARK
    return end, end + is_marked * FRAME_HEADER_BYTES
