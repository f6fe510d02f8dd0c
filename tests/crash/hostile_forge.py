"""Forged journals: real files, changed in ways that still pass their CRCs.

`forge` starts from the files of a real journal and changes some of them. `Choices` decides what to
change: Hypothesis draws the choices, or a fuzzer's bytes are the choices, or a seeded generator
makes them. Most checksums are computed again after a change, so that the code behind them is
reached.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from struct import Struct
from typing import Any, Protocol, TypeVar

import msgpack
from crc32c import crc32c

from tests.crash.hostile_sources import Files, sources
from tests.independent_reader import FRAME_HEADER, MARK, RECORDS, SEGMENT_HEADER

T = TypeVar("T")
_CRC = Struct("<I")


class Choices(Protocol):
    """The source of a forger's decisions."""

    def below(self, bound: int) -> int:
        """Return an int from 0 to `bound` - 1."""

    def data(self, size_max: int) -> bytes:
        """Return up to `size_max` bytes."""


class Tape:
    """Choices that are read from bytes. After their end, each choice is 0, and data is empty."""

    def __init__(self, tape: bytes) -> None:
        self._tape = tape
        self._at = 0

    def below(self, bound: int) -> int:
        return int.from_bytes(self._take((bound - 1).bit_length() + 7 >> 3), "little") % bound

    def data(self, size_max: int) -> bytes:
        return self._take(self.below(size_max + 1))

    def _take(self, size: int) -> bytes:
        taken = self._tape[self._at : self._at + size]
        self._at += size
        return taken


