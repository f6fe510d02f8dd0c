"""Zeros ahead of the log change no byte that a reader sees, and save a flush of each commit."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from journal import Journal
from journal._disk import zeros_ahead
from journal._disk.posix import PosixDirectory
from journal._disk.posix_file import PosixFile
from tests.kernel.kernel_disk import KIB, MIB, SmallDisk, run
from tests.support import options

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs posix_fallocate")
EXT4, BTRFS, UNKNOWN = 0xEF53, 0x9123683E, 0


@pytest.fixture
def file_system(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that sets the type of file system that each file claims to be on."""

    def set_type(number: int) -> None:
        monkeypatch.setattr(zeros_ahead, "file_system_type", lambda _fd: number)

    set_type(EXT4)
    return set_type


@pytest.fixture
def zeros(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list of the zeros that are written ahead: (begin, end)."""
    written: list[tuple[int, int]] = []
    pwritev = os.pwritev

    def watched(fd: int, pieces: list[bytes], offset: int) -> int:
        assert not any(map(any, pieces))
        written.append((offset, offset + sum(map(len, pieces))))
        return pwritev(fd, pieces, offset)

    monkeypatch.setattr(os, "pwritev", watched)
    return written


@pytest.fixture
def file(directory: PosixDirectory, file_system: object) -> Iterator[PosixFile]:
    file = directory.open("file", "create")
    file.allocate(MIB)
    file.sync()
    yield file
    file.close()


def test_zeros_follow_the_first_write_after_a_sync(
    file: PosixFile, zeros: list[tuple[int, int]]
) -> None:
    """The zeros begin where the write ends, and no file gets longer."""
    file.write(b"one", 0)
    assert zeros == [(3, 3 + 16 * KIB)]
    assert file.size() == MIB
    assert file.read(MIB, 0) == b"one".ljust(MIB, b"\0")


def test_zeros_grow_to_those_of_64_commits(file: PosixFile, zeros: list[tuple[int, int]]) -> None:
    """A short log has few zeros, and a long one a flush more in 64 commits at most."""
    for commit in range(300):
        file.write(b"x" * 2000, commit * 2000)
        file.sync()
    sizes = [end - begin for begin, end in zeros]
    assert sizes == sorted(sizes)
    assert sizes[0] == 64 * 2000 // (16 * KIB) * 16 * KIB
    assert len(zeros) <= 300 / 60 + 1


def test_no_zeros_are_written_without_a_sync(file: PosixFile, zeros: list[tuple[int, int]]) -> None:
    """A log that is never synced gains nothing from zeros."""
    for commit in range(100):
        file.write(b"x" * 2000, commit * 2000)
    assert len(zeros) == 1


def test_zeros_end_with_the_allocated_space(file: PosixFile, zeros: list[tuple[int, int]]) -> None:
    """The zeros never make a file longer."""
    file.write(b"x", MIB - 20 * KIB)
    file.sync()
    file.write(b"x", MIB - 2)
    assert max(end for _, end in zeros) <= MIB
    assert file.size() == MIB


def test_no_zeros_follow_a_truncation(file: PosixFile, zeros: list[tuple[int, int]]) -> None:
    """A truncated file ends with the last write."""
    file.write(b"x", 0)
    file.sync()
    file.truncate(10)
    file.write(b"x", 20 * KIB)
    assert len(zeros) == 1
    assert file.size() == 20 * KIB + 1


def test_zeros_never_replace_a_byte(file: PosixFile) -> None:
    """What the file held before it was allocated again stays, wherever the next write is."""
    file.write(b"old", 100)
    file.write(b"old", MIB - 3)
    file.allocate(2 * MIB)
    file.sync()
    file.write(b"new", 0)
    assert file.read(3, 100) == file.read(3, MIB - 3) == b"old"


def test_a_large_commit_has_no_zeros(file: PosixFile, zeros: list[tuple[int, int]]) -> None:
    """The next small commit has zeros again."""
    file.write(bytes(300 * KIB), 0)
    assert not zeros
    file.sync()
    file.write(b"x", 300 * KIB)
    assert zeros


@pytest.mark.parametrize("number", [BTRFS, UNKNOWN], ids=["btrfs", "unknown"])
def test_no_zeros_on_another_file_system(
    directory: PosixDirectory,
    file_system: Callable[[int], None],
    zeros: list[tuple[int, int]],
    number: int,
) -> None:
    """Zeros are written only where blocks are known to be overwritten in place."""
    file_system(number)
    file = directory.open("file", "create")
    file.allocate(MIB)
    file.sync()
    file.write(b"x", 0)
    file.close()
    assert not zeros


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_zeros_without_space_are_no_failure(
    path: Path, file_system: object, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A commit succeeds without its zeros, and nothing reports a stall."""

    def full(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pwritev", full)
    with Journal.open(path) as journal:
        for number in range(20):
            journal.wait_durable(journal.append(["x" * KIB, number]))
        assert journal.stats().stalls == 0
    with Journal.open(path) as journal:
        assert journal.last_lsn == 20


def test_a_commit_is_one_flush_of_the_device(tmp_path: Path) -> None:
    """Without zeros, each of these commits would be two flushes on ext4."""
    chosen = options(segment_bytes=8 * MIB)
    with (
        SmallDisk(tmp_path, 64 * MIB) as disk,
        Journal.open(disk.path / "journal", options=chosen) as journal,
    ):
        journal.wait_durable(journal.append(1))
        run("sync", "-f", disk.path)
        before = flushes(disk)
        for number in range(200):
            journal.wait_durable(journal.append(["x" * 8 * KIB, number]))
        assert flushes(disk) - before <= 200 * 1.15


def flushes(disk: SmallDisk) -> int:
    """Return how many flushes the disk's loop device has done."""
    for device in Path("/sys/block").glob("loop*"):
        image = device / "loop/backing_file"
        if image.exists() and image.read_text().strip() == str(disk.image):
            return int((device / "stat").read_text().split()[15])
    pytest.skip("this kernel does not count the flushes of a loop device")
