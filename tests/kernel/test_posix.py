"""Properties of the real disk alone: links and special files, modes and owners, and processes."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from journal._disk.disk import FileMode
from journal._disk.posix import PosixDirectory, PosixDisk
from journal.errors import FailedError, UnsafePathError

DISK = PosixDisk()
MODES: tuple[FileMode, ...] = ("read", "update", "create")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc or a system call of Linux")
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def alarm() -> Iterator[None]:
    """Raise AssertionError in a call that blocks, so that the test fails instead of hanging."""

    def ring(*_: object) -> None:
        raise AssertionError("the call blocked")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(20)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# --- links and special files ---


def test_a_symlink_is_never_opened(directory: PosixDirectory, path: Path) -> None:
    """P9: A symlink is refused as a file in every mode, even if it leads nowhere."""
    (path.parent / "outside").write_bytes(b"1")
    (path / "link").symlink_to(path.parent / "outside")
    (path / "dangling").symlink_to(path.parent / "nowhere")
    for name in ("link", "dangling"):
        for mode in ("read", "update"):
            with pytest.raises(UnsafePathError, match=name):
                directory.open(name, mode)
        with pytest.raises(FileExistsError):
            directory.open(name, "create")
    assert not (path.parent / "nowhere").exists()
    assert (path.parent / "outside").read_bytes() == b"1"


@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize("spelling", ["{}", "{}/", "{}//"])
@pytest.mark.parametrize("target", ["real", "nowhere", "file"])
def test_a_symlink_is_refused_as_the_directory(
    path: Path, write: bool, spelling: str, target: str
) -> None:
    """P9: The last component of the path is refused if it is a symlink, whatever it leads to."""
    (path.parent / "real").mkdir(mode=0o700)
    (path.parent / "file").touch()
    path.symlink_to(path.parent / target)
    with pytest.raises(UnsafePathError, match="symlink"):
        DISK.open_directory(spelling.format(path), write=write)
    assert not (path.parent / "nowhere").exists()


def test_parent_components_may_be_symlinks(path: Path) -> None:
    """Symlinks above the last component are resolved at open, and `path` is the resolved path."""
    (path.parent / "real").mkdir()
    (path.parent / "link").symlink_to("real")
    directory = DISK.open_directory(path.parent / "link" / "journal", write=True)
    assert directory.path == str(path.parent / "real" / "journal")
    # `..` is the parent of the symlink's target, not of the symlink.
    sibling = DISK.open_directory(f"{path.parent}/link/../journal", write=True)
    assert sibling.path == str(path)


def test_relative_paths_are_resolved_when_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path, `.` and `..` are resolved at open, and stay valid when the process moves."""
    monkeypatch.chdir(path.parent)
    directory = DISK.open_directory("journal", write=True)
    monkeypatch.chdir(path)
    for spelling in (".", "./", "../journal", "../journal/."):
        assert DISK.open_directory(spelling, write=False).path == str(path)
    monkeypatch.chdir("/")
    directory.open("a", "create")
    assert (directory.path, os.listdir(path)) == (str(path), ["a"])


def test_a_relative_path_from_a_removed_directory_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the working directory is gone, the error names the path and says so."""
    path.mkdir()
    monkeypatch.chdir(path)
    path.rmdir()
    for spelling in ("journal", "."):
        with pytest.raises(FileNotFoundError, match="working directory was removed") as caught:
            DISK.open_directory(spelling, write=True)
        assert caught.value.filename == spelling


def test_a_list_that_needs_one_more_handle_names_the_directory(
    directory: PosixDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the path, also if only the second handle that a list needs is missing."""

    def refuse(fd: int) -> list[str]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(OSError, match="Too many open files") as caught:
        directory.names()
    assert caught.value.filename == directory.path


def test_a_path_that_is_not_a_directory_is_refused(path: Path) -> None:
    """A file, or a FIFO without a writer, at the journal's path raises NotADirectoryError."""
    path.touch()
    os.mkfifo(path.parent / "fifo")
    for each in (path, path.parent / "fifo", path / "below"):
        with alarm(), pytest.raises(NotADirectoryError):
            DISK.open_directory(each, write=True)


def test_parent_directories_are_not_made(path: Path) -> None:
    """Only the last component of the path is made."""
    with pytest.raises(FileNotFoundError):
        DISK.open_directory(path / "below", write=True)
    assert not path.exists()


