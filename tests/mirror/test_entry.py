"""The bytes of an entry: what is written is read back, and nothing else is accepted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal._format.crc32c import checksum
from journal._mirror.entry import (
    BASE,
    BYTES,
    CHECKPOINT,
    CLAIM,
    ROLL_UP,
    Claim,
    MirrorDamageError,
    MirrorEntry,
    Piece,
    decode,
    pack_pieces,
)

NAME = f"{1:020d}-{1:010d}.seg"
CHECKPOINT_NAME = f"checkpoint-{80:020d}.json"
ENTRY = MirrorEntry(
    kind=BYTES,
    number=7,
    epoch=3,
    nonce=b"n" * 8,
    follows=b"f" * 8,
    claim_number=5,
    last_lsn=90,
    first=7,
    pieces=[Piece(NAME, 64, b"bytes"), Piece(NAME, 69, b"\0")],
)
STATEMENT = Claim("ab" * 16, "app", 1, "host", 12, 1_700_000_000_000_000_000)


@pytest.mark.parametrize(
    "entry",
    [
        ENTRY,
        replace(ENTRY, kind=CLAIM, claim_number=7, claim=STATEMENT, pieces=[]),
        replace(ENTRY, kind=ROLL_UP, first=2),
        replace(ENTRY, kind=ROLL_UP, first=1, follows=b"", pieces=[]),
        replace(ENTRY, kind=CHECKPOINT, pieces=[Piece(CHECKPOINT_NAME, 1 << 45, b"x")]),
        replace(ENTRY, kind=BASE, from_lsn=80, more=True),
        replace(ENTRY, kind=BASE, pieces=[]),
    ],
)
def test_an_entry_is_read_back(entry: MirrorEntry) -> None:
    """Each kind of entry comes back equal."""
    assert decode(entry.encode(), 7) == entry


@given(data=st.binary(max_size=200))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    """Whatever else is in the store, reading it as an entry raises MirrorDamageError only."""
    for candidate in (data, b"JMIR" + data, ENTRY.encode()[: len(data)]):
        with pytest.raises(MirrorDamageError):
            decode(candidate, 7)


@given(at=st.integers(0, len(ENTRY.encode()) - 1), bit=st.integers(0, 7))
def test_each_damaged_bit_is_noticed(at: int, bit: int) -> None:
    """An entry with one wrong bit is refused."""
    data = bytearray(ENTRY.encode())
    data[at] ^= 1 << bit
    with pytest.raises(MirrorDamageError, match="entry 7: "):
        decode(bytes(data), 7)


PLACES = {
    "version": 0, "kind": 1, "first": 2, "number": 3, "epoch": 4, "nonce": 5, "follows": 6,
    "claim_number": 7, "last_lsn": 8, "claim": 9, "pieces": 10, "from_lsn": 11, "more": 12,
}  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("version", 2, "version 2 is newer"),
        ("kind", 7, "an unknown kind"),
        ("kind", [], "an unknown kind"),
        ("kind", CLAIM, "another claim"),
        ("first", 3, "a run of several entries"),
        ("number", 8, "a run of several"),
        ("number", True, "the number True"),
        ("epoch", 0, "the number 0"),
        ("epoch", 1.5, "the number 1.5"),
        ("nonce", b"", "a nonce of another size"),
        ("follows", b"", "a wrong predecessor"),
        ("claim_number", 8, "another claim"),
        ("last_lsn", -1, "the number -1"),
        ("last_lsn", 2**64 - 1, "the number 18446744073709551615"),
        ("claim", list(STATEMENT), "a claim without a statement, or the reverse"),
        ("pieces", [], "pieces where none belong"),
        ("pieces", {}, "no pieces"),
        ("pieces", [[NAME, 64]], "missing 1 required"),
        ("pieces", [["../../etc/passwd", 0, b"x"]], "the file '../../etc/passwd', which is not a"),
        ("pieces", [["LOCK", 0, b"x"]], "the file 'LOCK'"),
        ("pieces", [[f"{NAME}\n", 0, b"x"]], "which is not a segment"),
        ("pieces", [[7, 0, b"x"]], "the file 7"),
        ("pieces", [[NAME, -1, b"x"]], "the number -1"),
        ("pieces", [[NAME, 1 << 41, b"x"]], "the number 2199023255552"),
        ("pieces", [[NAME, 0, b""]], "a piece without bytes"),
        ("pieces", [[NAME, 0, "text"]], "a piece without bytes"),
        ("pieces", [[CHECKPOINT_NAME, 0, b"x"]], "which is not a segment"),
        ("from_lsn", -1, "the number -1"),
        ("more", True, "a part where none belongs"),
        ("more", 1, "a part where none belongs"),
    ],
)
def test_a_value_that_no_writer_writes_is_refused(place: str, value: Any, problem: str) -> None:
    """An entry with a good checksum is refused all the same if one of its values is impossible.
    No name leads out of the directory."""
    values = msgpack.unpackb(ENTRY.encode()[8:])
    values[PLACES[place]] = value
    with pytest.raises(MirrorDamageError) as raised:
        decode(forged(values), 7)
    assert problem in str(raised.value)


@pytest.mark.parametrize("values", [None, 7, [], [1], ["1"], {}, [1] * 13, [1] * 14])
def test_another_structure_is_refused(values: Any) -> None:
    """A good checksum over something else is refused."""
    with pytest.raises(MirrorDamageError):
        decode(forged(values), 7)


def test_an_entry_under_another_number_is_refused() -> None:
    """An entry that was copied to another number is refused."""
    with pytest.raises(MirrorDamageError, match="entry 8: it states number 7"):
        decode(ENTRY.encode(), 8)


@given(sizes=st.lists(st.integers(0, 5000), max_size=12), bytes_max=st.integers(1200, 6000))
def test_pieces_are_split_to_fit(sizes: list[int], bytes_max: int) -> None:
    """No group makes an entry over the limit, and together the groups hold the same bytes at the
    same offsets."""
    pieces = [Piece(NAME, 10_000 * at, bytes([at + 1]) * size) for at, size in enumerate(sizes)]
    groups = pack_pieces(pieces, bytes_max)
    assert all(len(replace(ENTRY, pieces=group).encode()) <= bytes_max for group in groups)
    found = bytearray(130_000)
    for piece in (piece for group in groups for piece in group):
        found[piece.offset : piece.end] = piece.data
    expected = bytearray(130_000)
    for piece in pieces:
        expected[piece.offset : piece.end] = piece.data
    assert found == expected


def forged(values: Any) -> bytes:
    body: bytes = msgpack.packb(values)
    return b"JMIR" + checksum(body).to_bytes(4, "little") + body
