"""Packed records: the records of one large frame, each unpacked only when it is reached.

A frame of 64 MiB may have millions of records, and each record may unpack to more than a hundred
times its size. So the objects of only one record at a time are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import overload

from msgpack import unpackb

from journal._format.large_record import measure_large
from journal._format.record import (
    LARGE_BYTES,
    Record,
    Span,
    check_spans,
    feed,
    unpack_spans,
)
from journal._public import public

_AT_ONCE_BYTES = 1 << 20  # the records of a smaller frame are unpacked together, in less time


@public
class LargeRecord:
    """A record that was not unpacked, because its objects would take more memory than allowed.

    `JournalReader.entries` and `frames` return it in place of the record, if the reader was opened
    with `memory_max_bytes`.
    """

    __slots__ = ("_packed", "_unpack_max", "memory_bytes")

    memory_bytes: int
    """The memory that the objects of the record would take, in bytes. An estimate."""

    def __init__(self, packed: memoryview, memory_bytes: int, unpack_max: int) -> None:
        """Make it from the bytes of the record. `unpack_max`: the memory that the objects of one
        of its elements may take."""
        self._packed = packed
        self._unpack_max = unpack_max
        self.memory_bytes = memory_bytes

    @property
    def size_bytes(self) -> int:
        """The size of the packed record, in bytes."""
        return len(self._packed)

    def elements(self) -> Iterator[Record]:
        """Yield the elements of the record if it is a list, and nothing for any other record.

        An element may be a LargeRecord, too.
        """
        first = self._packed[0]
        if not (0x90 <= first <= 0x9F or first in (0xDC, 0xDD)):
            return
        unpacker = feed(self._packed)
        count = unpacker.read_array_header()
        begin = unpacker.tell()
        for _ in range(count):
            unpacker.skip()
            end = unpacker.tell()
            yield _bounded(self._packed[begin:end], self._unpack_max)
            begin = end

    def __repr__(self) -> str:
        return f"<LargeRecord of {self.size_bytes} bytes, {self.memory_bytes} as objects>"


class PackedRecords(Sequence[Record]):
    """The records of a payload that is known to be whole."""

    def __init__(self, payload: memoryview, indexes: range, memory_max: int | None) -> None:
        """Take the records of `payload` whose indexes are in `indexes`. `memory_max`: the memory
        that the objects of one record may take (None: any)."""
        self._payload = payload
        self._indexes = indexes
        self._memory_max = memory_max

    def __len__(self) -> int:
        return len(self._indexes)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> PackedRecords: ...
    def __getitem__(self, index: int | slice) -> Record | PackedRecords:
        selected = self._indexes[index]
        if isinstance(selected, range):
            return PackedRecords(self._payload, selected, self._memory_max)
        return next(iter(self[selected - self._indexes.start :]))

    def __iter__(self) -> Iterator[Record]:
        unpacker = feed(self._payload)
        for _ in range(self._indexes.start):
            unpacker.skip()
        if self._memory_max is None:
            yield from islice(unpacker, len(self))
            return
        begin = unpacker.tell()
        for _ in self._indexes:
            unpacker.skip()
            end = unpacker.tell()
            yield _bounded(self._payload[begin:end], self._memory_max)
            begin = end


def _bounded(packed: memoryview, memory_max: int) -> Record:
    """Return the record, or a LargeRecord if its objects would take more than `memory_max`."""
    if len(packed) > LARGE_BYTES and (memory_bytes := measure_large(packed)) > memory_max:
        return LargeRecord(packed, memory_bytes, memory_max)
    return unpackb(packed, strict_map_key=False)


def read_spans(data: bytes, spans: list[Span], memory_max: int | None = None) -> Sequence[Record]:
    """Return the records of the payloads at `spans` of `data`, as `unpack_spans` does, but those of
    a large frame one at a time.

    `memory_max`: the memory that the objects of one record may take (None: any).
    """
    at_once_bytes = _AT_ONCE_BYTES if memory_max is None else LARGE_BYTES
    if len(data) <= at_once_bytes or len(spans) > 1:
        return unpack_spans(data, spans)
    check_spans(data, spans)
    [(start, end, count)] = spans
    return PackedRecords(memoryview(data)[start:end], range(count), memory_max)
