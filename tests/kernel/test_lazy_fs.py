"""The unmodified engine on a mounted file system that loses unsynced changes.

A child (`lazy_fs_writer`) appends, waits, fills segments and compacts on the mount (`lazy_fs`)
until it is killed, after a number of acknowledgements or instead of one change of the disk. Then
the power is cut or not. Then the journal is opened and compared with everything that was
acknowledged.

    JOURNAL_LAZY_FS_CYCLES=1000 python -m pytest tests/kernel/test_lazy_fs.py -k acknowledged
    JOURNAL_LAZY_FS_SEED=…                              the moments and cuts of an earlier run
"""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import CorruptionError, DurableState, FailedError, Journal, JournalReader
from journal._disk.disk import Directory
from journal._disk.posix import PosixDisk
from journal._disk.posix_file import PosixFile
from journal.testing import SimulatedDisk, seeded
from tests.installed import find_command, import_package
from tests.kernel.lazy_fs_support import Mount, obstacle
from tests.kernel.lazy_fs_writer import FAILED, open_checked
from tests.support import TIMEOUT_S, Table, logged, options, put

import_package("pyfuse3")
find_command("fusermount3")

CYCLES = int(os.environ.get("JOURNAL_LAZY_FS_CYCLES", "30"))
SEED = int(os.environ.get("JOURNAL_LAZY_FS_SEED", "0")) or random.SystemRandom().getrandbits(32)
LIMIT_S = 120 + 5 * CYCLES  # the longest life of a mount; its end frees hanging calls

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=f"cannot mount: {obstacle()}")


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with Mount(tmp_path_factory.mktemp("lazy") / "mount", limit_s=LIMIT_S) as mount:
        yield mount


DIRECTORIES = count(1)


@pytest.fixture
def path(mount: Mount) -> Path:
    """Make a directory on the mount whose name is durable."""
    path = mount.path / str(next(DIRECTORIES))
    path.mkdir()
    sync(mount.path)
    return path


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def write(
    path: Path, data: bytes, write_data: Callable[[int, bytes], object], flags: int = 0
) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    write_data(fd, data)
    os.close(fd)


# --- what the file system keeps ---


def without_sync(fd: int, data: bytes) -> None:
    os.pwrite(fd, data, 0)


def with_fsync(fd: int, data: bytes) -> None:
    os.pwrite(fd, data, 0)
    os.fsync(fd)


def with_fdatasync(fd: int, data: bytes) -> None:
    os.pwrite(fd, data, 0)
    os.fdatasync(fd)


def with_rwf_dsync(fd: int, data: bytes) -> None:
    os.pwritev(fd, [data], 0, os.RWF_DSYNC)


@pytest.mark.parametrize(
    ("write_data", "flags", "kept"),
    [
        (without_sync, 0, b""),
        (with_fsync, 0, b"0123"),
        (with_fdatasync, 0, b"0123"),
        (with_rwf_dsync, 0, b"0123"),
        (without_sync, os.O_DSYNC, b"0123"),
    ],
)
def test_a_power_cut_leaves_what_was_synced(
    mount: Mount, path: Path, write_data: Callable[[int, bytes], object], flags: int, kept: bytes
) -> None:
    """Each way to sync reaches the file system. Without a sync, nothing is kept."""
    write(path / "a", b"0123", write_data, flags)
    sync(path)
    assert (path / "a").read_bytes() == b"0123"
    mount.command("clear")
    assert (path / "a").read_bytes() == kept


@pytest.mark.parametrize("synced", [True, False])
def test_a_sync_of_a_directory_keeps_its_names(mount: Mount, path: Path, synced: bool) -> None:
    """A create, a rename and a removal are undone unless their directory was synced."""
    for name in "ab":
        write(path / name, name.encode(), with_fsync)
    sync(path)
    write(path / "new", b"new", with_fsync)
    (path / "a").rename(path / "c")
    (path / "b").unlink()
    if synced:
        sync(path)
    mount.command("clear")
    assert sorted(os.listdir(path)) == (["c", "new"] if synced else ["a", "b"])


def test_a_seed_decides_what_is_kept(mount: Mount, path: Path) -> None:
    """Some seeds keep a write, some lose it, and some tear it."""

    def after(seed: int) -> bytes:
        write(path / "a", b"0123", with_fsync)
        sync(path)
        write(path / "a", b"abcd", without_sync)
        mount.command("clear", seed)
        return (path / "a").read_bytes()

    contents = {after(seed) for seed in range(40)}
    assert {b"abcd", b"0123"} < contents
    assert {b"abc3", b"ab23", b"a123"} & contents


