"""What only the real disk has: links and special files, modes and owners, processes."""

from __future__ import annotations

import errno
import gc
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from journal._disk.disk import Mode
from journal._disk.posix import PosixDirectory, PosixDisk
from journal.errors import FailedError, UnsafePathError

DISK = PosixDisk()
MODES: tuple[Mode, ...] = ("read", "update", "create")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="told from /proc, or Linux's own call")
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make it so")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path.resolve() / "journal"


@pytest.fixture
def directory(path: Path) -> PosixDirectory:
    return DISK.open_directory(path, write=True)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def alarm() -> Iterator[None]:
    """Interrupts a call that blocks, so that the test fails instead of hanging."""

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
    """P9: a name that is a symlink, also one that leads nowhere, is refused in every mode."""
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
def test_the_directory_may_not_be_a_symlink(
    path: Path, write: bool, spelling: str, target: str
) -> None:
    """P9: the last component is refused if it is a symlink, whatever it leads to."""
    (path.parent / "real").mkdir(mode=0o700)
    (path.parent / "file").touch()
    path.symlink_to(path.parent / target)
    with pytest.raises(UnsafePathError, match="symlink"):
        DISK.open_directory(spelling.format(path), write=write)
    assert not (path.parent / "nowhere").exists()


def test_parent_components_may_be_symlinks(path: Path) -> None:
    """Symlinks above the last component are followed once, and `path` says where to."""
    (path.parent / "real").mkdir()
    (path.parent / "link").symlink_to("real")
    made = DISK.open_directory(path.parent / "link" / "journal", write=True)
    assert made.path == str(path.parent / "real" / "journal")
    # `..` is where the symlink led to, not where it stands.
    again = DISK.open_directory(f"{path.parent}/link/../journal", write=True)
    assert again.path == str(path)


def test_relative_paths_are_resolved_when_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path, `.` and `..` mean what they mean now, whatever the process does later."""
    monkeypatch.chdir(path.parent)
    made = DISK.open_directory("journal", write=True)
    monkeypatch.chdir(path)
    for spelling in (".", "./", "../journal", "../journal/."):
        assert DISK.open_directory(spelling, write=False).path == str(path)
    monkeypatch.chdir("/")
    made.open("a", "create")
    assert (made.path, os.listdir(path)) == (str(path), ["a"])


def test_a_path_that_is_no_directory_is_refused(path: Path) -> None:
    """A file, or a FIFO that nobody feeds, at the journal's path is NotADirectoryError."""
    path.touch()
    os.mkfifo(path.parent / "fifo")
    for each in (path, path.parent / "fifo", path / "below"):
        with alarm(), pytest.raises(NotADirectoryError):
            DISK.open_directory(each, write=True)


def test_the_parents_are_not_made(path: Path) -> None:
    """Only the last component is made."""
    with pytest.raises(FileNotFoundError):
        DISK.open_directory(path / "below", write=True)
    assert not path.exists()


@pytest.mark.parametrize("mode", MODES)
def test_a_fifo_never_blocks(directory: PosixDirectory, path: Path, mode: Mode) -> None:
    """P9: a FIFO that nobody feeds or reads is refused at once."""
    os.mkfifo(path / "fifo")
    expected = FileExistsError if mode == "create" else UnsafePathError
    with alarm(), pytest.raises(expected, match="fifo"):
        directory.open("fifo", mode)


