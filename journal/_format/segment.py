"""Segment: one log file, with its name, its header and its frames.

    offset  size  field (little-endian)
    0       8     magic 89 4A 52 4E 4C 0D 0A 1A
    8       2     version
    10      2     flags: bit 0, written with durability "os"
    12      4     epoch
    16      16    journal id
    32      8     first LSN
    40      8     created, Unix ns
    48      12    zero
    60      4     CRC32C of bytes 0..59: the segment's seed

Source: journal/docs/FORMAT.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

from journal._disk.disk import ReadableFile, ReadableFiles
from journal._format import frame
from journal._format.crc32c import checksum
from journal._format.layout import (
    CRC,
    FLAG_OS,
    FRAME_BYTES_MAX,
    FRAME_HEADER_BYTES,
    KIND_OFFSET,
    KIND_PATTERN,
    MARK,
    RECORDS,
    SEGMENT_CRC_OFFSET,
    SEGMENT_FIELDS,
    SEGMENT_HEADER_BYTES,
    SEGMENT_MAGIC,
    SEGMENT_VERSION,
)
from journal._format.record import Span
from journal._names import SEGMENT_NAME
from journal.errors import (
    CorruptionError,
    DamageReason,
    FormatReason,
    FormatVersionError,
)

if TYPE_CHECKING:
    from journal._format.segment_info import SegmentInfo

_WINDOW_BYTES = 1 << 18
_RUN_BYTES = 1 << 16


class SegmentName(NamedTuple):
    """A segment's name. Names sort in the order of the log."""

    first_lsn: int
    epoch: int

    def __str__(self) -> str:
        return f"{self.first_lsn:020d}-{self.epoch:010d}.seg"


S = TypeVar("S", SegmentName, "SegmentInfo")


class SegmentHeader(NamedTuple):
    flags: int
    epoch: int
    journal_id: bytes
    first_lsn: int
    created_at_ns: int
    seed: int = 0

    @property
    def name(self) -> SegmentName:
        """The name of the file for which the header was made."""
        return SegmentName(self.first_lsn, self.epoch)


class FrameState(Enum):
    """The kinds of pieces that a scan finds in a segment."""

    RECORDS = auto()
    """A whole frame of records."""

    MARK = auto()
    """A whole mark."""

    UNKNOWN_KIND = auto()
    """A whole frame of a kind that the format does not have. No crash leaves such a frame."""

    DAMAGED_PAYLOAD = auto()
    """A valid header without the payload that it describes: a crash cut the write short."""

    GARBAGE = auto()
    """No valid header: a crash cut the write short in the header, or only later bytes of the write
    reached the disk."""


_STATES = {RECORDS: FrameState.RECORDS, MARK: FrameState.MARK}
_NO_HEADER = frame.Header(0, 0, 0, 0, 0, 0, 0)


class ScannedFrame(NamedTuple):
    """A piece of a segment, from `offset` to `end`: a frame, or bytes that are not a frame.

    `header` is all zeros for GARBAGE. `data` holds the bytes of a whole frame, and is empty for any
    other piece.
    """

    offset: int
    end: int
    state: FrameState
    header: frame.Header = _NO_HEADER
    data: bytes = b""

    def run(self) -> FrameRun:
        """Return this whole frame as a run of one."""
        first_lsn, count = self.header.first_lsn, self.header.record_count
        place = self.offset, self.end, first_lsn, first_lsn + count, self.header.durable_lsn
        return FrameRun(*place, self.data, [(FRAME_HEADER_BYTES, len(self.data), count)])


class FrameRun(NamedTuple):
    """A sequence of whole frames of records, from `offset` to `end` of a segment.

    They hold the LSNs from `first_lsn` up to, but not including, `next_lsn`. `durable_lsn` is the
    highest durable LSN that their headers state. `data` begins with the first frame, and `spans`
    says where in `data` the payloads are.
    """

    offset: int
    end: int
    first_lsn: int
    next_lsn: int
    durable_lsn: int
    data: bytes
    spans: list[Span]


def segment_names(names: list[str]) -> list[SegmentName]:
    """Return the segments among `names`, in the order of the log."""
    matches = map(SEGMENT_NAME.fullmatch, names)
    return sorted(SegmentName(int(m[1]), int(m[2])) for m in matches if m)


def segments_after(segments: Sequence[S], lsn: int) -> list[S]:
    """Return `segments` without those that end at or below `lsn`. The last one always stays."""
    pairs = zip_longest(segments, segments[1:])
    return [name for name, after in pairs if after is None or after.first_lsn - 1 > lsn]


