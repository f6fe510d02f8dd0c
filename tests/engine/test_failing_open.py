"""Errors while a journal is opened: an I/O error is not corruption, and changes nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from journal import FailedError, JournalError, JournalReader
from journal._disk.posix import PosixDisk
from journal._recovery.recovery import Recovery
from journal.testing import SimulatedDisk
from journal.testing.disk import Operation
from tests.support import PATH, crash, frozen, logged, names, open_on, put, put_lines


def refused(disk: SimulatedDisk) -> JournalError | OSError | None:
    """Open and close the journal. Return the error, or None."""
    try:
        with open_on(disk) as journal:
            assert journal.last_lsn == 15
    except (JournalError, OSError) as error:
        return error
    return None


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.EROFS, "; read it with JournalReader"),
        (errno.EACCES, "; let this user write it, or read it with JournalReader"),
        (errno.EPERM, "; let this user write it, or read it with JournalReader"),
    ],
)
def test_an_open_that_may_not_write_names_the_reader(
    disk: SimulatedDisk, code: int, advice: str
) -> None:
    """An open that can't sync on a read-only file system, or that lacks a permission, says what can
    read the journal."""
    with open_on(disk) as journal:
        put_lines(journal, 15)
    disk.fail("sync", code, times=None)
    assert str(refused(disk)).endswith(advice)
    with JournalReader.open(PATH, disk=disk) as reader:
        assert len(list(reader.entries())) == 15


OPENING: list[Operation] = [
    "open_directory", "lock", "names", "open", "read", "size", "sync", "sync_directory",
    "lock_holder", "create", "write", "truncate", "remove", "drop_cache",
]  # fmt: skip


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE], ids=errno.errorcode.get)
@pytest.mark.parametrize("operation", OPENING)
@pytest.mark.parametrize("after", range(4))
def test_a_failing_open_changes_nothing(
    disk: SimulatedDisk, operation: Operation, after: int, code: int
) -> None:
    """P4, P5: An I/O error during open raises FailedError, or OSError if the directory itself can't
    be opened. Nothing is changed, the lock is free, and the next open recovers everything."""
    journal = open_on(disk)
    put_lines(journal, 12, size=700)
    journal.compact(frozen(journal, "state"))
    put_lines(journal, 3, size=700)
    crash(journal, disk)
    before = disk.contents(PATH)
    disk.fail(operation, code, after=after, times=None)
    refusal = refused(disk)
    disk.before = None
    if isinstance(refusal, FailedError):
        assert isinstance(refusal.__cause__, OSError)
        assert refusal.__cause__.errno == code
    elif refusal is not None:
        assert not isinstance(refusal, JournalError)
        assert operation in ("open_directory", "lock", "names")
        assert refusal.errno == code
    contents = disk.contents(PATH)
    for name in names(disk, ".seg"):
        assert contents[name].rstrip(b"\0") == before[name].rstrip(b"\0")
    assert names(disk, ".json") == [name for name in before if name.endswith(".json")]
    with open_on(disk) as journal:
        assert len(logged(journal, 0)) == 15
        put(journal, "on")


def test_a_recovery_can_not_be_finished_before_its_last_batch(disk: SimulatedDisk) -> None:
    """P1: A log that recovery has not read to its end can't be continued."""
    with open_on(disk) as journal:
        put(journal, "first")
    with open_on(disk) as journal:
        put(journal, "second")
    directory = disk.open_directory(PATH, write=True)
    with closing(Recovery(directory, keep=2)) as recovery:
        for _ in recovery.batches():
            with pytest.raises(RuntimeError, match="before all batches"):
                recovery.finish()
        assert recovery.finish().last_lsn == 2


def test_a_reader_does_not_take_a_read_error_for_corruption(disk: SimulatedDisk) -> None:
    """P4: `entries()` and `verify()` raise the OSError, and report no damage."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
    with JournalReader.open(PATH, disk=disk) as reader:
        disk.fail("read", errno.EIO, after=1, times=None)
        for read in (lambda: list(reader.entries()), lambda: list(reader.verify())):
            with pytest.raises(OSError, match="EIO"):
                read()


def test_an_error_names_the_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error names the full path, even if the caller may not enter the parent directory."""
    path = tmp_path.resolve() / "journal"
    path.mkdir()

    def refusing(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(name: str, *args: Any, dir_fd: int | None = None) -> Any:
            if dir_fd is None:
                return call(name, *args)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)

        return called

    monkeypatch.setattr(os, "open", refusing(os.open))
    monkeypatch.setattr(os, "lstat", refusing(os.lstat))
    with pytest.raises(PermissionError) as caught:
        PosixDisk().open_directory(path, write=False)
    assert caught.value.filename == str(path)
