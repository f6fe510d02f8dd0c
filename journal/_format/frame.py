"""Frame: the unit of group commit. This module turns bytes into bytes, and does no I/O.

    offset  size  field (little-endian)
    0       4     CRC32C of bytes 4..43, started from the segment's seed
    4       4     CRC32C of the payload
    8       8     first LSN (of a mark: the next LSN)
    16      8     durable LSN when this frame was written
    24      8     written, Unix ns
    32      4     payload bytes, at most 2^26
    36      4     count of records
    40      1     kind: 1 records, 2 mark
    41      3     zero

Source: journal/docs/FORMAT.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from itertools import pairwise
from struct import Struct
from typing import NamedTuple

from journal._format.crc32c import BESIDE_OTHERS, checksum, crc32c
from journal._format.layout import (
    CRC,
    FRAME_FIELDS,
    FRAME_HEADER_BYTES,
    LSN_MAX,
    MARK,
    PAYLOAD_BYTES_MAX,
    RECORDS,
)
from journal._format.record import Span

_JOINED_AT_ONCE = 4 << 20
FILLER = b"\xc0"  # nil
# The fields that `read_run` needs, in one read. The last one is the kind with the zeros after it.
_WHOLE = Struct("<IIQQ8xIII")


class HeaderRule(Enum):
    """The rules that the headers of every writer obey."""

    KIND = auto()
    """The kind is one that the format has, and the bytes after it are zero."""

    FIRST_LSN = auto()
    """The first LSN is the one that is due."""

    DURABLE_LSN = auto()
    """The durable LSN is less than the first LSN."""

    LAST_LSN = auto()
    """The LSN of the last record is one that the format can number."""

    PAYLOAD_BYTES = auto()
    """The payload is no larger than a frame may hold."""

    EMPTY = auto()
    """A mark has neither records nor a payload; a frame of records has both."""


class Header(NamedTuple):
    """A frame's header whose own CRC was checked."""

    payload_crc: int
    first_lsn: int
    durable_lsn: int
    written_at_ns: int
    payload_bytes: int
    record_count: int
    kind: int
    zero: bytes = b"\0\0\0"

    def broken_rule(self, lsn: int) -> HeaderRule | None:
        """Return the rule that this header breaks where `lsn` is due, or None.

        No crash leaves a header that breaks a rule: it is corruption.
        """
        if self.zero != b"\0\0\0" or self.kind not in (RECORDS, MARK):
            return HeaderRule.KIND
        if self.first_lsn != lsn:
            return HeaderRule.FIRST_LSN
        if self.durable_lsn >= lsn:
            return HeaderRule.DURABLE_LSN
        if lsn + self.record_count - 1 > LSN_MAX:
            return HeaderRule.LAST_LSN
        if self.payload_bytes > PAYLOAD_BYTES_MAX:
            return HeaderRule.PAYLOAD_BYTES
        empty = not self.record_count, not self.payload_bytes
        if any(empty) if self.kind == RECORDS else not all(empty):
            return HeaderRule.EMPTY
        return None

    def describe(self, broken: HeaderRule, lsn: int) -> str:
        """Describe in words how this header breaks the rule `broken` where `lsn` is due."""
        count, size = self.record_count, self.payload_bytes
        return {
            HeaderRule.KIND: (
                f"the frame states kind {self.kind} and reserved bytes {self.zero.hex()}, "
                "which no writer writes"
            ),
            HeaderRule.FIRST_LSN: f"the frame states LSN {self.first_lsn}, but LSN {lsn} is due",
            HeaderRule.DURABLE_LSN: (
                f"the frame states that LSN {self.durable_lsn} was durable before it, "
                f"but its own first LSN is {lsn}"
            ),
            HeaderRule.LAST_LSN: (
                f"the frame counts {count} records from LSN {lsn} on, "
                f"but no LSN goes past {LSN_MAX}"
            ),
            HeaderRule.PAYLOAD_BYTES: (
                f"the frame states a payload of {size} bytes, over the limit of {PAYLOAD_BYTES_MAX}"
            ),
            HeaderRule.EMPTY: (
                f"the frame of kind {self.kind} states {count} records in {size} bytes, "
                "which no writer writes"
            ),
        }[broken]