class Dice:
    """Choices from a random generator with a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def below(self, bound: int) -> int:
        return self._random.randrange(bound)

    def data(self, size_max: int) -> bytes:
        return self._random.randbytes(min(self.below(size_max + 1), self.below(size_max + 1)))


def pick(choices: Choices, options: list[T] | tuple[T, ...]) -> T:
    return options[choices.below(len(options))]


# --- segments ---

_HEADER_BITS = {1: 16, 2: 16, 3: 32, 5: 64, 6: 64}  # version, flags, epoch, first LSN, created
_EDGES = (0, 1, 2, 3, 127, 255, 2**16 - 1, 2**26 - 1, 2**26, 2**26 + 1, 2**31, 2**32 - 1)
_LONG_EDGES = (*_EDGES, 2**32, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)


def seal(header: list[Any]) -> bytes:
    """Return a segment header with these eight fields and a correct CRC."""
    body = SEGMENT_HEADER.pack(*header, 0)[:-4]
    return body + _CRC.pack(crc32c(body))


def frame(
    seed: int,
    payload: bytes = b"",
    *,
    lsn: int = 1,
    durable_lsn: int = 0,
    size: int | None = None,
    count: int = 1,
    kind: int = RECORDS,
    zero: bytes = bytes(3),
    payload_crc: int | None = None,
) -> bytes:
    """Return a frame with these header fields, which may be wrong, and a correct header CRC."""
    payload_crc = crc32c(payload) if payload_crc is None else payload_crc
    size = len(payload) if size is None else size
    fields = (payload_crc, lsn, durable_lsn, 0, size, count, kind, zero)
    body = FRAME_HEADER.pack(0, *fields)[4:]
    return _CRC.pack(crc32c(body, seed)) + body + payload


def header_of(data: bytes) -> list[Any]:
    return list(SEGMENT_HEADER.unpack(data[: SEGMENT_HEADER.size])[:-1])


def frames_of(data: bytes) -> list[tuple[int, list[Any], bytes]]:
    """Return the offset, header fields and payload of each frame up to the first bad header."""
    frames = []
    seed, at = crc32c(data[:60]), SEGMENT_HEADER.size
    while at + FRAME_HEADER.size <= len(data):
        crc, *fields = FRAME_HEADER.unpack_from(data, at)
        start = at + FRAME_HEADER.size
        if crc != crc32c(data[at + 4 : start], seed):
            break
        payload = data[start : start + fields[4]]
        frames.append((at, fields, payload))
        at = start + len(payload)
    return frames


def _edge(choices: Choices, now: int, bits: int) -> int:
    """Return a number of `bits` bits: one near `now`, or one at which an overflow is likely."""
    neighbors = (now - 1, now + 1, now * 2, now)
    edges: tuple[int, ...] = _LONG_EDGES if bits == 64 else _EDGES
    return pick(choices, neighbors + edges) % (1 << bits)


def _forge_header(choices: Choices, data: bytes) -> bytes:
    """Return the segment with one header field changed, and its frames sealed again."""
    fields = header_of(data)
    at = choices.below(len(fields))
    if at in _HEADER_BITS:
        fields[at] = _edge(choices, fields[at], _HEADER_BITS[at])
    else:
        fields[at] = bytes(len(fields[at]) - 1) + b"\2"  # magic, journal id, zeros
    return reseal(data, fields)


def reseal(data: bytes, header: list[Any]) -> bytes:
    """Return `data` under another header, with its frames as valid as before."""
    head = seal(header)
    seed, parts, end = crc32c(head[:60]), [head], SEGMENT_HEADER.size
    for at, fields, payload in frames_of(data):
        body = FRAME_HEADER.pack(0, *fields)[4:]
        parts.append(_CRC.pack(crc32c(body, seed)) + body + payload)
        end = at + FRAME_HEADER.size + len(payload)
    return b"".join(parts) + data[end:]


def _forge_frame(choices: Choices, data: bytes) -> bytes:
    """Return the segment with another header field, another payload, or both, in one frame."""
    frames = frames_of(data)
    if not frames:
        return data + frame(crc32c(data[:60]), choices.data(50), lsn=1 + choices.below(9))
    at, fields, payload = pick(choices, frames)
    end = at + FRAME_HEADER.size + len(payload)
    kind_of_change = choices.below(10)
    if kind_of_change < 5:
        _, lsn, durable_lsn, _, size, count, kind, zero = fields
        header_fields = {
            "lsn": lsn,
            "durable_lsn": durable_lsn,
            "size": size,
            "count": count,
            "kind": kind,
        }
        key = pick(choices, list(header_fields))
        bits = {"lsn": 64, "durable_lsn": 64, "kind": 8}.get(key, 32)
        header_fields[key] = _edge(choices, header_fields[key], bits)
        forged = frame(crc32c(data[:60]), payload, **header_fields, zero=zero)
    else:
        payload, count = (
            _other_records(choices, payload) if kind_of_change < 8 else records(choices)
        )
        forged = frame(
            crc32c(data[:60]), payload, lsn=fields[1], durable_lsn=fields[2], count=count
        )
    keeps_place = kind_of_change % 2
    return data[:at] + forged + (data[end:] if keeps_place else b"")


_ODD_RECORDS = (
    b"\xc1",  # never used
    b"\xdd\xff\xff\xff\xff",  # an array of 2^32 - 1
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x05",
    b"\x91" * 1100,
    b"\x81\xc0" * 1100,
    b"\x81\x90\xc0",  # a list as a key
    b"\x82\x01\x02\x01\x03",  # the same key twice
    b"\xa2\xff\xfe",
    b"\xa3\xed\xa0\x80",  # half a surrogate pair
    b"\xcb\x7f\xf8\0\0\0\0\0\0",
    b"\xca\x7f\x80\0\0",
    b"\xd4\xff\0",
    b"\xd7\xff" + b"\xff" * 8,
    b"\xc7\x0c\xff" + b"\xff" * 12,
    b"\xc7\0\x05",
    b"\xc7\x01\x80x",
    b"\xaf\x1b]0;owned\x07\x1b[2J\n",
    b"\x96\xa5start\xa1x\x01\xa1b\xc0\xc0",
    b"\x92\xa4boot\xabsubagents/1",
)


def _nested(depth: int) -> Any:
    inner: Any = 1
    for _ in range(depth):
        inner = [inner]
    return inner


_ODD_OBJECTS: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**63, 2**64 - 1, 1.5, float("nan"), float("inf")),
    *("", "\x1b[31m", "agent_000000000001", "running", "x" * 3000, b"\xff", b""),
    *([], {}, [[]], {"a": {1: b"b"}}, msgpack.ExtType(5, b"x"), msgpack.Timestamp(1, 1)),
    _nested(900),
)


def _other_records(choices: Choices, payload: bytes) -> tuple[bytes, int]:
    """Return a payload's records with one value replaced, added or removed, and their number."""
    unpacker = msgpack.Unpacker(strict_map_key=False)
    unpacker.feed(payload)
    unpacked: list[Any] = []
    with suppress(Exception):  # one of them may be forged already
        unpacked.extend(unpacker)
    place: Any = unpacked
    while place and choices.below(4):
        inner = [each for each in place if isinstance(each, list) and each]
        if not inner:
            break
        place = pick(choices, inner)
    at, odd = choices.below(len(place) + 1), pick(choices, _ODD_OBJECTS)
    place[at : at + choices.below(3)] = [odd] * choices.below(3)
    return b"".join(map(msgpack.packb, unpacked)), len(unpacked)