@pytest.mark.parametrize("mode", MODES)
def test_a_fifo_never_blocks(directory: PosixDirectory, path: Path, mode: FileMode) -> None:
    """P9: A FIFO without a reader or writer is refused at once."""
    os.mkfifo(path / "fifo")
    expected = FileExistsError if mode == "create" else UnsafePathError
    with alarm(), pytest.raises(expected, match="fifo"):
        directory.open("fifo", mode)


@pytest.mark.parametrize("mode", ["read", "update"])
def test_only_regular_files_are_opened(
    directory: PosixDirectory, path: Path, mode: FileMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: Directories and sockets are refused, and the message names them."""
    (path / "directory").mkdir()
    monkeypatch.chdir(path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name in ("directory", "socket"):
            with pytest.raises(UnsafePathError, match=f"{name}.*regular"):
                directory.open(name, mode)


@ROOT_ONLY
@pytest.mark.parametrize("mode", ["read", "update"])
def test_devices_are_refused(directory: PosixDirectory, path: Path, mode: FileMode) -> None:
    """P9: A device is refused, whether its driver exists or not."""
    try:
        os.mknod(path / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.mknod(path / "none", stat.S_IFCHR | 0o600, os.makedev(240, 77))
    except PermissionError:
        pytest.skip("a container may not make devices")
    for name in ("null", "none"):
        with pytest.raises(UnsafePathError, match=name):
            directory.open(name, mode)


def test_a_handle_stays_with_its_directory(directory: PosixDirectory, path: Path) -> None:
    """P9: A handle keeps using its own directory if another one takes the path."""
    path.rename(path.parent / "moved")
    path.mkdir()
    directory.open("a", "create")
    directory.rename("a", "b")
    assert directory.names() == os.listdir(path.parent / "moved") == ["b"]
    directory.remove("b")
    assert os.listdir(path) == []


@LINUX
@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_reader_need_not_list_the_parent(path: Path) -> None:
    """Reading a journal needs only the right to pass through the parent directory."""
    path.mkdir()
    path.parent.chmod(0o111)
    try:
        assert DISK.open_directory(path, write=False).names() == []
    finally:
        path.parent.chmod(0o700)


# --- modes and owners ---


@pytest.mark.parametrize("mask", [0, 0o022, 0o277, 0o777])
def test_modes_do_not_depend_on_the_umask(path: Path, mask: int) -> None:
    """Directories are made with mode 0700 and files with mode 0600 under every umask."""
    with umask(mask & 0o377):  # without the right to read, only root can open the new directory
        directory = DISK.open_directory(path, write=True)
    with umask(mask):
        directory.open("a", "create")
    assert (mode_of(path), mode_of(path / "a")) == (0o700, 0o600)


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777, 0o720])
def test_a_directory_that_others_may_write_is_refused(path: Path, mode: int) -> None:
    """P9: For writing, such a directory raises UnsafePathError with the command to type.

    Its mode does not change.
    """
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(UnsafePathError, match=f"{mode:04o}.*chmod 700 {path}"):
        DISK.open_directory(path, write=True)
    assert mode_of(path) == mode
    assert DISK.open_directory(path, write=False).names() == []


def test_a_shared_directory_keeps_its_mode(path: Path) -> None:
    """P9: For a directory of others, such as /tmp, the message names no command: chmod would lock
    them out."""
    path.mkdir()
    (path / "notes.txt").touch()
    path.chmod(0o1777)
    with pytest.raises(UnsafePathError, match="1777 lets others write to it; give an empty or a"):
        DISK.open_directory(path, write=True)
    assert mode_of(path) == 0o1777


SEGMENT, CHECKPOINT = f"{1:020d}-{1:010d}.seg", f"checkpoint-{1:020d}.json"


@pytest.mark.parametrize(
    "names", [[], ["LOCK"], [SEGMENT, "stray"], [CHECKPOINT], [SEGMENT + ".tmp"]]
)
def test_a_directory_that_others_may_read_is_narrowed(
    path: Path, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """P9: Opening a journal for writing closes its directory to others, and logs a warning."""
    path.mkdir()
    for name in names:
        (path / name).touch()
    path.chmod(0o755)
    with caplog.at_level(logging.WARNING, "journal"):
        DISK.open_directory(path, write=False)
        assert (mode_of(path), caplog.records) == (0o755, [])
        DISK.open_directory(path, write=True)
        assert mode_of(path) == 0o700
        DISK.open_directory(path, write=True)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: mode 0755 let others read the journal; it was narrowed to 0700"
    ]


@pytest.mark.parametrize("is_new", [False, True])
def test_a_mode_that_cant_be_changed_is_an_error_with_the_path(
    path: Path, is_new: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a read-only file system, the error names the directory."""

    def fail(fd: int, mode: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "fchmod", fail)
    if not is_new:
        path.mkdir()
        path.chmod(0o755)
    with umask(0o277), pytest.raises(OSError, match="Read-only") as raised:
        DISK.open_directory(path, write=True)
    assert raised.value.filename == str(path)


@pytest.mark.parametrize("name", ["notes.txt", "1-1.seg", "checkpoint-1.json"])
def test_a_directory_without_a_journal_is_not_narrowed(path: Path, name: str) -> None:
    """A path given by mistake, such as a home or /etc, keeps its mode. It is refused anyway."""
    path.mkdir()
    (path / name).touch()
    path.chmod(0o755)
    DISK.open_directory(path, write=True)
    assert mode_of(path) == 0o755


def test_a_new_directory_logs_no_warning(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No warning is logged about a directory that was just made."""
    with umask(0):
        DISK.open_directory(path, write=True)
    assert caplog.records == []


@ROOT_ONLY
def test_a_directory_of_another_owner_is_refused(path: Path) -> None:
    """P9: For writing, the directory must belong to the caller, even if root opens it."""
    path.mkdir(mode=0o700)
    os.chown(path, 12345, -1)
    with pytest.raises(UnsafePathError, match=r"12345.*sudo -u '#12345'"):
        DISK.open_directory(path, write=True)
    assert DISK.open_directory(path, write=False).names() == []


# --- system calls ---


@LINUX
def test_each_sync_reaches_the_kernel(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: Files and directories are synced themselves, and an open for writing syncs the parent."""
    synced: list[int] = []

    def spy(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)

    monkeypatch.setattr(os, "fsync", spy)
    monkeypatch.setattr(os, "fdatasync", spy)
    parent = path.parent.stat().st_ino
    directory = DISK.open_directory(path, write=True)
    assert synced == [parent]
    DISK.open_directory(path, write=True)  # its maker may have crashed before the sync
    assert synced == [parent, parent]
    DISK.open_directory(path, write=False)
    directory.open("a", "create").sync()
    directory.sync()
    assert synced[2:] == [(path / "a").stat().st_ino, path.stat().st_ino]


@LINUX
def test_drop_cache_covers_the_whole_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: Pages that a failed sync left clean are read again from the disk."""
    advice: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, *rest: advice.append(rest))
    DISK.open_directory(path, write=True).open("a", "create").drop_cache()
    assert advice == [(0, 0, os.POSIX_FADV_DONTNEED)]


@LINUX
def test_a_failed_sync_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: An error of a sync is always raised, also that of the parent's sync at open."""
    directory = DISK.open_directory(path, write=True)
    file = directory.open("a", "create")

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "failed")

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(os, "fdatasync", fail)
    opening: Callable[[], object] = lambda: DISK.open_directory(path, write=True)  # noqa: E731
    for call, error in (
        (file.sync, OSError),
        (directory.sync, OSError),
        (opening, FailedError),
    ):
        with pytest.raises(error, match="failed"):
            call()


def test_short_reads_are_continued(
    directory: PosixDirectory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`read` returns fewer bytes than requested only at the end of the file.

    It does so even if the kernel returns fewer.
    """
    (path / "a").write_bytes(bytes(range(100)))
    file = directory.open("a", "read")
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 7), at))
    assert file.read(50, 10) == bytes(range(10, 60))
    assert file.read(50, 90) == bytes(range(90, 100))


@LINUX
def test_allocated_bytes_have_blocks(directory: PosixDirectory, path: Path) -> None:
    """`allocate` takes the space, not only the size, so that later writes can't run out of it."""
    directory.open("a", "create").allocate(1 << 20)
    status = (path / "a").stat()
    assert status.st_size == 1 << 20
    assert status.st_blocks * 512 >= 1 << 20


@pytest.mark.parametrize("platform", ["win32", "emscripten"])
def test_other_platforms_are_refused(platform: str) -> None:
    """On a platform without the needed guarantees, the import names the supported ones."""
    script = f"import os, sys; sys.platform = {platform!r}; import journal._disk.posix"
    process = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert f"ImportError: journal runs on Linux and macOS, not on {platform}" in process.stderr
