"""The directory of a backup: nothing else begins there, and only the backup's own files go.

The same rules for a restore are in tests/mirror/test_restoring.py.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from journal import Journal, LockedError, UnsafePathError, backup
from journal._disk.posix import PosixDirectory
from journal._offline import backup as backup_module


@pytest.fixture
def interfere(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """Return a list of functions, which each backup calls after it has copied a file."""
    calls: list[Callable[[], object]] = []
    copy_file = backup_module.copy_file

    def copying(*args: Any) -> None:
        copy_file(*args)
        for call in calls:
            call()

    monkeypatch.setattr(backup_module, "copy_file", copying)
    return calls


def test_nothing_else_begins_in_a_directory_that_is_copied_to(
    tmp_path: Path, interfere: list[Callable[[], object]]
) -> None:
    """While a backup copies, its directory is locked: a writer and a second backup can't use it."""
    with Journal.open(tmp_path / "j") as journal:
        journal.wait_durable(journal.append("x"))

        def begin_others() -> None:
            with pytest.raises(LockedError):
                backup(tmp_path / "j", tmp_path / "copy")
            with pytest.raises(LockedError):
                Journal.open(tmp_path / "copy")

        interfere.append(begin_others)
        assert journal.backup(tmp_path / "copy").lsn == 1
    with Journal.open(tmp_path / "copy") as copy:
        assert copy.last_lsn == 1


def test_a_directory_that_a_writer_begins_is_not_copied_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup refuses a directory that a writer opened after the backup had found it empty."""
    lock = PosixDirectory.lock
    with Journal.open(tmp_path / "j") as journal:

        def lock_late(directory: PosixDirectory) -> None:
            monkeypatch.setattr(PosixDirectory, "lock", lock)
            with Journal.open(tmp_path / "copy") as writer:
                if is_live:
                    lock(directory)
                writer.wait_durable(writer.append("mine"))
            lock(directory)

        for is_live, error in ((True, LockedError), (False, FileExistsError)):
            monkeypatch.setattr(PosixDirectory, "lock", lock_late)
            with pytest.raises(error):
                journal.backup(tmp_path / "copy")
            with Journal.open(tmp_path / "copy") as writer:
                assert writer.last_lsn == (0 if is_live else 1)
            if is_live:
                shutil.rmtree(tmp_path / "copy")


def test_a_failed_backup_removes_only_its_own_files(
    tmp_path: Path, interfere: list[Callable[[], object]]
) -> None:
    """A file that another program makes in the directory meanwhile stays if the backup fails."""
    with Journal.open(tmp_path / "j") as journal:
        journal.wait_durable(journal.append("x"))

        def fail() -> None:
            (tmp_path / "copy" / "mine").write_text("x")
            raise OSError(errno.EIO, "the disk failed")

        interfere.append(fail)
        with pytest.raises(OSError, match="the disk failed"):
            journal.backup(tmp_path / "copy")
    assert os.listdir(tmp_path / "copy") == ["mine"]


def test_a_disk_without_locks_takes_backups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup can be put on a file system that has no locks, on which no writer can open it."""
    with Journal.open(tmp_path / "j") as journal:
        journal.wait_durable(journal.append("x"))
        no_locks = UnsafePathError("no locks", path="")
        monkeypatch.setattr(PosixDirectory, "lock", Mock(side_effect=no_locks))
        assert journal.backup(tmp_path / "copy").lsn == 1