def records(choices: Choices) -> tuple[bytes, int]:
    """Return a payload and the number of records that its header will claim."""
    parts = [
        pick(choices, _ODD_RECORDS) if choices.below(2) else choices.data(30)
        for _ in range(1 + choices.below(3))
    ]
    return b"".join(parts), pick(choices, (len(parts), 1, 0, 2**32 - 1, choices.below(40)))


# --- checkpoints ---

_ODD_VALUES = (
    *(b"0", b"-1", b"1e999", b"-1e999", b"NaN", b"1.5", b"true", b"null", b"[]", b"{}", b'""'),
    *(b"9" * 25, b"9" * 5000, b"4294967295", b"18446744073709551615", b'"\\ud800"', b'"\\u0000"'),
    *(b'"\xff"', b"\xed\xa0\x80", b'"\x1b[31m"', b'{"a":1,"a":2}', b"[" * 1200, b'"x', b"1,"),
    b"[" * 400 + b"]" * 400,
)


def sum_up(body: bytes, *, count: int | None = None) -> bytes:
    """Return a checkpoint with this body and a correct last line, unless `count` is wrong."""
    count = body.count(b"\n") - 3 if count is None else count
    return body + b'"count":%d,"crc32c":"%08x"}\n' % (count, crc32c(body))


def _forge_checkpoint(choices: Choices, data: bytes) -> bytes:
    lines = data.split(b"\n")[:-2]
    kind_of_change = choices.below(7)
    if kind_of_change < 2 and lines:
        lines[0] = _forge_value(choices, lines[0])
    elif kind_of_change < 4 and len(lines) > 3:
        at = 2 + choices.below(len(lines) - 3)
        lines[at] = _forge_value(choices, lines[at])
    elif kind_of_change == 4 and lines:
        del lines[choices.below(len(lines))]
    elif kind_of_change == 5 and lines:
        lines.insert(choices.below(len(lines)), pick(choices, [*_ODD_VALUES, choices.data(40)]))
    elif lines:
        lines = lines[choices.below(len(lines)) :]
    body = b"".join(line + b"\n" for line in lines)
    return sum_up(body, count=None if choices.below(4) else choices.below(9) - 4)


def _forge_value(choices: Choices, line: bytes) -> bytes:
    """Return the JSON line with one value or key replaced."""
    spans = [m.span(1) for m in re.finditer(rb'[:\[,]("[^"]*"|[^][{},:"]+|\[\]|\{\})', line)]
    begin, end = pick(choices, spans) if spans else (0, len(line))
    return line[:begin] + pick(choices, [*_ODD_VALUES, choices.data(20)]) + line[end:]


