"""The real disk's lock between processes: its holder, the report of the holder, and forks."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from journal._disk.lock_holder import listed_inode
from journal._disk.posix import PosixDirectory, PosixDisk
from journal.errors import LockedError, UnsafePathError
from tests.support import line_of

DISK = PosixDisk()
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@contextmanager
def child(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run `script` in a process that ends at the end of its standard input."""
    prelude = "import os, sys\nfrom journal._disk.posix import PosixDisk\n"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", prelude + script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=30)
            finally:
                process.kill()


LOCK = """
directory = PosixDisk().open_directory(sys.argv[1], write=True)
directory.lock()
print("locked", flush=True)
sys.stdin.read()
"""


@LINUX
def test_another_process_is_named(directory: PosixDirectory, path: Path) -> None:
    """P10: LockedError names the process that holds the lock. After its death, the lock is free."""
    with child(LOCK, path) as holder:
        assert line_of(holder) == "locked"
        assert directory.lock_holder() == holder.pid
        with pytest.raises(LockedError, match=f"process {holder.pid}") as caught:
            directory.lock()
        assert caught.value.pid == holder.pid
        holder.kill()
        holder.wait(timeout=30)
        assert directory.lock_holder() is None
        directory.lock()
        assert directory.lock_holder() == os.getpid()


