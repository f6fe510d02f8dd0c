"""Blobs: their names, and their bytes, which are read and written in parts.

    LAST-FIRST.roll                  a roll-up: the bytes of the entries from FIRST to LAST
    NUMBER-LSN-MS.ckpt               a checkpoint of the state as of LSN, made at the time MS. What
                                     follows it is in the entries after NUMBER
    NUMBER-LSN-MS-NONCE.base         a base: checkpoints, of which the oldest is as of LSN, and the
                                     log after them. It is true if entry NUMBER has that nonce

A blob that holds what its name states is true, whichever writer put it. Each part is preceded by
its size in four bytes, little-endian.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from journal._format.layout import CRC
from journal._mirror.entry import (
    BASE,
    CHECKPOINT,
    ROLL_UP,
    MirrorDamageError,
    MirrorEntry,
    Piece,
    decode,
)
from journal._mirror.store import Store

PART_BYTES = 1 << 20
_PART_BYTES_MAX = 1 << 27
_ROLL_UP_NAME = re.compile(r"([0-9]{20})-([0-9]{20})\.roll")
_CHECKPOINT_NAME = re.compile(
    r"([0-9]{20})-([0-9]{20})-([0-9]{14})(?:\.ckpt|-([0-9a-f]{16})\.base)"
)
_MS_MAX = 10**14 - 1


class RollUpName(NamedTuple):
    """The name of a roll-up. Names sort by the last number that they hold."""

    last: int
    first: int

    def __str__(self) -> str:
        return f"{self.last:020d}-{self.first:020d}.roll"


class CheckpointName(NamedTuple):
    """The name of a checkpoint's or a base's blob. Names sort by the last entry that they cover.

    lsn: the first LSN as of which a state can be restored from it. made_ms: the time at which the
    checkpoint was made, in Unix milliseconds. nonce: for a base, the nonce of its entry, in
    hexadecimal digits.
    """

    number: int
    lsn: int
    made_ms: int
    nonce: str = ""

    def __str__(self) -> str:
        ending = f"-{self.nonce}.base" if self.nonce else ".ckpt"
        made_ms = min(max(self.made_ms, 0), _MS_MAX)
        return f"{self.number:020d}-{self.lsn:020d}-{made_ms:014d}{ending}"


def roll_up_names(names: Iterable[str]) -> list[RollUpName]:
    """Return the roll-ups among the names of blobs, in the order of their last numbers."""
    matches = map(_ROLL_UP_NAME.fullmatch, names)
    return sorted(RollUpName(int(match[1]), int(match[2])) for match in matches if match)


def checkpoint_names(names: Iterable[str]) -> list[CheckpointName]:
    """Return the checkpoints and bases among the names of blobs, in the order of the entries that
    they cover. Whether a base is true is for the caller to find out."""
    matches = map(_CHECKPOINT_NAME.fullmatch, names)
    return sorted(
        CheckpointName(int(match[1]), int(match[2]), int(match[3]), match[4] or "")
        for match in matches
        if match
    )


def encode_blob(header: MirrorEntry, pieces: Iterable[Piece]) -> Iterator[bytes]:
    """Yield the bytes of a blob, part by part. Pass on what `pieces` raises."""
    part: list[Piece] = []
    size = 0
    for piece in pieces:
        if part and size + len(piece.data) > PART_BYTES:
            yield _part(replace(header, pieces=part, more=True))
            part, size = [], 0
        part.append(piece)
        size += len(piece.data)
    yield _part(replace(header, pieces=part, more=False))


def _part(entry: MirrorEntry) -> bytes:
    data = entry.encode()
    return CRC.pack(len(data)) + data


def read_blob(store: Store, name: RollUpName | CheckpointName) -> Iterator[MirrorEntry]:
    """Yield the parts of a blob. Raises AbsentError, MirrorDamageError and what the store raises.

    AbsentError comes before the first part.
    """
    number = name.last if isinstance(name, RollUpName) else name.number
    kind = ROLL_UP if isinstance(name, RollUpName) else BASE if name.nonce else CHECKPOINT
    try:
        more = True
        for data in _sized_parts(store.blob(str(name)), number):
            entry = decode(data, number)
            is_named = entry.first == name.first if isinstance(name, RollUpName) else True
            if isinstance(name, CheckpointName) and name.nonce:
                is_named = entry.nonce.hex() == name.nonce
            if not more or entry.kind != kind or not is_named:
                raise MirrorDamageError(number, "it holds something else")
            more = entry.more
            yield entry
        if more:
            raise MirrorDamageError(number, "it ends too early")
    except MirrorDamageError as error:
        error.name = str(name)
        raise


def _sized_parts(pieces: Iterable[bytes], number: int) -> Iterator[bytes]:
    data = b""
    for piece in pieces:
        data += piece
        at = 0
        while len(data) - at >= CRC.size:
            size = CRC.unpack_from(data, at)[0]
            if size > _PART_BYTES_MAX:
                raise MirrorDamageError(number, f"it has a part of {size} bytes")
            if len(data) - at - CRC.size < size:
                break
            yield data[at + CRC.size : at + CRC.size + size]
            at += CRC.size + size
        data = data[at:]
    if data:
        raise MirrorDamageError(number, "it ends in the middle of a part")