# --- names, and whole files ---

_DIGITS = str.maketrans("0123456789", "".join(chr(0x660 + n) for n in range(10)))
_ODD_NAMES = (
    "99999999999999999999-9999999999.seg",
    "00000000000000000000-0000000000.seg",
    "18446744073709551615-4294967295.seg",
    "00000000000000000001-4294967295.seg",
    "00000000000000000009-0000000001.seg\n",
    "00000000000000000008-0000000001.seg".translate(_DIGITS),
    "checkpoint-00000000000000000003.json".translate(_DIGITS),
    "checkpoint-00000000000000000000.json",
    "checkpoint-99999999999999999999.json",
    "checkpoint-00000000000000000001.json.tmp",
    "\x1b[31m.seg",
    "\udcff\udcfe.json",
    "LOCK",
)


def _rename(choices: Choices, files: Files, name: str) -> Files:
    data = files[name]
    kept = {n: d for n, d in files.items() if n != name or choices.below(2)}
    if choices.below(2) and name.endswith(".seg") and len(data) >= SEGMENT_HEADER.size:
        fields = header_of(data)
        return kept | {
            f"{fields[5]:020d}-{fields[3]:010d}.seg": data
        }  # the name that its header states
    return kept | {pick(choices, _ODD_NAMES): data}


def _overwrite(choices: Choices, data: bytes) -> bytes:
    at, new = choices.below(len(data) + 1), choices.data(60)
    return data[:at] + new + (data[at + len(new) :] if choices.below(3) else b"")


def _splice(choices: Choices, data: bytes, other: bytes) -> bytes:
    """Return `data` with a piece of `other` spliced in, at frame boundaries if there are any."""
    edges = [at for at, _, _ in frames_of(other)] if len(other) > 64 else []
    begin, end = pick(choices, list(pairwise([*edges, len(other)])) or [(0, len(other))])
    places = [at for at, _, _ in frames_of(data)] if len(data) > 64 else []
    at = pick(choices, [*places, len(data)])
    return data[:at] + other[begin:end] + data[at + (end - begin) * choices.below(2) :]


def _grow(choices: Choices, data: bytes) -> bytes:
    seed = crc32c(data[:60])
    tails: list[Callable[[], bytes]] = [
        lambda: bytes(choices.below(500)),
        lambda: bytes(choices.below(500)) + b"\1",
        lambda: frame(seed, lsn=choices.below(99), count=0, kind=MARK) * (1 + choices.below(3)),
        lambda: b"\1\0\0\0" * choices.below(100),
        lambda: b"\xff" + frame(seed, b"\xc0", lsn=1 + choices.below(99)),
        lambda: choices.data(100),
    ]
    return data + pick(choices, tails)()


def forge(choices: Choices) -> Files:
    """Return the files of a journal, changed one to four times."""
    files = dict(pick(choices, sources()))
    for _ in range(1 + choices.below(4)):
        if not files:
            files = {pick(choices, _ODD_NAMES): choices.data(200)}
        name = pick(choices, sorted(files))
        data = files[name]
        kind_of_change = choices.below(10)
        if kind_of_change < 4 and name.endswith(".json"):
            files[name] = _forge_checkpoint(choices, data)
        elif kind_of_change < 3 and len(data) > SEGMENT_HEADER.size:
            files[name] = _forge_frame(choices, data)
        elif kind_of_change < 4 and len(data) > SEGMENT_HEADER.size:
            files[name] = _forge_header(choices, data)
        elif kind_of_change == 4:
            files[name] = _splice(choices, data, files[pick(choices, sorted(files))])
        elif kind_of_change == 5:
            files[name] = _grow(choices, data)
        elif kind_of_change == 6:
            files = _rename(choices, files, name)
        elif kind_of_change == 7:
            files.pop(name)
        else:
            files[name] = _overwrite(choices, data)
    return files
