"""The note of the last place: the part of its mirror that a directory holds, as its last user knew
it.

With it, a writer or a follower that opens the directory reads only what the mirror got since then.
The note is never trusted by itself. The directory may have been rolled back or written to without
its mirror, and the mirror may have been emptied. So the note states a CRC32C of each segment, and
the nonce of the last entry that was read. If one of them does not match, or if the mirror lacks the
name of an earlier entry, everything is compared.

    offset  size  field (little-endian)
    0       4     magic 4A 4D 50 4C
    4       4     CRC32C of what follows
    8             a msgpack array: version, number, nonce, sure, last LSN, cursor, segments
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack

from journal._disk.disk import TMP, Directory, is_disk_error, remove_if_exists, write_all
from journal._format.crc32c import checksum
from journal._format.layout import CRC
from journal._format.segment import segment_names
from journal._mirror.entry import NONCE_BYTES, MirrorDamageError, MirrorEntry, Piece
from journal._mirror.reading import BEGINNING, Place
from journal._mirror.unshipped import BEGINNING as NOTHING
from journal._mirror.unshipped import Cursor
from journal._mutex import is_raised_by_call
from journal._names import MIRROR_PLACE

_MAGIC = b"JMPL"
_VERSION = 1
_HEADER_BYTES = len(_MAGIC) + CRC.size
_BYTES_MAX = 64 << 20
_READ_BYTES = 1 << 20


class Extent(NamedTuple):
    """The bytes of a segment that a mirror has: their number, and their CRC32C."""

    size: int = 0
    crc: int = 0


@dataclass(slots=True)
class Known:
    """The knowledge of a mirror: how far its log was read, and which bytes it has.

    place: the end of what was read. cursor: the end of the bytes. last_lsn: the LSN up to which the
    mirror has every record. extents: the bytes of each segment, by the segment's name.
    """

    place: Place = BEGINNING
    cursor: Cursor = NOTHING
    last_lsn: int = 0
    extents: dict[str, Extent] = field(default_factory=dict)

    def add(self, entry: MirrorEntry) -> None:
        """Note an entry or a part of a blob, which was read or appended next. Bytes that are known
        already are the same, and checkpoints are not noted. Raises MirrorDamageError if bytes
        before its own are missing."""
        for piece in entry.pieces:
            if not piece.is_checkpoint:
                self.add_piece(piece, entry.number)
        self.pass_by(entry)

    def pass_by(self, entry: MirrorEntry) -> None:
        """Note that an entry was read or appended, whose pieces are noted."""
        self.place = self.place.after(entry)
        self.cursor = self.cursor.after(entry.pieces)
        self.last_lsn = max(self.last_lsn, entry.last_lsn)

    def add_piece(self, piece: Piece, number: int) -> None:
        """Note the bytes of a piece of the entry `number`. Raises MirrorDamageError if bytes before
        them are missing."""
        size, crc = self.extents.get(piece.name, Extent())
        if piece.offset > size:
            problem = f"bytes {size} to {piece.offset} of {piece.name} are missing"
            raise MirrorDamageError(number, problem)
        if piece.end > size:
            rest = memoryview(piece.data)[size - piece.offset :]
            self.extents[piece.name] = Extent(piece.end, checksum(rest, crc))

    def size(self, name: str) -> int:
        """Return the number of bytes of a segment that the mirror has."""
        return self.extents.get(name, Extent()).size

    def is_in(self, directory: Directory, is_covered: Callable[[str], bool]) -> bool:
        """Return whether the directory has all of these bytes.

        `is_covered`: returns whether a segment that is not there may be missing, because a
        checkpoint covers it. Raises the disk's errors.
        """
        names = set(directory.names())
        return all(
            _crc_of(directory, name, extent.size) == extent.crc
            if name in names
            else is_covered(name)
            for name, extent in self.extents.items()
        )


def _crc_of(directory: Directory, name: str, size: int) -> int | None:
    """Return the CRC32C of the first `size` bytes of a file, or None if it has fewer."""
    file = directory.open(name, "read")
    try:
        crc = offset = 0
        while offset < size:
            data = file.read(min(_READ_BYTES, size - offset), offset)
            if not data:
                return None
            crc, offset = checksum(data, crc), offset + len(data)
        return crc
    finally:
        file.close()


def read_note(directory: Directory) -> Known | None:
    """Return the note of a directory, or None if there is none that is whole. A crash may have left
    a part of it, since it is not synced. Raises the disk's errors."""
    try:
        file = directory.open(MIRROR_PLACE, "read")
    except FileNotFoundError as error:
        if not is_disk_error(error, directory):
            raise
        return None
    try:
        data = file.read(_BYTES_MAX, 0)
    finally:
        file.close()
    body = memoryview(data)[_HEADER_BYTES:]
    if data[: len(_MAGIC)] != _MAGIC or len(data) <= _HEADER_BYTES:
        return None
    if CRC.unpack_from(data, len(_MAGIC))[0] != checksum(body):
        return None
    try:
        return _from_values(msgpack.unpackb(body))
    except (ValueError, TypeError, LookupError) as error:
        if not is_raised_by_call(error, "journal", "msgpack"):
            raise
        return None  # of another version


def write_note(directory: Directory, known: Known) -> None:
    """Replace the note of a directory. Segments that are no longer there are left out.

    It is not synced, because a wrong note costs only time. For the same reason, errors of the disk
    are ignored.
    """
    try:
        names = set(directory.names())
        known.extents = {name: each for name, each in known.extents.items() if name in names}
        unfinished = MIRROR_PLACE + TMP
        if unfinished in names:
            directory.remove(unfinished)
        file = directory.open(unfinished, "create")
        try:
            body = msgpack.packb(_values(known))
            write_all(file, b"".join((_MAGIC, CRC.pack(checksum(body)), body)), 0)
        finally:
            file.close()
        directory.rename(unfinished, MIRROR_PLACE)
    except OSError as error:
        if not is_disk_error(error, directory):
            raise


def remove_note(directory: Directory) -> None:
    """Remove the note of a directory, if there is one."""
    remove_if_exists(directory, MIRROR_PLACE)


def _values(known: Known) -> list[Any]:
    segment, offset = known.cursor
    extents = [[name, *extent] for name, extent in known.extents.items()]
    return [_VERSION, *known.place, known.last_lsn, [str(segment or ""), offset], extents]


def _from_values(values: Any) -> Known | None:
    version, number, nonce, sure, last_lsn, (name, offset), extents = values
    numbers = (number, sure, last_lsn, offset)
    if version != _VERSION or any(type(each) is not int or each < 0 for each in numbers):
        return None
    if type(nonce) is not bytes or len(nonce) != NONCE_BYTES:
        return None
    segment = segment_names([name])[0] if name else None
    known = {name: Extent(int(size), int(crc)) for name, size, crc in extents}
    if len(segment_names(list(known))) != len(known):
        return None
    return Known(Place(number, nonce, sure), Cursor(segment, offset), last_lsn, known)