def encode(
    kind: int, payload: bytes, count: int, *, lsn: int, durable_lsn: int, now_ns: int, seed: int
) -> bytes:
    """Return the bytes of a frame: its header and `payload`."""
    fields = FRAME_FIELDS.pack(
        checksum(payload), lsn, durable_lsn, now_ns, len(payload), count, kind, b"\0\0\0"
    )
    return CRC.pack(checksum(fields, seed)) + fields + payload  # unlike a join: see `joined`


def joined(records: list[bytes], size: int) -> bytes:
    """Return the payload of `records`, which have `size` bytes.

    From 1 MiB on, bytes.join lets other threads run, and it may take 5 ms to get the interpreter's
    lock back. It does not do that if a part is not `bytes`. Up to 4 MiB, the copy takes less.
    """
    if size <= _JOINED_AT_ONCE:
        return b"".join((*records, memoryview(b"")))
    return b"".join(records)


def split_frames(
    records: list[bytes], groups: list[tuple[int, int]], payload_bytes_max: int
) -> Iterator[tuple[int, int, bytes]]:
    """Yield, for each frame that `records` need, the index of its first record, its count of
    records, and its payload.

    `groups`: the begin and end indices of records that a crash must not separate. Each group stays
    within one frame.
    """
    inside = {i for begin, end in groups for i in range(begin + 1, end)}
    cuts = [i for i in range(len(records) + 1) if i not in inside]
    begin, size = 0, 0
    for unit, after in pairwise(cuts):
        unit_size = sum(map(len, records[unit:after]))
        if size and size + unit_size > payload_bytes_max:
            yield begin, unit - begin, b"".join(records[begin:unit])
            begin, size = unit, 0
        size += unit_size
    yield begin, len(records) - begin, b"".join(records[begin:])


def is_filler(data: bytes) -> bool:
    """Return whether `data` begins with the frame of a filler. It must be a whole frame, the first
    one of its segment.

    Every other frame there states that all LSNs before it were durable, because a segment begins
    only after the one before it is synced. So no record of an owner looks like a filler.
    """
    _, _, first_lsn, durable_lsn, size, count, _ = _WHOLE.unpack_from(data)
    is_lone = first_lsn > 1 and (durable_lsn, size, count) == (0, len(FILLER), 1)
    return is_lone and data[FRAME_HEADER_BYTES : FRAME_HEADER_BYTES + size] == FILLER


def parse(data: bytes, at: int, seed: int) -> Header | None:
    """Return the header at `at`, or None if its CRC fails or `data` ends before it does."""
    end = at + FRAME_HEADER_BYTES
    if len(data) < end or CRC.unpack_from(data, at)[0] != checksum(data[at + 4 : end], seed):
        return None
    return Header._make(FRAME_FIELDS.unpack_from(data, at + 4))


def read_run(
    data: bytes, seed: int, lsn: int, limit_lsn: int, spans: list[Span]
) -> tuple[int, int, int]:
    """Read the whole frames of records at the beginning of `data`, where `lsn` is due.

    Return the offset at which they end, the LSN that is due there, and the highest durable LSN that
    they state. Append to `spans` the beginning and the end of each payload, and its count of
    records. Stop before a frame that goes past `limit_lsn`, and before anything but a good frame of
    records: a mark, damage, or a header that breaks a rule.

    The checks are those of `parse`, `broken_rule` and `checksum`, made without a call for each
    frame, because the time to read a log of small frames grows with their number.
    """
    crc, unpack, view = crc32c(), _WHOLE.unpack_from, memoryview(data)
    at, evidence, size = 0, 0, len(data)
    while (start := at + FRAME_HEADER_BYTES) <= size:
        header_crc, payload_crc, first, durable, length, count, kind = unpack(data, at)
        end = start + length
        if (
            first != lsn
            or durable >= lsn
            or not (count and length)
            or lsn + count - 1 > limit_lsn
            or kind != RECORDS
            or end > size
            or crc(data[at + 4 : start], seed, BESIDE_OTHERS) != header_crc
            or crc(view[start:end], 0, BESIDE_OTHERS) != payload_crc
        ):
            break
        spans.append((start, end, count))
        at, lsn = end, lsn + count
        if durable > evidence:
            evidence = durable
    return at, lsn, evidence
