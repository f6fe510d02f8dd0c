"""Holes of a sparse file: readers skip them, so a terabyte costs what it takes on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from journal import Journal, JournalReader
from journal._disk import mounts
from journal._disk.posix import PosixDisk
from tests.inspect.inspect_support import ask
from tests.support import put

HUGE_BYTES = 1 << 40


def sparse(path: Path, *data: tuple[int, bytes]) -> Path:
    """Make a file that is a hole of a terabyte, but for `data` at these offsets."""
    with path.open("wb") as file:
        file.truncate(HUGE_BYTES)
        for offset, piece in data:
            file.seek(offset)
            file.write(piece)
    if path.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("the file system stores holes")
    return path


def test_only_a_reader_asks_for_holes(tmp_path: Path) -> None:
    """P1: A file of a directory that is open for writing reports no hole, so recovery reads every
    byte, whatever the file system says of it."""
    sparse(tmp_path / "f", (1 << 30, b"x"))
    offsets = [0, 4096, 1 << 31]
    for write, expected in ((False, [1 << 30, 1 << 30, HUGE_BYTES]), (True, offsets)):
        directory = PosixDisk().open_directory(tmp_path, write=write)
        file = directory.open("f", "read")
        assert [file.next_data(offset) for offset in offsets] == expected
        file.close()
        directory.close(unlock=False)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_sparse_segment_is_read_without_its_holes(tmp_path: Path, is_damaged: bool) -> None:
    """P9: verify, info, stats and log of a segment with a hole of a terabyte end at once, also if
    the search for a frame after damage goes through the hole."""
    path = tmp_path / "j"
    with Journal.open(path) as journal:
        put(journal, "a", "b")
    (segment,) = path.glob("*.seg")
    content_bytes = segment.stat().st_size
    os.truncate(segment, HUGE_BYTES)
    if is_damaged:
        with segment.open("r+b") as file:
            file.seek(content_bytes)
            file.write(b"x")
            file.seek(HUGE_BYTES - 1)
            file.write(b"x")
    with JournalReader.open(path) as reader:
        assert [entry.record for entry in reader.entries()] == ["a", "b"]
        kinds = [finding.kind for finding in reader.verify()]
    assert kinds == ["torn_tail"] * is_damaged
    assert [ask(verb, path).code for verb in ("info", "stats")] == [0, 0]


def test_the_error_of_a_signal_handler_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An OSError that a signal handler raises in a question to the kernel reaches the caller."""

    def interrupted(*_: object, **__: object) -> None:
        raise OSError("raised by a handler")

    path = sparse(tmp_path / "f")
    directory = PosixDisk().open_directory(tmp_path, write=False)
    file = directory.open("f", "read")
    monkeypatch.setattr(os, "lseek", interrupted)
    with pytest.raises(OSError, match="by a handler"):
        file.next_data(0)
    monkeypatch.setattr(mounts, "open", interrupted, raising=False)
    with pytest.raises(OSError, match="by a handler"):
        mounts.file_system_of(os.fspath(path))
    file.close()
    directory.close(unlock=False)
