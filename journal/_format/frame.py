"""Frame: the unit of group commit. Bytes in, bytes out; no I/O.

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

from journal._format.crc32c import checksum, crc32c
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

_WHOLE = Struct("<IIQQ8xIII")  # all that `read_run` looks at; the last is the kind and the zeros


class HeaderRule(Enum):
    """The rules that every writer's headers keep."""

    KIND = auto()
    """The kind is one that the format has, and the bytes after it are zero."""

    FIRST_LSN = auto()
    """The first LSN is the next one."""

    DURABLE_LSN = auto()
    """The durable LSN lies before the first LSN."""

    LAST_LSN = auto()
    """The last record has an LSN that the format can number."""

    PAYLOAD_BYTES = auto()
    """The payload is no larger than a frame may hold."""

    EMPTY = auto()
    """A mark has neither records nor a payload, a frame of records has both."""


class Header(NamedTuple):
    """A frame's header, its own CRC checked."""

    payload_crc: int
    first_lsn: int
    durable_lsn: int
    written_at_ns: int
    payload_bytes: int
    record_count: int
    kind: int
    zero: bytes = b"\0\0\0"

    def broken_rule(self, lsn: int) -> HeaderRule | None:
        """Return the rule that this header breaks where `lsn` is next, or None. No crash leaves
        such a header: it is corruption."""
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
        """Return in words how this header breaks the rule `broken` where `lsn` is next."""
        count, size = self.record_count, self.payload_bytes
        return {
            HeaderRule.KIND: f"a frame of kind {self.kind} with flags {self.zero.hex()}",
            HeaderRule.FIRST_LSN: f"a frame that says LSN {self.first_lsn} where {lsn} is next",
            HeaderRule.DURABLE_LSN: (
                f"a frame that says LSN {self.durable_lsn} was durable before it"
            ),
            HeaderRule.LAST_LSN: f"a frame of {count} records from LSN {lsn} on, past {LSN_MAX}",
            HeaderRule.PAYLOAD_BYTES: f"a frame of {size} bytes",
            HeaderRule.EMPTY: f"a frame of kind {self.kind} with {count} records in {size} bytes",
        }[broken]


def encode(
    kind: int, payload: bytes, count: int, *, lsn: int, durable_lsn: int, now_ns: int, seed: int
) -> bytes:
    """Header and payload."""
    fields = FRAME_FIELDS.pack(
        checksum(payload), lsn, durable_lsn, now_ns, len(payload), count, kind, b"\0\0\0"
    )
    return b"".join((CRC.pack(checksum(fields, seed)), fields, payload))


def split_frames(
    records: list[bytes], groups: list[tuple[int, int]], payload_bytes_max: int
) -> Iterator[tuple[int, int, bytes]]:
    """Index of the first record, count and payload of each frame for `records`.

    `groups` are the indices, from and to, of records that a crash must not part.
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


def parse(data: bytes, at: int, seed: int) -> Header | None:
    """The header at `at`, or None if its CRC fails or `data` ends before it does."""
    end = at + FRAME_HEADER_BYTES
    if len(data) < end or CRC.unpack_from(data, at)[0] != checksum(data[at + 4 : end], seed):
        return None
    return Header._make(FRAME_FIELDS.unpack_from(data, at + 4))


def read_run(
    data: bytes,
    seed: int,
    lsn: int,
    limit_lsn: int,
    spans: list[Span] | None = None,
) -> tuple[int, int, int]:
    """Over the frames at the beginning of `data` that are whole, where `lsn` is next.

    Where they end, the next LSN there, and the highest durable LSN that they tell; `spans` gets
    where each payload begins and ends, and its count of records. Stops before a frame that goes
    past `limit_lsn`, and before anything else than a good frame of records: a mark, damage, what
    is impossible. What `parse`, `broken_rule` and `checksum` find out of each frame by itself, for
    a log of frames so small that their number is what takes time.
    """
    crc, unpack, view = crc32c(), _WHOLE.unpack_from, memoryview(data)
    at, evidence, size = 0, 0, len(data)
    while (start := at + FRAME_HEADER_BYTES) <= size:
        own, of_payload, first, durable, length, count, kind = unpack(data, at)
        end = start + length
        if (
            first != lsn
            or durable >= lsn
            or not (count and length)
            or lsn + count - 1 > limit_lsn
            or kind != RECORDS
            or end > size
            or crc(data[at + 4 : start], seed) != own
            or crc(view[start:end], 0) != of_payload
        ):
            break
        if spans is not None:
            spans.append((start, end, count))
        at, lsn = end, lsn + count
        if durable > evidence:
            evidence = durable
    return at, lsn, evidence
