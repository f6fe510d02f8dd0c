"""Pieces: the parts of values that are too large for one record.

    ["piece", upload id, n, bytes]     piece n, from 0 on, of a value; the id is 16 random bytes
    ["rows", [table, key, [upload id, count]], ...]    publishes its `count` pieces as the value
    ["drop", [upload id, ...]]         removes uploads that will not be published

No reader sees pieces before a record publishes them. A checkpoint has the unpublished pieces before
all rows:

    {"upload":{"$bytes":"<id>"},"piece":{"$bytes":"<base64>"}}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from journal._format.items import encode_item, encode_large
from journal._tables.expiry import HEAD_BYTES, expiry_of

PIECE = "piece"
DROP = "drop"
ID_BYTES = 16
PIECE_BYTES_MAX = 1 << 20

Pieces = tuple[bytes, ...]


def bounds(stored: bytes, piece_bytes: int = PIECE_BYTES_MAX) -> list[slice]:
    """Return the bounds of the pieces of a stored value. If it expires, its head is a piece of its
    own."""
    start, end = 0 if expiry_of(stored) is None else HEAD_BYTES, len(stored)
    head = [slice(start)] if start else []
    rest = [slice(at, min(at + piece_bytes, end)) for at in range(start, end, piece_bytes)]
    return head + rest


def split(stored: bytes) -> Pieces:
    return tuple(stored[part] for part in bounds(stored))


class Uploads:
    """The unpublished pieces. Guarded by the owner's lock."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: dict[bytes, list[bytes]] = {}

    def __contains__(self, upload_id: bytes) -> bool:
        return upload_id in self._pieces

    def ids(self) -> list[bytes]:
        return list(self._pieces)

    def add(self, upload_id: bytes, piece: bytes) -> None:
        self._pieces.setdefault(upload_id, []).append(piece)

    def take(self, upload_id: bytes) -> Pieces:
        """Remove an upload that is being published, and return its pieces."""
        return tuple(self._pieces.pop(upload_id))

    def drop(self, upload_ids: list[bytes]) -> list[list[bytes]]:
        """Remove uploads, and return their pieces."""
        return [self._pieces.pop(upload_id) for upload_id in upload_ids]

    def freeze(self) -> list[tuple[bytes, Pieces]]:
        return [(upload_id, tuple(pieces)) for upload_id, pieces in self._pieces.items()]

    def pieces(self, reference: Any) -> Pieces:
        """Return the pieces that a record refers to. Raises ValueError if any is missing."""
        if len(reference) != 2 or type(reference[0]) is not bytes:
            raise ValueError("a value in pieces is a list of an upload's id and a count")
        upload_id, count = reference
        pieces = self._pieces.get(upload_id, [])
        if not pieces or type(count) is not int or count != len(pieces):
            raise ValueError(f"upload {upload_id.hex():.32} has {len(pieces)} pieces")
        if expiry_of(pieces[0]) is not None and len(pieces[0]) != HEAD_BYTES:
            raise ValueError("the time at which a value in pieces expires is not its first piece")
        return tuple(pieces)

    def check(self, record: Any) -> None:
        """Raise TypeError or ValueError for a piece or a removal that Tables never write."""
        if record[0] == DROP:
            if len(record) != 2 or type(record[1]) is not list or not record[1]:
                raise ValueError("a removal of pieces has a list of ids")
            if len(set(record[1])) != len(record[1]) or any(id not in self for id in record[1]):
                raise ValueError("a removal of pieces that are not there")
            return
        if len(record) != 4 or type(record[2]) is not int:
            raise ValueError("a piece has an id, a number and bytes")
        _, upload_id, number, piece = record
        check_piece(upload_id, piece)
        if number != len(self._pieces.get(upload_id, ())):
            raise ValueError(f"piece {number} of upload {upload_id.hex()} is not its next")


def check_piece(upload_id: Any, piece: Any) -> None:
    """Raise TypeError or ValueError unless these can be the id and a piece of an upload."""
    if type(upload_id) is not bytes or type(piece) is not bytes:
        raise TypeError("an upload's id and a piece are bytes")
    if len(upload_id) != ID_BYTES or not 0 < len(piece) <= PIECE_BYTES_MAX:
        raise ValueError(f"an upload's id has {ID_BYTES} bytes, a piece 1 to {PIECE_BYTES_MAX}")


def upload_lines(uploads: list[tuple[bytes, Pieces]]) -> Iterator[bytes]:
    """Yield a line of a checkpoint for each unpublished piece."""
    for upload_id, pieces in uploads:
        head = b'{"upload":%b,"piece":' % encode_item(upload_id, 0)
        for piece in pieces:
            yield b"%b%b}" % (head, encode_large(piece, 0))
