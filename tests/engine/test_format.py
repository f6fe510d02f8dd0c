"""The bytes on disk: the format page, and a reader that was written from that page alone."""

from __future__ import annotations

import ast
import re
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pytest

from journal._format import crc32c as crc32c_module
from journal._format.crc32c import checksum
from tests.independent_reader import (
    Checkpoint,
    FormatError,
    Frame,
    SegmentHeader,
    crc32c,
    decode_checkpoint,
    decode_files,
    decode_segment,
    encode_checkpoint,
)

PAGE = (Path(__file__).resolve().parents[2] / "journal" / "docs" / "FORMAT.md").read_text()
EPOCH_NS = 1_767_225_600 * 10**9  # 2026-01-01
ID = bytes(range(16))
HEADER = SegmentHeader(ID, 2, 7, EPOCH_NS)
FRAMES = (
    Frame(7, 6, EPOCH_NS + 10**9, (["queued", "a"], {"n": -1, "ok": True})),
    Frame(9, 8, EPOCH_NS + 2 * 10**9),
)
ITEMS = (
    {"id": "a", "state": "queued"},
    {"id": "b", "state": "done", "key": b"\x00\xff"},
    {"id": "c", "state": "done", "key": {"$bytes": "AP8="}},
)
CHECKPOINT = Checkpoint(ID, 2, 8, "2026-01-01T00:00:03.000Z", "jobs/1", ITEMS)


def segment_of_the_page() -> bytes:
    section = PAGE.partition("\n## A worked example\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```hex\n(.*?)```", section, re.DOTALL)
    lines = re.findall(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+)", block, re.MULTILINE)
    data = b""
    for offset, digits in lines:
        assert int(offset, 16) == len(data)
        data += bytes.fromhex(digits)
    return data


def checkpoint_of_the_page() -> bytes:
    (block,) = re.findall(r'^    \{"format".*?\n    "count".*?\n', PAGE, re.DOTALL | re.MULTILINE)
    return re.sub("^    ", "", block, flags=re.MULTILINE).encode()


def test_the_pages_segment_decodes_to_its_records() -> None:
    """The page's example of a segment decodes completely, to the records that the page names."""
    segment = decode_segment(segment_of_the_page())
    assert (segment.header, segment.frames, segment.rest) == (HEADER, FRAMES, b"")
    assert f"`{HEADER.name}`" in PAGE


def test_the_pages_segment_can_be_encoded() -> None:
    """An encoder that follows the page produces the bytes of the page."""
    frames = b"".join(frame.encode(HEADER.seed) for frame in FRAMES)
    assert HEADER.encode() + frames == segment_of_the_page()


def test_the_pages_checkpoint_decodes_to_its_items() -> None:
    """The page's example of a checkpoint decodes, and encodes to itself."""
    assert decode_checkpoint(checkpoint_of_the_page()) == CHECKPOINT
    assert encode_checkpoint(CHECKPOINT) == checkpoint_of_the_page()


def test_the_crc_is_castagnolis() -> None:
    """The CRC has CRC32C's check value, and can be continued from a partial CRC."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"6789", crc32c(b"12345")) == 0xE3069283


@pytest.mark.parametrize("is_found", [True, False])
def test_the_engine_computes_the_crc_with_any_layout_of_the_library(
    monkeypatch: pytest.MonkeyPatch, is_found: bool
) -> None:
    """If the compiled module is not beside the crc32c package, the package itself is used."""
    if not is_found:
        find_spec = PathFinder.find_spec

        def find_all_but_crc32c(name: str, *where: Any) -> Any:
            return None if name == "_crc32c" else find_spec(name, *where)

        monkeypatch.setattr(PathFinder, "find_spec", find_all_but_crc32c)
    crc32c_module.crc32c.cache_clear()
    try:
        assert checksum(b"123456789") == 0xE3069283
        assert checksum(b"6789", checksum(b"12345")) == 0xE3069283
    finally:
        crc32c_module.crc32c.cache_clear()


def test_the_crc32c_import_is_visible_to_freezing_tools() -> None:
    """An import statement names crc32c, since that is what freezing tools look for."""
    tree = ast.parse(Path(crc32c_module.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    assert "crc32c" in [alias.name for node in imports for alias in node.names]


def test_every_bit_of_the_pages_segment_counts() -> None:
    """P4: No single bit of a segment can flip without a change in what is read."""
    data = segment_of_the_page()
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            segment = decode_segment(bytes(flipped))
        except FormatError:
            continue
        assert segment.frames == FRAMES[: len(segment.frames)] != FRAMES, bit
        assert segment.rest, bit


def test_every_byte_of_the_pages_checkpoint_counts() -> None:
    """P4: No single byte of a checkpoint can change without an error."""
    data = checkpoint_of_the_page()
    for at in range(len(data)):
        with pytest.raises((FormatError, ValueError)):
            decode_checkpoint(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


IMPOSSIBLE = {
    "a repeated LSN": Frame(7, 6, EPOCH_NS, ("x",)),
    "a skipped LSN": Frame(9, 6, EPOCH_NS, ("x",)),
    "durable before the write": Frame(8, 8, EPOCH_NS, ("x",)),
}


@pytest.mark.parametrize("frame", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_the_reader_is_strict(frame: Frame) -> None:
    """A frame with good CRCs and impossible contents is refused, not skipped."""
    first = Frame(7, 6, EPOCH_NS, ("x",))
    data = HEADER.encode() + first.encode(HEADER.seed) + frame.encode(HEADER.seed)
    with pytest.raises(FormatError):
        decode_segment(data)


def test_the_seed_excludes_foreign_frames() -> None:
    """P1: A frame of another epoch does not verify, although it does not name its segment."""
    other = SegmentHeader(ID, 3, 7, EPOCH_NS)
    segment = decode_segment(HEADER.encode() + FRAMES[0].encode(other.seed))
    assert segment.frames == ()


def test_the_reader_requires_all_records_of_a_journal() -> None:
    """P1: The reader refuses a journal with a segment that is missing, shortened, or of another
    journal."""
    first = SegmentHeader(ID, 1, 1, EPOCH_NS)
    frames = [Frame(lsn, lsn - 1, EPOCH_NS, (lsn,)) for lsn in range(1, 7)]
    whole = {
        first.name: first.encode() + b"".join(f.encode(first.seed) for f in frames),
        HEADER.name: segment_of_the_page(),
    }
    checkpoints, records = decode_files(whole)
    assert checkpoints == []
    assert [(r.epoch, r.lsn, r.record) for r in records] == [
        *((1, lsn, lsn) for lsn in range(1, 7)),
        (2, 7, ["queued", "a"]),
        (2, 8, {"n": -1, "ok": True}),
    ]
    foreign = SegmentHeader(bytes(16), 1, 1, EPOCH_NS)
    for broken in (
        {HEADER.name: whole[HEADER.name]},
        whole | {first.name: whole[first.name][:-1]},
        whole | {HEADER.name: whole[HEADER.name][:-1]},
        whole | {first.name: foreign.encode() + b"".join(f.encode(foreign.seed) for f in frames)},
        whole | {first.name: whole[HEADER.name]},
        whole | {"stray": b""},
    ):
        with pytest.raises(FormatError):
            decode_files(broken)