def test_handles_do_not_outlive_a_power_cut(mount: Mount, path: Path) -> None:
    """Handles from before a power cut are dead, so no late write of theirs reaches the disk."""
    write(path / "a", b"0123", with_fsync)
    sync(path)
    fd = os.open(path / "a", os.O_RDWR)
    mount.command("clear")
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        os.pwrite(fd, b"abcd", 0)
    os.close(fd)
    assert (path / "a").read_bytes() == b"0123"


def test_a_removed_file_can_be_read_while_it_is_open(path: Path) -> None:
    """An open file without a name has a link count of 0 and keeps its contents."""
    write(path / "a", b"0123", without_sync)
    fd = os.open(path / "a", os.O_RDWR)
    (path / "a").unlink()
    assert os.fstat(fd).st_nlink == 0
    assert os.pread(fd, 9, 0) == b"0123"
    os.close(fd)


def test_a_failed_sync_leaves_clean_pages(mount: Mount, path: Path) -> None:
    """After a failed sync, pages read as if they were on the disk, and a second sync succeeds.

    When the pages are dropped, their contents are lost.
    """
    write(path / "a", b"0123", with_fsync)
    fd = os.open(path / "a", os.O_RDWR)
    assert os.pread(fd, 4, 0) == b"0123"
    os.pwrite(fd, b"abcd", 0)
    mount.command("fail", 1)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        os.fdatasync(fd)
    os.fdatasync(fd)
    assert os.pread(fd, 4, 0) == b"abcd"
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.pread(fd, 4, 0) == b"0123"
    os.close(fd)


NAMES = st.sampled_from("abc")
SIZES = st.integers(0, 6000)
OPERATIONS = st.one_of(
    st.tuples(st.just("create"), NAMES),
    st.tuples(st.just("write"), NAMES, st.binary(min_size=1, max_size=9), SIZES),
    st.tuples(st.just("truncate"), NAMES, SIZES),
    st.tuples(st.just("sync"), NAMES),
    st.tuples(st.just("rename"), NAMES, NAMES),
    st.tuples(st.just("remove"), NAMES),
    st.tuples(st.just("sync_directory")),
)


def do(directory: Directory, name: str, *arguments: Any) -> int | None:
    """Carry out one operation, and return its errno."""
    try:
        match name, arguments:
            case "sync_directory", []:
                directory.sync()
            case "create", [file]:
                directory.open(file, "create").close()
            case "rename" | "remove", _:
                getattr(directory, name)(*arguments)
            case _, [file, *others]:
                opened = directory.open(file, "update")
                getattr(opened, name)(*others)
                opened.close()
    except OSError as error:
        return error.errno
    return None


@given(operations=st.lists(OPERATIONS, max_size=20), seed=st.integers(0, 2**32))
def test_the_mount_and_the_simulated_disk_agree(
    mount: Mount, operations: list[Any], seed: int
) -> None:
    """The same operations and the same seed leave the same names and the same bytes."""
    path = str(mount.path / str(next(DIRECTORIES)))
    disk, simulated = PosixDisk(), SimulatedDisk()
    real_directory = disk.open_directory(path, write=True)
    directory = simulated.open_directory(path, write=True)
    for operation in operations:
        if operation[0] == "rename" and operation[1] == operation[2]:
            continue  # the kernel does not pass it to the mount
        assert do(real_directory, *operation) == do(directory, *operation)
    real_directory.close(unlock=False)
    assert {each.name: each.read_bytes() for each in Path(path).iterdir()} == (
        simulated.contents(path)
    )
    mount.command("clear", seed)
    simulated.power_cut(seeded(seed, damage=True))
    assert {each.name: each.read_bytes() for each in Path(path).iterdir()} == (
        simulated.contents(path)
    )


# --- the engine on the mount ---


def discard(journal: Journal | DurableState[Table]) -> None:
    with suppress(FailedError):
        journal.close()


