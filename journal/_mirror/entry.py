"""MirrorEntry: the contents of a mirror's entries and blobs, and their bytes.

An entry holds bytes at offsets of segments, never records. So a mirror is the journal's directory,
byte for byte. A blob consists of parts, each of which is encoded like an entry.

    offset  size  field (little-endian)
    0       4     magic 4A 4D 49 52
    4       4     CRC32C of what follows
    8             a msgpack array: version, kind, first, number, epoch, nonce, follows,
                  claim number, last LSN, claim, pieces, from LSN, more
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack

from journal._format.crc32c import checksum
from journal._format.layout import CRC, LSN_MAX
from journal._format.segment import SegmentName
from journal._mirror.errors import MirrorReason
from journal._mirror.store import StoreError
from journal._mutex import is_raised_by_call
from journal._names import CHECKPOINT_NAME, SEGMENT_NAME

# ROLL_UP and CHECKPOINT are blobs. A BASE is an entry, which makes a blob of that kind true.
CLAIM, BYTES, RELEASE, ROLL_UP, CHECKPOINT, BASE = 1, 2, 3, 4, 5, 6
KINDS = (CLAIM, BYTES, RELEASE, ROLL_UP, CHECKPOINT, BASE)
BLOBS = (ROLL_UP, CHECKPOINT, BASE)
NONCE_BYTES = 8
_MAGIC = b"JMIR"
_VERSION = 1
_HEADER_BYTES = len(_MAGIC) + CRC.size
_OFFSET_MAX = 1 << 41  # twice the largest segment
_CHECKPOINT_BYTES_MAX = 1 << 50
_OVERHEAD_BYTES = 1 << 10  # what an entry takes beside its pieces
_PIECE_OVERHEAD_BYTES = 1 << 6


class MirrorDamageError(StoreError):
    """An entry or a blob of a mirror is missing, damaged or foreign.

    number: the entry's, or that of the last entry that the blob stands for. name: the blob's, or ""
    for an entry. lsn: the first LSN that can't be read because of it, 0 if that is not known.
    """

    def __init__(self, number: int, problem: str, *, name: str = "", lsn: int = 0) -> None:
        super().__init__(number, problem)
        self.number = number
        self.problem = problem
        self.name = name
        self.lsn = lsn

    def __str__(self) -> str:
        lost = f"; what follows LSN {self.lsn - 1} can't be read" if self.lsn else ""
        what = f"blob {self.name}, entry {self.number}" if self.name else f"entry {self.number}"
        return f"{what}: {self.problem}{lost}"


class NewerEntryError(MirrorDamageError):
    """An entry was written by a newer version."""

    reason = MirrorReason.NEWER_VERSION


class Claim(NamedTuple):
    """The statement of a writer that claims a mirror. `writer` is the id in its marker."""

    journal_id: str
    application: str
    format_version: int
    host: str
    pid: int
    claimed_at_ns: int
    writer: str = ""


class Piece(NamedTuple):
    """Bytes at an offset of the file `name`, which is a segment, or in some blobs a checkpoint."""

    name: str
    offset: int
    data: bytes

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.offset + len(self.data)

    @property
    def is_checkpoint(self) -> bool:
        """True for bytes of a checkpoint, False for those of a segment."""
        return is_checkpoint(self.name)


def is_checkpoint(name: str) -> bool:
    """Return whether a name that was checked is that of a checkpoint, not of a segment."""
    return name.startswith("checkpoint-")


def segment_name(name: str) -> SegmentName:
    """Return the parts of the name of a segment."""
    lsn, epoch = name.removesuffix(".seg").split("-")
    return SegmentName(int(lsn), int(epoch))


@dataclass(frozen=True, slots=True)
class MirrorEntry:
    """An entry, or a part of a blob that stands for the entries from `first` to `number`.

    A ROLL_UP holds the bytes of these entries, a CHECKPOINT the state that they lead to. A BASE
    holds checkpoints and the log after them: where bytes that were never mirrored are gone, the
    mirror starts again from it.

    epoch: the writer's epoch. nonce: identifies the entry, together with its number; a blob has the
    nonce of its last entry. follows: the nonce of the entry before, empty for entry 1.
    claim_number: the number of the claim under which it was written. last_lsn: the LSN up to which
    the mirror has every record, from this entry on. from_lsn: for a CHECKPOINT, no segment that
    begins before this LSN is needed; for a BASE, the first LSN as of which it can be restored.
    claim: the statement of a claim. more: another part of the blob follows.
    """

    kind: int
    number: int
    epoch: int
    nonce: bytes
    follows: bytes
    claim_number: int
    last_lsn: int
    first: int = 0
    claim: Claim | None = None
    pieces: list[Piece] = field(default_factory=list)
    from_lsn: int = 0
    more: bool = False

    def encode(self) -> bytes:
        body = msgpack.packb(
            [
                _VERSION,
                self.kind,
                self.first or self.number,
                self.number,
                self.epoch,
                self.nonce,
                self.follows,
                self.claim_number,
                self.last_lsn,
                list(self.claim) if self.claim else None,
                [list(piece) for piece in self.pieces],
                self.from_lsn,
                self.more,
            ]
        )
        return b"".join((_MAGIC, CRC.pack(checksum(body)), body))


def decode(data: bytes, number: int) -> MirrorEntry:
    """Return the entry that was read as entry `number`.

    Raises MirrorDamageError for anything that no writer of a mirror puts there, such as a name that
    leads out of the directory.
    """
    if data[: len(_MAGIC)] != _MAGIC or len(data) < _HEADER_BYTES:
        raise MirrorDamageError(number, "it is not an entry of a mirror; something else wrote it")
    body = memoryview(data)[_HEADER_BYTES:]
    if CRC.unpack_from(data, len(_MAGIC))[0] != checksum(body):
        raise MirrorDamageError(number, "its checksum does not match its bytes")
    try:
        values = msgpack.unpackb(body, strict_map_key=False)
    except Exception as error:  # of any kind, whatever the bytes are
        if not is_raised_by_call(error, "msgpack"):
            raise
        raise MirrorDamageError(number, f"it does not unpack: {error}") from error
    if not isinstance(values, list) or not values or type(values[0]) is not int:
        raise MirrorDamageError(number, "it is not an entry of a mirror; something else wrote it")
    if values[0] > _VERSION:
        problem = f"its version {values[0]} is newer than {_VERSION}; use a newer journal-engine"
        raise NewerEntryError(number, problem)
    try:
        entry = _from_values(values)
    except (ValueError, TypeError) as error:
        if not is_raised_by_call(error, "journal"):
            raise
        raise MirrorDamageError(number, f"no writer writes that: {error}") from error
    if entry.number != number:
        raise MirrorDamageError(number, f"it states number {entry.number}")
    return entry


def pack_pieces(pieces: Iterable[Piece], bytes_max: int) -> list[list[Piece]]:
    """Split pieces into groups, each of which fits into an entry of `bytes_max` bytes."""
    groups: list[list[Piece]] = []
    room = 0
    for name, offset, data in pieces:
        while data:
            if room <= _PIECE_OVERHEAD_BYTES:
                groups.append([])
                room = bytes_max - _OVERHEAD_BYTES
            size = min(len(data), room - _PIECE_OVERHEAD_BYTES)
            groups[-1].append(Piece(name, offset, data[:size]))
            room -= size + _PIECE_OVERHEAD_BYTES
            offset, data = offset + size, data[size:]
    return groups


def _from_values(values: list[Any]) -> MirrorEntry:
    """Return an entry after checking each of its values."""
    kind, first, number, epoch, nonce, follows, claim_number, *others = values[1:]
    last_lsn, claim, pieces, from_lsn, more = others
    _need(type(kind) is int and kind in KINDS, "an unknown kind")
    _need_whole(1, LSN_MAX, number, epoch, claim_number)
    _need_whole(1, number, first)
    _need_whole(0, LSN_MAX, last_lsn, from_lsn)
    _need(first == number or kind in (ROLL_UP, CHECKPOINT), "a run of several entries")
    _need(claim_number <= number and (kind != CLAIM or claim_number == number), "another claim")
    _need(isinstance(nonce, bytes) and len(nonce) == NONCE_BYTES, "a nonce of another size")
    expected = 0 if first == 1 else NONCE_BYTES
    _need(isinstance(follows, bytes) and len(follows) == expected, "a wrong predecessor")
    _need((claim is None) == (kind != CLAIM), "a claim without a statement, or the reverse")
    _need(isinstance(pieces, list), "no pieces")
    _need(bool(pieces) == (kind == BYTES) or kind in BLOBS, "pieces where none belong")
    _need(type(more) is bool and (kind in BLOBS or not more), "a part where none belongs")
    has_checkpoints = kind in (CHECKPOINT, BASE)
    return MirrorEntry(
        kind=kind,
        number=number,
        epoch=epoch,
        nonce=nonce,
        follows=follows,
        claim_number=claim_number,
        last_lsn=last_lsn,
        first=first,
        claim=_claim(claim) if claim is not None else None,
        pieces=[_piece(piece, has_checkpoints=has_checkpoints) for piece in pieces],
        from_lsn=from_lsn,
        more=more,
    )


def _claim(values: Any) -> Claim:
    claim = Claim(*values)
    texts = claim.journal_id, claim.application, claim.host, claim.writer
    _need(all(isinstance(text, str) for text in texts), "a claim without its texts")
    _need_whole(0, LSN_MAX, claim.format_version, claim.pid, claim.claimed_at_ns)
    return claim


def _piece(values: Any, *, has_checkpoints: bool) -> Piece:
    piece = Piece(*values)
    name = piece.name if isinstance(piece.name, str) else ""
    is_checkpoint = has_checkpoints and bool(CHECKPOINT_NAME.fullmatch(name))
    named = is_checkpoint or bool(SEGMENT_NAME.fullmatch(name))
    _need(named, f"the file {piece.name!r:.80}, which is not a segment")
    _need(isinstance(piece.data, bytes) and len(piece.data) > 0, "a piece without bytes")
    offset_max = _CHECKPOINT_BYTES_MAX if is_checkpoint else _OFFSET_MAX
    _need_whole(0, offset_max - len(piece.data), piece.offset)
    return piece


def _need(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def _need_whole(least: int, most: int, *numbers: Any) -> None:
    for number in numbers:
        _need(type(number) is int and least <= number <= most, f"the number {number!r:.40}")