def encode_header(header: SegmentHeader) -> bytes:
    """Return the bytes of `header`. The CRC, which is the seed, is computed, not taken from it."""
    fields = SEGMENT_FIELDS.pack(SEGMENT_MAGIC, SEGMENT_VERSION, *header[:-1], bytes(12))
    return fields + CRC.pack(checksum(fields))


def read_header(file: ReadableFile, lsn: int) -> SegmentHeader:
    """Read and check the header of a segment, under whatever name the file has.

    Raises FormatVersionError, or CorruptionError that names `lsn` as the first one lost.
    """
    data = file.read(SEGMENT_HEADER_BYTES, 0)

    def corrupt(problem: str) -> CorruptionError:
        return CorruptionError(file.path, 0, lsn, problem, reason=DamageReason.HEADER_DAMAGED)

    if (
        len(data) < SEGMENT_HEADER_BYTES
        or checksum(data[:-4]) != CRC.unpack_from(data, SEGMENT_CRC_OFFSET)[0]
    ):
        raise corrupt("the segment's header is damaged")
    magic, version, *fields, zero = SEGMENT_FIELDS.unpack_from(data)
    if magic != SEGMENT_MAGIC:
        raise corrupt("the file is not a segment")
    if version > SEGMENT_VERSION:
        raise FormatVersionError(
            f"format version {version} is newer than {SEGMENT_VERSION}; "
            "open it with a newer journal-engine",
            path=file.path,
            reason=FormatReason.NEWER_VERSION,
        )
    header = SegmentHeader._make((*fields, CRC.unpack_from(data, SEGMENT_CRC_OFFSET)[0]))
    if version == 0 or header.flags & ~FLAG_OS or zero != bytes(12):
        text = f"version {version}, flags {header.flags} and reserved bytes {zero.hex()}"
        raise corrupt(f"no writer writes a segment header with {text}")
    if 0 in header.name:
        raise _misnamed(file, lsn, header)
    return header


def _misnamed(file: ReadableFile, lsn: int, header: SegmentHeader) -> CorruptionError:
    name = str(header.name)
    return CorruptionError(
        file.path,
        0,
        lsn,
        f"the file's header is that of {name}",
        reason=DamageReason.MISNAMED,
        header_of=name,
    )