def test_a_lock_that_is_released_meanwhile_is_taken(
    directory: PosixDirectory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10: If the holder releases the lock before it can be named, the lock is taken. If nobody can
    be named and it stays locked, such as by another container, LockedError names nobody."""
    other = DISK.open_directory(path, write=True)
    other.lock()
    monkeypatch.setattr(PosixDirectory, "lock_holder", lambda _: None)
    with pytest.raises(LockedError, match="locked by another process"):
        directory.lock()
    monkeypatch.setattr(PosixDirectory, "lock_holder", lambda _: other.close(unlock=True))
    directory.lock()
    monkeypatch.undo()
    with pytest.raises(LockedError):
        DISK.open_directory(path, write=True).lock()


@LINUX
def test_the_holder_is_found_among_many(directory: PosixDirectory, path: Path) -> None:
    """The holder is found although /proc/locks is read page by page."""
    with ExitStack() as files, child(LOCK, path) as holder:
        assert line_of(holder) == "locked"
        for number in range(200):
            file = files.enter_context(open(path.parent / f"{number}", "wb"))
            fcntl.flock(file, fcntl.LOCK_EX)
        assert len(Path("/proc/locks").read_bytes()) > 2 * 4096
        assert directory.lock_holder() == holder.pid
        holder.kill()
        holder.wait(timeout=30)
        assert directory.lock_holder() is None


class Pages(io.RawIOBase):
    """/proc/locks as the kernel returns it.

    A lock and its waiters are never split between pages, so a page may be short.
    """

    def __init__(self, *pages: str) -> None:
        self._pages = [page.encode() for page in pages]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        page = self._pages.pop(0) if self._pages else b""
        buffer[: len(page)] = page
        return len(page)


@LINUX
def test_the_holder_is_found_after_a_short_first_page(
    directory: PosixDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder is found even if the first page is short, because many waiters follow."""
    inode = listed_inode(directory._fd).decode()
    waiters = "".join(f"1: -> FLOCK  ADVISORY  WRITE {pid} fe:00:1 0 EOF\n" for pid in range(60))
    ours = f"2: FLOCK  ADVISORY  WRITE {os.getpid()} {inode} 0 EOF\n"
    pages = ("1: FLOCK  ADVISORY  WRITE 1 fe:00:2 0 EOF\n", waiters + ours)

    def opened(path: str, *mode: Any, **more: Any) -> Any:
        return Pages(*pages) if path == "/proc/locks" else open(path, *mode, **more)

    monkeypatch.setattr("journal._disk.lock_holder.open", opened, raising=False)
    assert directory.lock_holder() == os.getpid()


@LINUX
@pytest.mark.parametrize("noted", ["holder", "other", "dead", "link", "many"])
def test_the_lock_file_is_only_a_hint_of_the_holder(
    directory: PosixDirectory, path: Path, noted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: LOCK is only text for people. The kernel knows the lock's holder, whatever LOCK says.

    The list of all locks takes milliseconds, so it is read only if the noted process does not hold
    the lock.
    """
    note, opened_paths = path / "LOCK", []

    def opened(path: str, *mode: Any, **more: Any) -> Any:
        opened_paths.append(path)
        return open(path, *mode, **more)

    with child(LOCK, path) as holder, child("sys.stdin.read()") as other:
        assert line_of(holder) == "locked"
        if noted == "link":
            note.symlink_to(path.parent / "outside")
        elif noted == "many":  # not all files of a process with many are searched
            monkeypatch.setattr("journal._disk.lock_holder._DESCRIPTORS", 3)
            note.write_text(f"pid {holder.pid}\n")
        else:
            pids = {"holder": holder.pid, "other": other.pid, "dead": 2**22}
            note.write_text(f"pid {pids[noted]}\n")
        monkeypatch.setattr("journal._disk.lock_holder.open", opened, raising=False)
        assert directory.lock_holder() == holder.pid
        assert ("/proc/locks" in opened_paths) == (noted != "holder")
        holder.kill()
        holder.wait(timeout=30)
        assert directory.lock_holder() is None


@LINUX
def test_a_waiter_in_proc_locks_is_not_the_holder(directory: PosixDirectory, path: Path) -> None:
    """/proc/locks also lists waiters, but only the holder is reported."""
    directory.lock()
    wait = "import fcntl\nprint(1, flush=True)\n" + (
        "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)"
    )
    with child(wait, path) as waiter:
        assert line_of(waiter) == "1"
        waiting = f"-> FLOCK  ADVISORY  WRITE {waiter.pid} "
        deadline = time.monotonic() + 30
        while waiting not in Path("/proc/locks").read_text():
            assert time.monotonic() < deadline, "the child never waited"
        assert directory.lock_holder() == os.getpid()
        directory.close(unlock=True)


FORK = """
directory = PosixDisk().open_directory(sys.argv[1], write=True)
directory.lock()
if os.fork() == 0:
    directory.close(unlock=sys.argv[2] == "unlock")
    os._exit(0)
os.wait()
print(PosixDisk().open_directory(sys.argv[1], write=False).lock_holder() == os.getpid())
"""


@LINUX
@pytest.mark.parametrize(("mode", "held"), [("keep", "True"), ("unlock", "False")])
def test_a_forked_child_keeps_the_lock_unless_it_unlocks(path: Path, mode: str, held: str) -> None:
    """P10: `unlock=False` keeps the parent's lock, which an unlock in the child would release."""
    with child(FORK, path, mode) as parent:
        assert line_of(parent) == held


ORPHAN = """
directory = PosixDisk().open_directory(sys.argv[1], write=True)
directory.lock()
if os.fork() == 0:
    os.close(1)
    sys.stdin.read()
    os._exit(0)
os._exit(0)
"""


@LINUX
def test_a_lock_that_outlives_its_process_has_no_pid(directory: PosixDirectory, path: Path) -> None:
    """If a fork holds the lock of a dead parent, the holder is 0, and no dead process is named."""
    with child(ORPHAN, path) as parent:
        parent.wait(timeout=30)
        with pytest.raises(LockedError, match="another process") as caught:
            directory.lock()
        assert caught.value.pid is None
        if f":{path.stat().st_ino} " not in Path("/proc/locks").read_text():
            pytest.skip("in a pid namespace the kernel hides the locks of the dead")
        assert directory.lock_holder() == 0


@LINUX
def test_other_locks_are_not_the_writers(directory: PosixDirectory, path: Path) -> None:
    """Neither a lock of another kind nor a lock on a file in the directory means a live writer."""
    with (path / "LOCK").open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert directory.lock_holder() is None
        directory.lock()


@pytest.fixture(params=[errno.ENOENT, errno.EACCES])
def no_proc(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Hide /proc/locks, which macOS does not have, and which AppArmor and SELinux may forbid."""

    def missing(path: str, *_: Any, **__: Any) -> None:
        raise OSError(request.param, os.strerror(request.param), path)

    monkeypatch.setattr("journal._disk.lock_holder.open", missing, raising=False)


@pytest.mark.usefixtures("no_proc")
def test_without_proc_the_noted_process_must_live(directory: PosixDirectory, path: Path) -> None:
    """If the system does not list locks, the pid in LOCK counts while its process lives."""
    assert directory.lock_holder() is None
    with child("sys.stdin.read()") as process:
        (path / "LOCK").write_text(f"pid {process.pid}\nepoch 3\n")
        assert directory.lock_holder() == process.pid
    assert directory.lock_holder() is None


@pytest.mark.usefixtures("no_proc")
@pytest.mark.parametrize(
    "noted", [b"", b"\0" * 64, b"pid 0\n", b"9" * 64, b"pid -1", b"\xff\xb2 x"]
)
def test_without_proc_a_note_may_be_nonsense(
    directory: PosixDirectory, path: Path, noted: bytes
) -> None:
    """P9: LOCK is only text for people. Text that is no pid names nobody."""
    (path / "LOCK").write_bytes(noted)
    assert directory.lock_holder() is None


@LINUX
def test_the_noted_process_counts_where_the_kernel_lists_no_locks(
    directory: PosixDirectory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gVisor has no /proc/locks, and reports only the flags of a descriptor."""

    def opened(path: str, *mode: Any, **more: Any) -> Any:
        if path == "/proc/locks":
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return (
            io.BytesIO(b"flags:\t02100000\n") if "/fdinfo/" in path else open(path, *mode, **more)
        )

    monkeypatch.setattr("journal._disk.lock_holder.open", opened, raising=False)
    assert directory.lock_holder() is None
    (path / "LOCK").write_text(f"pid {os.getpid()}\nepoch 3\n")
    assert directory.lock_holder() == os.getpid()


@pytest.mark.usefixtures("no_proc")
def test_without_proc_a_note_is_not_read_through_a_symlink(
    directory: PosixDirectory, path: Path
) -> None:
    """P9: LOCK is not read through a symlink."""
    (path.parent / "outside").write_text(f"pid {os.getpid()}")
    (path / "LOCK").symlink_to(path.parent / "outside")
    with pytest.raises(UnsafePathError, match="LOCK"):
        directory.lock_holder()
