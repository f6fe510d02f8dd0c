"""Header fix: the header that a segment with a damaged one must have had.

All fields but one are known: the name states the epoch and the first LSN, and the other files the
journal's id. The header's CRC is the seed of the frames, and each whole frame confirms it. The time
at which the segment was made is the only field that may be lost; then one is chosen that
makes the CRC match. No decision depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from journal._disk.disk import ReadableFile
from journal._format import frame
from journal._format.crc32c import checksum
from journal._format.layout import (
    CRC,
    FLAG_OS,
    FRAME_HEADER_BYTES,
    SEGMENT_CRC_OFFSET,
    SEGMENT_FIELDS,
    SEGMENT_HEADER_BYTES,
    SEGMENT_MAGIC,
    SEGMENT_VERSION,
)
from journal._format.segment import SegmentHeader, SegmentName, encode_header

_REGISTER = 0xFFFFFFFF
_POLYNOMIAL = 0x82F63B78
_CREATED_AT = 40  # the offset of the time, of which the CRC fixes the lower half
_UNTIL = 60


def fixed_header(file: ReadableFile, name: SegmentName, journal_id: bytes) -> bytes | None:
    """Return the header of the segment `name` of the journal `journal_id`, of which `file` has a
    damaged one. Return None if no frame confirms it."""
    data = file.read(SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES, 0)
    stored = data[:SEGMENT_HEADER_BYTES].ljust(SEGMENT_HEADER_BYTES, b"\0")
    if not data[SEGMENT_HEADER_BYTES:].strip(b"\0"):
        return None  # there is no frame: nothing is lost if the log ends before it
    stated = CRC.unpack_from(stored, SEGMENT_CRC_OFFSET)[0], checksum(stored[:SEGMENT_CRC_OFFSET])
    for seed in dict.fromkeys((*stated, *_seed_of_frame(data))):
        first = frame.parse(data, SEGMENT_HEADER_BYTES, seed)
        if not first or first.broken_rule(name.first_lsn) or not _is_whole(file, first):
            continue
        if seed in stated or _is_confirmed(file, first, seed):
            return _with_seed(stored, name, journal_id, seed, first.written_at_ns)
    return None


def _seed_of_frame(data: bytes) -> Iterator[int]:
    """Yield the seed with which the header of the first frame verifies, whatever it says."""
    header = data[SEGMENT_HEADER_BYTES:]
    if len(header) == FRAME_HEADER_BYTES:
        yield _undo(CRC.unpack_from(header)[0], header[CRC.size :])


def _is_confirmed(file: ReadableFile, first: frame.Header, seed: int) -> bool:
    """Return whether more than the header of the first frame confirms a seed that was computed from
    that header: the next header, or, if there is none, the only durable LSN that `first` may
    state."""
    end = SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES + first.payload_bytes
    data = file.read(FRAME_HEADER_BYTES, end)
    if data.strip(b"\0"):
        following = frame.parse(data, 0, seed)
        return bool(following and not following.broken_rule(first.first_lsn + first.record_count))
    return first.durable_lsn == first.first_lsn - 1


def _is_whole(file: ReadableFile, first: frame.Header) -> bool:
    start, size = SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES, first.payload_bytes
    if start + size > file.size():
        return False
    return checksum(file.read(size, start)) == first.payload_crc


def _with_seed(
    stored: bytes, name: SegmentName, journal_id: bytes, seed: int, written_at_ns: int
) -> bytes:
    """Return the header whose CRC is `seed`, as similar to `stored` as possible."""
    _, _, flags, _, _, _, created_at_ns, _ = SEGMENT_FIELDS.unpack_from(stored)
    for each_flags in dict.fromkeys((flags & FLAG_OS, 0, FLAG_OS)):
        header = SegmentHeader(each_flags, name.epoch, journal_id, name.first_lsn, created_at_ns)
        encoded = encode_header(header)
        if CRC.unpack_from(encoded, SEGMENT_CRC_OFFSET)[0] == seed:
            return encoded
    # The time is damaged. Take the upper half from the first frame, which was written soon after.
    high = written_at_ns >> 32 << 32
    fields = bytearray(
        SEGMENT_FIELDS.pack(
            SEGMENT_MAGIC,
            SEGMENT_VERSION,
            flags & FLAG_OS,
            name.epoch,
            journal_id,
            name.first_lsn,
            high,
            bytes(12),
        )
    )
    wanted = _undo(seed, bytes(fields[_CREATED_AT + 4 : _UNTIL]))
    low = _undo(wanted, bytes(4)) ^ checksum(fields[:_CREATED_AT])
    fields[_CREATED_AT : _CREATED_AT + 4] = low.to_bytes(4, "little")
    return bytes(fields) + CRC.pack(seed)


@cache
def _table() -> list[int]:
    """Return the CRC's table, by which a byte is taken in."""
    table = []
    for byte in range(256):
        register = byte
        for _ in range(8):
            register = register >> 1 ^ (_POLYNOMIAL if register & 1 else 0)
        table.append(register)
    return table


def _undo(crc: int, data: bytes) -> int:
    """Return the CRC that, continued over `data`, gives `crc`."""
    by_top_byte = {entry >> 24: at for at, entry in enumerate(_table())}
    register = crc ^ _REGISTER
    for byte in reversed(data):
        at = by_top_byte[register >> 24]
        register = (register ^ _table()[at]) << 8 & _REGISTER | (at ^ byte)
    return register ^ _REGISTER