@pytest.mark.parametrize("mode", ["read", "update"])
def test_only_regular_files_are_opened(
    directory: PosixDirectory, path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: directories and sockets are refused, and the message says which."""
    (path / "directory").mkdir()
    monkeypatch.chdir(path)  # a socket's path may only be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name in ("directory", "socket"):
            with pytest.raises(UnsafePathError, match=f"{name}.*regular"):
                directory.open(name, mode)


@ROOT_ONLY
@pytest.mark.parametrize("mode", ["read", "update"])
def test_devices_are_refused(directory: PosixDirectory, path: Path, mode: Mode) -> None:
    """P9: a device, whether its driver exists or not, is no file of a journal."""
    try:
        os.mknod(path / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.mknod(path / "none", stat.S_IFCHR | 0o600, os.makedev(240, 77))
    except PermissionError:
        pytest.skip("a container may not make devices")
    for name in ("null", "none"):
        with pytest.raises(UnsafePathError, match=name):
            directory.open(name, mode)


def test_a_handle_stays_with_its_directory(directory: PosixDirectory, path: Path) -> None:
    """P9: whoever swaps the directory for another does not get our files."""
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
    """Reading a journal takes no right but to pass through what is above it."""
    path.mkdir()
    path.parent.chmod(0o111)
    try:
        assert DISK.open_directory(path, write=False).names() == []
    finally:
        path.parent.chmod(0o700)


# --- modes and owners ---


@pytest.mark.parametrize("mask", [0, 0o022, 0o277, 0o777])
def test_modes_do_not_depend_on_the_umask(path: Path, mask: int) -> None:
    """Directories are made 0700 and files 0600 under every umask."""
    with umask(mask & 0o377):  # without a right to read it, only root could open what it made
        directory = DISK.open_directory(path, write=True)
    with umask(mask):
        directory.open("a", "create")
    assert (mode_of(path), mode_of(path / "a")) == (0o700, 0o600)


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777, 0o720])
def test_a_directory_that_others_may_write_is_refused(path: Path, mode: int) -> None:
    """P9: for writing it is an UnsafePathError with the command to type, and stays as it is."""
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(UnsafePathError, match=f"{mode:04o}.*chmod 700 {path}"):
        DISK.open_directory(path, write=True)
    assert mode_of(path) == mode
    assert DISK.open_directory(path, write=False).names() == []


SEGMENT, CHECKPOINT = f"{1:020d}-{1:010d}.seg", f"checkpoint-{1:020d}.json"


@pytest.mark.parametrize(
    "names", [[], ["LOCK"], [SEGMENT, "stray"], [CHECKPOINT], [SEGMENT + ".tmp"]]
)
def test_a_directory_that_others_may_read_is_narrowed(
    path: Path, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """P9: opening a journal for writing closes it to others, and a warning says so."""
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


@pytest.mark.parametrize("name", ["somebodys", "1-1.seg", "checkpoint-1.json"])
def test_a_directory_that_is_no_journal_is_not_narrowed(path: Path, name: str) -> None:
    """A path given by mistake, a home or /etc, keeps its mode: such a journal is refused anyway."""
    path.mkdir()
    (path / name).touch()
    path.chmod(0o755)
    DISK.open_directory(path, write=True)
    assert mode_of(path) == 0o755


def test_made_directories_are_silent(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No warning is logged about a directory that was just made."""
    with umask(0):
        DISK.open_directory(path, write=True)
    assert caplog.records == []


@ROOT_ONLY
def test_a_foreign_owner_is_refused(path: Path) -> None:
    """P9: for writing, the directory must be ours, also when root opens it."""
    path.mkdir(mode=0o700)
    os.chown(path, 12345, -1)
    with pytest.raises(UnsafePathError, match=f"12345.*chown 0 {path}"):
        DISK.open_directory(path, write=True)
    assert DISK.open_directory(path, write=False).names() == []


# --- handles ---


def test_handles_are_not_inherited(directory: PosixDirectory) -> None:
    """A program that the process starts gets no handle of a journal, and so no lock."""
    file = directory.open("a", "create")
    assert not os.get_inheritable(file._fd)
    assert not os.get_inheritable(directory._fd)


def test_forgotten_handles_are_closed(path: Path) -> None:
    """A handle that is dropped without a close gives back its descriptor, and the lock."""
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
    """What is refused after it was opened is closed again."""
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
    """P2: `is_linked` notices that the whole directory went, so that nothing is acknowledged."""
    file = directory.open("a", "create")
    shutil.rmtree(path)
    assert not file.is_linked()
    assert directory.names() == []
    with pytest.raises(FileNotFoundError):
        directory.open("b", "create")


# --- what reaches the kernel ---


@LINUX
def test_each_sync_is_a_sync(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: files and directories are synced themselves; opening to write syncs the parent."""
    synced: list[int] = []

    def spy(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)

    monkeypatch.setattr(os, "fsync", spy)
    monkeypatch.setattr(os, "fdatasync", spy)
    parent = path.parent.stat().st_ino
    directory = DISK.open_directory(path, write=True)
    assert synced == [parent]
    DISK.open_directory(path, write=True)  # who made it may have crashed before its sync
    assert synced == [parent, parent]
    DISK.open_directory(path, write=False)
    directory.open("a", "create").sync()
    directory.sync()
    assert synced[2:] == [(path / "a").stat().st_ino, path.stat().st_ino]


@LINUX
def test_drop_cache_covers_the_whole_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: pages that a failed sync left clean are read again from the disk."""
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, *rest: asked.append(rest))
    DISK.open_directory(path, write=True).open("a", "create").drop_cache()
    assert asked == [(0, 0, os.POSIX_FADV_DONTNEED)]


@LINUX
def test_a_sync_that_fails_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: the errors of a sync are never swallowed, nor is the parent's at open."""
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
    """`read` returns less than asked for only at the end of the file, however the kernel cuts."""
    (path / "a").write_bytes(bytes(range(100)))
    file = directory.open("a", "read")
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 7), at))
    assert file.read(50, 10) == bytes(range(10, 60))
    assert file.read(50, 90) == bytes(range(90, 100))


@LINUX
def test_allocated_bytes_have_blocks(directory: PosixDirectory, path: Path) -> None:
    """`allocate` takes the space, not only the size, so that writes there can't run out of it."""
    directory.open("a", "create").allocate(1 << 20)
    found = (path / "a").stat()
    assert found.st_size == 1 << 20
    assert found.st_blocks * 512 >= 1 << 20


@pytest.mark.parametrize("platform", ["win32", "emscripten"])
def test_other_platforms_are_told(platform: str) -> None:
    """Where the engine can't keep its promises, importing it says where it can."""
    script = f"import os, sys; sys.platform = {platform!r}; import journal._disk.posix"
    process = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert f"ImportError: journal runs on Linux and macOS, not on {platform}" in process.stderr
