"""File handles of the real disk: when they are closed, and what holds while they are open."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from contextlib import closing
from pathlib import Path

import pytest

from journal._disk.posix import PosixDirectory, PosixDisk
from journal.errors import UnsafePathError

DISK = PosixDisk()


def test_handles_are_not_inherited(directory: PosixDirectory) -> None:
    """A program that the process starts gets no handle of a journal, and so no lock."""
    file = directory.open("a", "create")
    assert not os.get_inheritable(file._fd)
    assert not os.get_inheritable(directory._fd)


def test_forgotten_handles_are_closed(path: Path) -> None:
    """A handle that is forgotten without a close releases its descriptor and the lock."""
    directory = DISK.open_directory(path, write=True)
    directory.lock()
    file = directory.open("a", "create")
    descriptors = (file._fd, directory._fd)
    del file, directory
    gc.collect()
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    DISK.open_directory(path, write=True).lock()


def test_a_failed_open_leaves_no_handle(directory: PosixDirectory, path: Path) -> None:
    """A file or directory that is refused after its open is closed again."""
    (path / "directory").mkdir()
    before = os.listdir("/dev/fd")
    with pytest.raises(UnsafePathError):
        directory.open("directory", "read")
    path.chmod(0o777)
    with pytest.raises(UnsafePathError):
        DISK.open_directory(path, write=True)
    assert os.listdir("/dev/fd") == before


def test_a_file_whose_directory_is_deleted_has_no_name(
    directory: PosixDirectory, path: Path
) -> None:
    """P2: `is_linked` notices that the whole directory was deleted."""
    file = directory.open("a", "create")
    shutil.rmtree(path)
    assert not file.is_linked()
    assert directory.names() == []
    with pytest.raises(FileNotFoundError):
        directory.open("b", "create")


def test_dropping_a_closed_file_runs_no_python_code(directory: PosixDirectory) -> None:
    """No Python code runs when a closed file is dropped: CPython ignores what is raised there.

    A follower opens and closes files all the time, so that it would sometimes lose Ctrl-C.
    """
    file = directory.open("a", "create")
    file.close()
    calls: list[str] = []
    sys.setprofile(lambda frame, event, arg: calls.append(f"{event} {frame.f_code.co_name}"))
    try:
        del file
    finally:
        sys.setprofile(None)
    assert [call for call in calls if call.startswith("call")] == []


def test_a_dropped_file_is_closed(directory: PosixDirectory) -> None:
    """A file that nobody closed is closed when it is dropped, and no descriptor leaks."""
    before = os.listdir("/dev/fd")
    file = directory.open("a", "create")
    assert len(os.listdir("/dev/fd")) == len(before) + 1
    del file
    assert len(os.listdir("/dev/fd")) == len(before)


@pytest.mark.parametrize("call", ["write", "sync"])
def test_an_error_of_a_write_names_the_file(directory: PosixDirectory, call: str) -> None:
    """A write and a sync, which get only a descriptor, name the file that failed."""
    with closing(directory.open("a", "create")) as file:
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, file._fd)  # a pipe has no offsets, and can't be synced
        os.close(writing)
        with pytest.raises(OSError, match=r"/a'$") as raised:
            file.write(b"x", 0) if call == "write" else file.sync()
    assert raised.value.filename == f"{directory.path}/a"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, it has the name of its opening")
def test_an_error_names_the_file_as_it_is_called_now(directory: PosixDirectory) -> None:
    """A segment is opened under the name of an unfinished file."""
    directory.open("a.tmp", "create").close()
    with closing(directory.open("a.tmp", "read")) as file:
        directory.rename("a.tmp", "a")
        with pytest.raises(OSError, match="Bad file descriptor") as raised:
            file.write(b"x", 0)
    assert raised.value.filename == f"{directory.path}/a"
