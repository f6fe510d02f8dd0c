"""The note of the last place: it is read back as it was written, or not at all."""

from __future__ import annotations

from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal._disk.posix import PosixDisk
from journal._format.crc32c import checksum
from journal._mirror.entry import BYTES, MirrorDamageError, MirrorEntry, Piece
from journal._mirror.place_note import Extent, Known, read_note, write_note
from journal.testing import SimulatedDisk
from tests.mirror.world import SEGMENT

SIZES = st.integers(0, 9)
OTHER = SEGMENT.replace("1-", "9-", 1)


def bytes_at(*pieces: Piece, number: int = 2) -> MirrorEntry:
    return MirrorEntry(BYTES, number, 1, b"nonce..2", b"nonce..1", 1, 7, pieces=list(pieces))


def test_a_note_is_read_back(tmp_path: Path) -> None:
    """A note has the place, the LSN and the bytes of each segment that is still there."""
    directory = PosixDisk().open_directory(tmp_path, write=True)
    (tmp_path / SEGMENT).touch()
    known = Known()
    known.add(bytes_at(Piece(OTHER, 0, b"abc"), Piece(SEGMENT, 0, b"defg")))
    for _ in range(2):  # a second note replaces the first
        write_note(directory, known)
    found = read_note(directory)
    assert found == known
    assert found.place == (2, b"nonce..2", 2)
    assert (found.last_lsn, found.cursor.offset) == (7, 4)
    assert found.extents == {SEGMENT: Extent(4, checksum(b"defg"))}
    directory.close(unlock=False)


def test_a_flipped_bit_is_noticed() -> None:
    """A note with any other bit is none: it could name a place that was never read."""
    disk = SimulatedDisk.holding("/j", {SEGMENT: b""})
    directory = disk.open_directory("/j", write=True)
    known = Known()
    known.add(bytes_at(Piece(SEGMENT, 0, b"abc")))
    write_note(directory, known)
    whole = disk.contents("/j")["MIRROR.place"]
    file = directory.open("MIRROR.place", "update")
    for offset, byte in enumerate(whole):
        file.write(bytes([byte ^ 1]), offset)
        assert read_note(directory) is None
        file.write(bytes([byte]), offset)
    assert read_note(directory) == known


@given(st.binary(min_size=20, max_size=20), st.lists(st.tuples(SIZES, SIZES), max_size=8))
def test_the_crc_does_not_depend_on_the_pieces(whole: bytes, steps: list[tuple[int, int]]) -> None:
    """Pieces that come twice or overlap, as those of a roll-up do, change nothing. A gap is
    damage."""
    known, end = Known(), 0
    for back, size in steps:
        begin = max(end - back, 0)
        known.add(bytes_at(Piece(SEGMENT, begin, whole[begin : begin + size + 1])))
        end = max(end, min(begin + size + 1, len(whole)))
    assert known.size(SEGMENT) == end
    assert known.extents == ({SEGMENT: Extent(end, checksum(whole[:end]))} if end else {})
    with pytest.raises(MirrorDamageError, match=" are missing"):
        known.add(bytes_at(Piece(SEGMENT, end + 1, b"x")))


values = st.recursive(st.none() | st.integers() | st.binary(), st.lists, max_leaves=3)


@given(st.binary() | st.lists(values, min_size=7, max_size=7))
def test_any_other_content_is_no_note(content: object) -> None:
    """A file that no version of the note fits is as good as none, and never an error."""
    data = content if isinstance(content, bytes) else b""
    if isinstance(content, list):
        try:
            body = msgpack.packb([1, *content[1:]])
        except (OverflowError, UnicodeEncodeError):
            return
        data = b"JMPL" + checksum(body).to_bytes(4, "little") + body
    disk = SimulatedDisk.holding("/j", {"MIRROR.place": data})
    assert read_note(disk.open_directory("/j", write=False)) is None
