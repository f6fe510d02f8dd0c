"""An independent reader and encoder of the format: segments of version 1, checkpoints of versions 1
and 2. It shares no line with the engine.

It was written from journal/docs/FORMAT.md alone and computes CRC32C itself, so that an error in the
engine can't hide behind the same error here. It skips no field: everything that the page does not
allow raises `FormatError`. It is slow, and meant to be read beside the page.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

MAGIC = bytes.fromhex("89 4A 52 4E 4C 0D 0A 1A")
SEGMENT_VERSION = 1
CHECKPOINT_VERSION = 2
OS_FLAG = 1
RECORDS, MARK = 1, 2
PAYLOAD_BYTES_MAX = 2**26
LSN_MAX = 2**64 - 2

SEGMENT_HEADER = struct.Struct("<8sHHI16sQQ12sI")
FRAME_HEADER = struct.Struct("<IIQQQIIB3s")
SEGMENT_NAME = re.compile(r"(\d{20})-(\d{10})\.seg")
CHECKPOINT_NAME = re.compile(r"checkpoint-(\d{20})\.json")
DOLLAR_KEY = re.compile(r"\$+bytes")
CHECKPOINT_KEYS = ["format", "version", "journal_id", "epoch", "lsn", "created_at", "application"]


class FormatError(Exception):
    """A byte that the format page does not allow."""


def require(holds: bool, problem: str) -> None:
    if not holds:
        raise FormatError(problem)


# --- CRC32C (Castagnoli), reflected; `start` continues: crc32c(a + b) == crc32c(b, crc32c(a)) ---


def _table() -> Iterator[int]:
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        yield byte


_TABLE = tuple(_table())


@lru_cache(1024)  # tests read the same headers and frames again and again
def crc32c(data: bytes, start: int = 0) -> int:
    register = start ^ 0xFFFFFFFF
    for byte in data:
        register = register >> 8 ^ _TABLE[(register ^ byte) & 0xFF]
    return register ^ 0xFFFFFFFF


# --- the parts of a journal ---


class Record(NamedTuple):
    epoch: int
    lsn: int
    record: Any
    written_at_ns: int


@dataclass(frozen=True)
class SegmentHeader:
    journal_id: bytes
    epoch: int
    first_lsn: int
    created_at_ns: int
    flags: int = 0

    @property
    def name(self) -> str:
        return f"{self.first_lsn:020d}-{self.epoch:010d}.seg"

    def encode(self) -> bytes:
        version, zero = SEGMENT_VERSION, bytes(12)
        fields = (version, self.flags, self.epoch, self.journal_id, self.first_lsn)
        body = SEGMENT_HEADER.pack(MAGIC, *fields, self.created_at_ns, zero, 0)[:-4]
        return body + struct.pack("<I", crc32c(body))

    @property
    def seed(self) -> int:
        return crc32c(self.encode()[:60])


@dataclass(frozen=True)
class Frame:
    """A frame of records, or a mark if it has no records."""

    first_lsn: int
    durable_lsn: int
    written_at_ns: int
    records: tuple[Any, ...] = ()

    def encode(self, seed: int) -> bytes:
        payload = b"".join(msgpack.packb(record, strict_types=True) for record in self.records)
        numbers = (self.first_lsn, self.durable_lsn, self.written_at_ns)
        kind = RECORDS if self.records else MARK
        tail = struct.pack("<QQQIIB3x", *numbers, len(payload), len(self.records), kind)
        body = struct.pack("<I", crc32c(payload)) + tail
        return struct.pack("<I", crc32c(body, seed)) + body + payload


@dataclass(frozen=True)
class Segment:
    header: SegmentHeader
    frames: tuple[Frame, ...]  # only the last one can be a mark
    rest: bytes  # the bytes after the last valid frame or mark


@dataclass(frozen=True)
class Checkpoint:
    journal_id: bytes
    epoch: int
    lsn: int
    created_at: str
    application: str
    items: tuple[Any, ...]
    version: int = CHECKPOINT_VERSION


# --- segments ---


def decode_segment_header(data: bytes) -> SegmentHeader:
    require(len(data) >= SEGMENT_HEADER.size, "a segment header is 64 bytes")
    fields = SEGMENT_HEADER.unpack_from(data)
    magic, version, flags, epoch, journal_id, first_lsn, created_at_ns, zero, crc = fields
    require(magic == MAGIC, f"magic {magic.hex()}")
    require(crc == crc32c(data[:60]), "CRC of the segment header")
    require(version == SEGMENT_VERSION, f"version {version}")
    require(flags & ~OS_FLAG == 0, f"flags {flags}")
    require(zero == bytes(12), "bytes 48..59 of the segment header are zero")
    require(epoch >= 1, "epoch 0")
    require(first_lsn >= 1, "first LSN 0")
    return SegmentHeader(journal_id, epoch, first_lsn, created_at_ns, flags)


def decode_frame(data: bytes, at: int, seed: int) -> tuple[Frame, int] | None:
    """Return the frame at `at` and its end, or None if no valid frame begins there.

    Raise FormatError if the frame is valid and says what no writer can have written.
    """
    if len(data) - at < FRAME_HEADER.size:
        return None
    fields = FRAME_HEADER.unpack_from(data, at)
    crc, payload_crc, first_lsn, durable_lsn, written_at_ns, size, count, kind, zero = fields
    start = at + FRAME_HEADER.size
    if crc != crc32c(data[at + 4 : start], seed):
        return None
    require(kind in (RECORDS, MARK), f"kind {kind}")
    require(zero == bytes(3), "bytes 41..43 of a frame header are zero")
    require(size <= PAYLOAD_BYTES_MAX, f"a payload of {size} bytes")
    require((kind == MARK) == (count == 0) == (size == 0), f"kind {kind}, {count} in {size} bytes")
    require(first_lsn + count - 1 <= LSN_MAX, f"{count} records from LSN {first_lsn} on")
    require(durable_lsn < first_lsn, f"durable LSN {durable_lsn} is not below LSN {first_lsn}")
    payload = data[start : start + size]
    if len(payload) < size or payload_crc != crc32c(payload):
        return None
    records = decode_payload(payload)
    require(len(records) == count, f"{len(records)} records, the header counts {count}")
    return Frame(first_lsn, durable_lsn, written_at_ns, records), start + size


def decode_payload(payload: bytes) -> tuple[Any, ...]:
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=len(payload) or 1)
    unpacker.feed(payload)
    records = tuple(unpacker)
    require(unpacker.tell() == len(payload), "an object of the payload is cut short")
    return records


def decode_segment(data: bytes, *, before: int | None = None) -> Segment:
    """Return the segment with its good frames, at most those before LSN `before`.

    `before` is the first LSN of the next segment. A mark ends the frames.
    """
    header = decode_segment_header(data)
    frames: list[Frame] = []
    at, lsn = SEGMENT_HEADER.size, header.first_lsn
    while lsn != before and (decoded := decode_frame(data, at, header.seed)):
        frame, at = decoded
        require(frame.first_lsn == lsn, f"LSN {frame.first_lsn} where {lsn} is due")
        frames.append(frame)
        lsn += len(frame.records)
        require(before is None or lsn <= before, f"LSN {lsn - 1} is in the next segment too")
        if not frame.records:
            break  # the next frame would overwrite the mark, not follow it
    return Segment(header, tuple(frames), data[at:])


def decode_segments(files: Mapping[str, bytes], checkpoint_lsn: int = 0) -> list[Segment]:
    """Return all segments in LSN order.

    They must be dense, except those that end at or below the checkpoint.
    """
    names = sorted(name for name in files if SEGMENT_NAME.fullmatch(name))
    segments: list[Segment] = []
    due = 1  # the LSN at which the next segment after the checkpoint must begin
    for name, after in zip_longest(names, names[1:]):
        before = int(after[:20]) if after else None
        segment = decode_segment(files[name], before=before)
        require(segment.header.name == name, f"{name} holds the header of {segment.header.name}")
        segments.append(segment)
        first_lsn = segment.header.first_lsn
        if before is not None and before - 1 <= checkpoint_lsn:
            continue  # covered by the checkpoint, so gaps in it do not matter
        require(first_lsn == due or first_lsn <= checkpoint_lsn + 1, f"{name}: LSN {due} is due")
        due = first_lsn + sum(len(frame.records) for frame in segment.frames)
        require(before in (due, None), f"{name} ends before {due}, the next begins at {before}")
    if segments:
        require(not any(segments[-1].rest), f"bytes other than zero follow LSN {due - 1}")
    require(due <= LSN_MAX, f"the log ends at LSN {due - 1}, and no LSN can follow")
    require(due > checkpoint_lsn, f"the log ends before {due}, the checkpoint is {checkpoint_lsn}")
    for earlier, later in pairwise(segments):
        require(earlier.header.epoch <= later.header.epoch, f"{later.header.name}: an older epoch")
    return segments


# --- checkpoints ---


def no_constant(name: str) -> None:
    raise FormatError(f"{name} in JSON")


def decode_checkpoint(data: bytes) -> Checkpoint:
    require(data.endswith(b"\n"), "a checkpoint ends with LF")
    lines = data.decode("utf-8").split("\n")[:-1]
    require(len(lines) >= 4, "a checkpoint has four lines or more")
    first, opening, *item_lines, closing, last = lines
    require(first.endswith(","), "the first line ends with a comma")
    require((opening, closing) == ('"items":[', "],"), "the lines around the items")
    header = json.loads(first[:-1] + "}", parse_constant=no_constant)
    require(list(header) == CHECKPOINT_KEYS, f"keys {list(header)}")
    require(header["format"] == "journal-checkpoint", f"format {header['format']!r}")
    version = header["version"]
    require(type(version) is int and 1 <= version <= CHECKPOINT_VERSION, f"version {version!r}")
    for number, line in enumerate(item_lines, 1):
        require(line.endswith(",") == (number < len(item_lines)), f"the comma after item {number}")
    rule = None if version == 1 else unescaped
    items = tuple(
        json.loads(line.removesuffix(","), parse_constant=no_constant, object_hook=rule)
        for line in item_lines
    )
    crc = crc32c(data[: len(data) - len(last.encode()) - 1])
    require(last == f'"count":{len(items)},"crc32c":"{crc:08x}"}}', f"the last line is {last}")
    require(re.fullmatch("[0-9a-f]{32}", header["journal_id"]) is not None, "the journal id")
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    require(re.fullmatch(stamp, header["created_at"]) is not None, f"{header['created_at']}")
    require(type(header["application"]) is str, "the application")
    require(type(header["epoch"]) is int and type(header["lsn"]) is int, "epoch and LSN")
    _, _, hex_id, epoch, lsn, created_at, application = header.values()
    journal_id = bytes.fromhex(hex_id)
    return Checkpoint(journal_id, epoch, lsn, created_at, application, items, version)


def unescaped(value: dict[str, Any]) -> Any:
    """Return the bytes or the map that a JSON object of version 2 stands for."""
    [key, *others] = value or [""]
    if others or not DOLLAR_KEY.fullmatch(key):
        return value
    inner = value[key]
    if key != "$bytes":
        return {key.removeprefix("$"): inner}
    require(type(inner) is str and inner.isascii(), f"$bytes is {inner!r}")
    data = base64.b64decode(inner, validate=True)
    require(base64.b64encode(data).decode() == inner, f"{inner} is not how bytes are encoded")
    return data


def escaped(value: Any) -> Any:
    """Return the JSON that stands for a value in version 2."""
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, list):
        return [escaped(inner) for inner in value]
    if isinstance(value, dict):
        is_alike = len(value) == 1 and all(map(DOLLAR_KEY.fullmatch, value))
        return {"$" * is_alike + key: escaped(inner) for key, inner in value.items()}
    return value


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    journal_id, c = checkpoint.journal_id.hex(), checkpoint
    values = ("journal-checkpoint", c.version, journal_id, c.epoch, c.lsn, c.created_at)
    header = dict(zip(CHECKPOINT_KEYS, (*values, c.application), strict=True))
    encoded = c.items if c.version == 1 else map(escaped, c.items)
    items = ",\n".join(map(compact, encoded)) + "\n" * bool(c.items)
    text = f'{compact(header)[:-1]},\n"items":[\n{items}],\n'.encode()
    return text + f'"count":{len(c.items)},"crc32c":"{crc32c(text):08x}"}}\n'.encode()


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


# --- journals ---


def decode_files(files: Mapping[str, bytes]) -> tuple[list[Checkpoint], list[Record]]:
    """Return all checkpoints of an undamaged journal, oldest first, and all its records."""
    for name in files:
        is_known = SEGMENT_NAME.fullmatch(name) or CHECKPOINT_NAME.fullmatch(name)
        require(bool(is_known) or name == "LOCK" or name.endswith(".tmp"), f"stray file {name}")
    checkpoints = []
    for name in sorted(filter(CHECKPOINT_NAME.fullmatch, files)):
        checkpoints.append(decode_checkpoint(files[name]))
        lsn = checkpoints[-1].lsn
        require(name == f"checkpoint-{lsn:020d}.json", f"{name} is of LSN {lsn}")
    segments = decode_segments(files, checkpoints[-1].lsn if checkpoints else 0)
    ids = {c.journal_id for c in checkpoints} | {s.header.journal_id for s in segments}
    require(len(ids) <= 1, f"files of several journals: {sorted(i.hex() for i in ids)}")
    return checkpoints, list(records_of(segments))


def records_of(segments: Iterable[Segment]) -> Iterator[Record]:
    for segment in segments:
        for frame in segment.frames:
            for lsn, record in enumerate(frame.records, frame.first_lsn):
                yield Record(segment.header.epoch, lsn, record, frame.written_at_ns)


def decode(directory: Path) -> tuple[list[Checkpoint], list[Record]]:
    return decode_files({path.name: path.read_bytes() for path in directory.iterdir()})
