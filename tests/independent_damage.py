"""The independent reader's rule for damage that a checkpoint covers.

It was written from journal/docs/FORMAT.md, "Damage that a checkpoint covers", and shares no line
with the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgpack

from tests.independent_reader import (
    FRAME_HEADER,
    MARK,
    PAYLOAD_BYTES_MAX,
    RECORDS,
    SEGMENT_HEADER,
    Frame,
    crc32c,
    decode_frame,
    decode_segment_header,
)


class DamagedSegment(NamedTuple):
    """The good frames of a damaged segment, and the LSNs in between that can't be read."""

    frames: tuple[Frame, ...]
    holes: tuple[tuple[int, int], ...]
    is_whole: bool  # nothing but zeros follows the frames


class Piece(NamedTuple):
    """A frame or a mark, with its payload or without; or bytes that are not a valid header."""

    start: int
    end: int
    header: tuple[Any, ...] | None = None
    is_whole: bool = False


def header_at(data: bytes, at: int, seed: int) -> tuple[Any, ...] | None:
    """Return the fields of the header at `at`, if its CRC matches."""
    if len(data) - at < FRAME_HEADER.size:
        return None
    fields = FRAME_HEADER.unpack_from(data, at)
    return fields if fields[0] == crc32c(data[at + 4 : at + FRAME_HEADER.size], seed) else None


def search(data: bytes, at: int, seed: int, lsn: int) -> int:
    """Return the next place from `at` on with a valid header whose first LSN is `lsn` or more."""
    for place in range(at, len(data) - FRAME_HEADER.size + 1):
        if data[place + 40] in (RECORDS, MARK) and not any(data[place + 41 : place + 44]):
            header = header_at(data, place, seed)
            if header and header[2] >= lsn:
                return place
    return len(data)


def pieces(data: bytes, at: int, seed: int, lsn: int) -> Iterator[Piece]:
    """Yield what follows `at`, where `lsn` is due, as step 5 of "Recovery" goes over it."""
    while any(data[at:]):
        header = header_at(data, at, seed)
        if header is None:
            piece = Piece(at, search(data, at + 1, seed, lsn))
        else:
            start = at + FRAME_HEADER.size
            end = start + header[5]
            is_whole = end <= len(data) and crc32c(data[start:end]) == header[1]
            if not is_whole and not header_at(data, end, seed):
                end = search(data, start, seed, lsn)
            piece = Piece(at, end, header, is_whole)
        yield piece
        at = piece.end


def resumption(data: bytes, at: int, seed: int, lsn: int, covered: int) -> Piece | None:
    """Return the frame or mark at which reading resumes after damage at `at`, where `lsn` is due.

    `covered` is the checkpoint's LSN. See "Damage that a checkpoint covers".
    """
    if lsn > covered:
        return None
    due = at  # where the next header is due; it is bad if no piece with a header begins there
    for piece in pieces(data, at, seed, lsn):
        header = piece.header
        if piece.start == at:
            if header and header[7] == RECORDS:
                due = at + FRAME_HEADER.size + header[5]
            continue
        if header is None or piece.start < due:
            continue
        if piece.start > due and is_quoted(data, due + FRAME_HEADER.size, piece, seed):
            continue
        if piece.is_whole and lsn < header[2] <= covered + 1 and header[3] < header[2]:
            return piece
        due = piece.start + FRAME_HEADER.size + header[5]
    return None


def is_quoted(data: bytes, payload: int, first: Piece, seed: int) -> bool:
    """Return whether one record contains the run of frames that begins with `first`, if the records
    of a damaged frame begin at `payload`."""
    records = msgpack.Unpacker(raw=True, max_buffer_size=PAYLOAD_BYTES_MAX)
    records.feed(data[payload : payload + PAYLOAD_BYTES_MAX])
    record_end = payload
    try:
        while record_end < first.start:
            records.skip()
            record_end = payload + records.tell()
    except (msgpack.OutOfData, ValueError):  # the records are damaged, too
        return False
    if record_end == first.start:
        return False
    run_end = first.end if first.is_whole else first.start + FRAME_HEADER.size
    assert first.header
    lsn = first.header[2] + first.header[6]
    while first.is_whole and run_end <= record_end:
        piece = next(pieces(data, run_end, seed, lsn), None)
        if not piece or not piece.is_whole or not piece.header or piece.header[2] != lsn:
            break
        run_end, lsn = piece.end, lsn + piece.header[6]
    return run_end <= record_end


def decode_damaged(data: bytes, covered: int) -> DamagedSegment:
    """Return the frames of the last segment of a log, if the checkpoint is at LSN `covered`."""
    header = decode_segment_header(data)
    frames: list[Frame] = []
    holes: list[tuple[int, int]] = []
    at, lsn = SEGMENT_HEADER.size, header.first_lsn
    while any(data[at:]):
        decoded = decode_frame(data, at, header.seed)
        if decoded:
            frame, at = decoded
            frames.append(frame)
            lsn += len(frame.records)
            continue
        piece = resumption(data, at, header.seed, lsn, covered)
        if not piece or not piece.header:
            break
        holes.append((lsn, piece.header[2] - 1))
        at, lsn = piece.start, piece.header[2]
    return DamagedSegment(tuple(frames), tuple(holes), not any(data[at:]))