class Segment:
    """An open segment. `size` is the size that the file had when it was opened."""

    def __init__(self, directory: ReadableFiles, name: SegmentName) -> None:
        self.name = name
        self.file = directory.open(str(name), "read")
        try:
            self.size = self.file.size()
            self.header = self._read_header()
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def _read_header(self) -> SegmentHeader:
        header = read_header(self.file, self.name.first_lsn)
        if header.name != self.name:
            raise _misnamed(self.file, self.name.first_lsn, header)
        return header

    def scan(
        self, offset: int = SEGMENT_HEADER_BYTES, lsn: int | None = None
    ) -> Iterator[ScannedFrame]:
        """Yield the pieces from `offset` on, where `lsn` is due (None: the segment's first LSN).
        Zeros up to the end of the file are not a piece.

        After bytes that are not a frame, the next piece begins at the next valid header, at any
        byte, whose LSN is at least the first one lost. A damaged payload ends where its header
        says, if a valid header follows there; otherwise the search begins at its first byte.

        Memory is bounded by one frame, and time by the size of the file: once damaged payloads of
        more than twice that size were read, each further one ends where its header says. Only bytes
        made for this purpose lead so far.
        """
        window = _Window(self.file, self.size)
        patience_bytes = 2 * self.size
        lsn = self.name.first_lsn if lsn is None else lsn
        in_log = True  # up to the first damage or the mark, whole frames advance `lsn`
        while offset < self.size:
            scanned = self._scan_at(window, offset)
            if scanned.state is FrameState.GARBAGE:
                if window.is_zero_from(offset):
                    return  # space that was allocated ahead of the log
                scanned = scanned._replace(end=self._next_header(window, offset + 1, lsn))
            elif scanned.state is FrameState.DAMAGED_PAYLOAD:
                patience_bytes -= scanned.end - offset
                if patience_bytes > 0 and not self._header_at(window, scanned.end):
                    end = self._next_header(window, offset + FRAME_HEADER_BYTES, lsn)
                    scanned = scanned._replace(end=end)
            elif in_log:
                lsn += scanned.header.record_count
            in_log = in_log and scanned.state in (FrameState.RECORDS, FrameState.UNKNOWN_KIND)
            yield scanned
            offset = scanned.end

    def runs(self, offset: int, lsn: int, limit_lsn: int) -> Iterator[FrameRun]:
        """Yield the whole frames of records from `offset` on, where `lsn` is due, in runs.

        Stop before anything that is not a whole frame of records, and before a frame that goes past
        `limit_lsn`. A run holds the frames within `_RUN_BYTES`, or one larger frame.
        """
        wanted = _RUN_BYTES
        while lsn <= limit_lsn:
            data = self.file.read(wanted, offset)
            spans: list[Span] = []
            size, next_lsn, durable_lsn = frame.read_run(
                data, self.header.seed, lsn, limit_lsn, spans
            )
            if size:
                yield FrameRun(offset, offset + size, lsn, next_lsn, durable_lsn, data, spans)
                offset, lsn, wanted = offset + size, next_lsn, _RUN_BYTES
                continue
            if len(data) < wanted:  # the end of the file
                return
            header = frame.parse(data, 0, self.header.seed)
            if not header or lsn + header.record_count - 1 > limit_lsn:
                return
            frame_bytes = FRAME_HEADER_BYTES + header.payload_bytes
            if not wanted < frame_bytes <= min(self.size - offset, FRAME_BYTES_MAX):
                return
            wanted = frame_bytes

    def content_end(self) -> int:
        """Return the offset after the last byte that is not zero."""
        end, step = self.size, _WINDOW_BYTES
        while end > SEGMENT_HEADER_BYTES:
            start = max(SEGMENT_HEADER_BYTES, end - step)
            if self.file.next_data(start) >= end:
                end, step = start, 2 * step  # a hole may be much larger than what can be read
                continue
            if step > _WINDOW_BYTES:
                step //= 2
                continue
            data = self.file.read(end - start, start)
            if not is_zero(data):
                return start + len(data.rstrip(b"\0"))
            end = start
        return end

    def _scan_at(self, window: _Window, offset: int) -> ScannedFrame:
        header = self._header_at(window, offset)
        if header is None:
            return ScannedFrame(offset, self.size, FrameState.GARBAGE)
        frame_bytes = FRAME_HEADER_BYTES + header.payload_bytes
        # Never allocate more than the file holds, or than a frame may hold, whatever a header says.
        size = min(frame_bytes, self.size - offset, FRAME_BYTES_MAX)
        if size == frame_bytes:
            data, at = window.read(offset, size)
            data = data[at : at + size]
            if checksum(memoryview(data)[FRAME_HEADER_BYTES:]) == header.payload_crc:
                state = _STATES.get(header.kind, FrameState.UNKNOWN_KIND)
                return ScannedFrame(offset, offset + size, state, header, data)
        return ScannedFrame(offset, offset + size, FrameState.DAMAGED_PAYLOAD, header)

    def _header_at(self, window: _Window, offset: int) -> frame.Header | None:
        data, at = window.read(offset, FRAME_HEADER_BYTES)
        return frame.parse(data, at, self.header.seed)

    def _next_header(self, window: _Window, offset: int, lsn: int) -> int:
        """Return the offset of the next valid header whose LSN is at least `lsn`, or the size."""
        while offset + FRAME_HEADER_BYTES <= self.size:
            # A header may begin with zeros, but it has other bytes.
            offset = max(offset, self.file.next_data(offset) - FRAME_HEADER_BYTES + 1)
            data, at = window.read(offset, FRAME_HEADER_BYTES)
            if len(data) - at < FRAME_HEADER_BYTES:
                break  # the file was cut while it was read
            for candidate in re.compile(KIND_PATTERN).finditer(data, at + KIND_OFFSET):
                start = candidate.start() - KIND_OFFSET
                header = frame.parse(data, start, self.header.seed)
                if header and header.first_lsn >= lsn:
                    return offset + start - at
            offset += len(data) - at - FRAME_HEADER_BYTES + 1
        return self.size


def is_zero(data: bytes) -> bool:
    """Return whether `data` is all zeros.

    Comparing takes a fortieth of the time of stripping. Most of the time to read preallocated space
    is spent here.
    """
    return data == bytes(len(data))


class _Window:
    """A buffer over the file, so that one read serves many small frames."""

    def __init__(self, file: ReadableFile, size: int) -> None:
        self._file = file
        self._size = size
        self._start = 0
        self._data = b""

    def read(self, offset: int, length: int) -> tuple[bytes, int]:
        """Return buffered bytes, and the place in them that corresponds to `offset`.

        At least `length` bytes follow that place, or fewer if the file ends before.
        """
        at = offset - self._start
        if at < 0 or at + length > len(self._data):
            wanted = min(max(length, _WINDOW_BYTES), self._size - offset)
            self._start, self._data = offset, self._file.read(wanted, offset)
            at = 0
        return self._data, at

    def is_zero_from(self, offset: int) -> bool:
        """Return whether the file holds only zeros from `offset` on."""
        while (offset := self._file.next_data(offset)) < self._size:
            data, at = self.read(offset, 1)
            rest = data[at:]
            if not rest or not is_zero(rest):
                return False
            offset += len(data) - at
        return True