@pytest.mark.parametrize("drops", [True, False])
def test_pages_left_by_a_failed_sync_are_not_trusted(
    mount: Mount, path: Path, drops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: Reopened in the same boot, the journal yields nothing that a later power cut removes.

    If recovery did not drop the pages, it would yield such a record.
    """
    if not drops:
        monkeypatch.setattr(PosixFile, "drop_cache", lambda self: None)
    path /= "journal"
    journal = Journal.open(path, options=options())
    put(journal, 1, 2)
    with JournalReader.open(path) as reader:  # the kernel now caches the segment's pages
        assert list(reader.entries())
    mount.command("fail", 1)
    with pytest.raises(FailedError):
        put(journal, 3)
    discard(journal)
    with Journal.open(path, options=options()) as journal:
        reopened_lsn = journal.last_lsn
        mount.command("clear")
        discard(journal)
    with Journal.open(path, options=options()) as journal:
        assert logged(journal) == [1, 2]
    assert reopened_lsn == (2 if drops else 3)


class Survivor:
    """A journal that is crashed again and again, and the records that it must have each time."""

    def __init__(self, mount: Mount, seed: int) -> None:
        self.path = mount.path / "journal"
        self.random = random.Random(seed)
        self.kept = 0  # the LSN up to which the next open must yield records
        self.safe = 0  # the same after a power cut
        self._mount = mount

    def work(self) -> None:
        """Let a child work on the journal until it is killed or its journal has failed."""
        durability = self.random.choice(["disk", "disk", "os"])
        by_change, failing = self.random.random() < 0.5, self.random.random() < 0.2
        lines = self.random.randrange(150)
        print(f"from LSN {self.kept}: {durability}, {by_change=}, {failing=}")
        command = [
            sys.executable,
            "-P",
            "-m",
            "tests.kernel.lazy_fs_writer",
            str(self.path),
            durability,
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            watchdog = threading.Timer(TIMEOUT_S, child.kill)
            watchdog.start()
            try:
                if by_change:  # during its open, or soon after
                    changes = 1 + int(self.random.expovariate(1 / 80))
                    self._mount.command("kill", child.pid, changes)
                if failing:
                    self._mount.command("fail", self.random.randint(1, 40))
                assert child.stdout
                for index, line in enumerate(child.stdout):
                    self._note(index, *map(int, line.split()))
                    if index == lines and not by_change:
                        child.kill()
                assert watchdog.is_alive(), "the child hung"
            finally:
                watchdog.cancel()
                watchdog.join()
                child.kill()
        self._mount.command("disarm")
        if failing:  # unsynced records are lost, with "os" even acknowledged ones
            self.kept = self.safe
        expected = (-9, FAILED) if failing else (-9,)
        assert child.returncode in expected, "the child ended by itself"

    def _note(self, index: int, kept: int, safe: int) -> None:
        if index == 0:
            self._check_recovered(kept)
        self.kept, self.safe = max(self.kept, kept), max(self.safe, safe)

    def _check_recovered(self, lsn: int) -> None:
        """Check that an open yields all records that must be there. From now on, these must
        stay."""
        assert lsn >= self.kept, f"P2: LSN {self.kept} must be there, {lsn} is the last"
        self.kept = self.safe = lsn

    def cut(self, *seed: int) -> None:
        self._mount.command("clear", *seed)
        self.kept = self.safe

    def check(self) -> None:
        """Check P1 to P6 of the journal, then close it or cut its power."""
        if self.path.exists() and os.listdir(self.path):
            with JournalReader.open(self.path) as reader:
                findings = list(reader.verify())
            assert {finding.kind for finding in findings} <= {"torn_tail", "stray"}, "P4"
        state = open_checked(self.path, "disk")
        try:
            self._check_recovered(state.journal.last_lsn)
            if self.random.random() < 0.5:
                self.cut()
        finally:
            discard(state)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_to_a_kill_and_a_power_cut(tmp_path: Path) -> None:
    """P1 to P6: After any kill and any power cut, the journal has everything that was acknowledged.

    This also holds if a sync had failed.
    """
    print(f"JOURNAL_LAZY_FS_SEED={SEED}")
    with Mount(tmp_path / "mount", limit_s=LIMIT_S) as mount:
        survivor = Survivor(mount, SEED)
        for _ in range(CYCLES):
            survivor.work()
            match survivor.random.choice(["no cut", "lost", "drawn", "drawn"]):
                case "lost":
                    survivor.cut()
                case "drawn":
                    survivor.cut(survivor.random.getrandbits(32))
            if survivor.random.random() < 0.7:  # otherwise, the next child opens it as it is
                survivor.check()
        survivor.check()
        assert survivor.kept > CYCLES, "the children have worked"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["files", "directories"])
def test_a_disk_that_ignores_syncs_is_caught(tmp_path: Path, kind: str) -> None:
    """The test above fails on a disk that ignores the syncs of files or directories."""
    with Mount(tmp_path / "mount", limit_s=LIMIT_S) as mount:
        mount.command("ignore", kind)
        survivor = Survivor(mount, SEED)
        with pytest.raises((AssertionError, CorruptionError), match=r"P2|P4|nothing was changed"):
            work_and_lose(survivor)


def work_and_lose(survivor: Survivor) -> None:
    for _ in range(20):
        survivor.work()
        survivor.cut()
        survivor.check()
