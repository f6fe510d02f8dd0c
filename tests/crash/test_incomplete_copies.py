"""Backups and restores that a crash interrupts: no part of a journal is taken for the whole."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from journal import (
    Journal,
    JournalError,
    JournalReader,
    NotAJournalError,
    UnsafePathError,
    backup,
    follow,
    repair,
)
from journal._disk.posix import PosixDirectory
from journal._mirror.aside import put_aside
from journal._mirror.marker import Marker, write_marker
from journal._mirror.memory_store import MemoryStore
from journal._mirror.restoring import Target, restore_into
from journal.testing import Change, Outcome, SimulatedDisk, keep, lose
from tests.mirror.stores import mirror_of
from tests.support import FIRST, PATH, frozen, logged, open_on, options, put, put_lines

COPY = "/copy"
MARK = "COPYING.tmp"
Copying = Callable[[SimulatedDisk], object]


def source(*, is_compacted: bool) -> tuple[SimulatedDisk, MemoryStore]:
    """Return a disk with a journal of several segments, and its mirror."""
    disk, store = SimulatedDisk(), MemoryStore()
    mirror = mirror_of(store, interval_s=0.01)
    with Journal.open(PATH, options=options(), mirror=mirror, disk=disk) as journal:
        for n in range(2):
            put_lines(journal, 4, size=1500)
            if is_compacted:
                journal.compact(frozen(journal, n))
        put_lines(journal, 2, size=1500)
        journal.wait_mirrored(journal.last_lsn)
    return disk, store


def restored_in_part(store: MemoryStore, disk: SimulatedDisk) -> None:
    """Restore all but the last record, so that the directory gets the file MIRROR."""

    def mark(directory: object, lsn: int) -> None:
        write_marker(directory, Marker("file:///m", restored_lsn=lsn))  # type: ignore[arg-type]

    restore_into(store, COPY, Target(9), disk=disk, mark=mark)


def restored(store: MemoryStore, disk: SimulatedDisk) -> None:
    restore_into(store, COPY, disk=disk)


def backed_up(store: MemoryStore, disk: SimulatedDisk) -> None:
    backup(PATH, COPY, disk=disk)


def content(disk: SimulatedDisk) -> tuple[object, object]:
    with Journal.open(COPY, options=options(), disk=disk) as journal:
        return journal.checkpoint and list(journal.checkpoint.items()), logged(journal, None)


def of_mark(outcome: Outcome, others: Outcome) -> Outcome:
    """Return an outcome that treats changes of the mark's name differently from all others."""

    def decide(change: Change) -> bytes | None:
        is_of_mark = change.path == f"{COPY}/{MARK}"
        return (outcome if is_of_mark else others)(change)

    return decide


def lose_one_removal(change: Change) -> bytes | None:
    """Decide that the first segment is not removed, as an Outcome."""
    is_lost = change.operation == "remove" and change.path == f"{COPY}/{FIRST}"
    return (lose if is_lost else keep)(change)


CRASHES: dict[str, Callable[[SimulatedDisk], object]] = {
    "kill": SimulatedDisk.kill,
    "power cut, all lost": lambda disk: disk.power_cut(lose),
    "power cut, all kept": lambda disk: disk.power_cut(keep),
    "power cut, only the mark's name kept": lambda disk: disk.power_cut(of_mark(keep, lose)),
    "power cut, only the mark's name lost": lambda disk: disk.power_cut(of_mark(lose, keep)),
    "power cut, one removal lost": lambda disk: disk.power_cut(lose_one_removal),
}


def crashed(disk: SimulatedDisk, action: Copying, count: int, crash: str) -> SimulatedDisk:
    """Return a copy of the disk on which the action crashed after a number of mutations."""
    copy = SimulatedDisk(disk.snapshot())
    copy.crash_after(count)
    try:
        action(copy)
    except (OSError, JournalError):
        assert copy.crashed
    CRASHES[crash](copy)
    return copy


@pytest.mark.parametrize("crash", CRASHES)
@pytest.mark.parametrize("is_compacted", [False, True], ids=["log", "checkpoints"])
@pytest.mark.parametrize("copying", [backed_up, restored, restored_in_part])
def test_an_interrupted_copy_is_no_journal(
    copying: Callable[[MemoryStore, SimulatedDisk], None], is_compacted: bool, crash: str
) -> None:
    """P1, P2: After a crash at any step of a copy, an open finds nothing, refuses, or finds
    everything. If it refuses, it changes nothing, and the same copy succeeds."""
    disk, store = source(is_compacted=is_compacted)
    action = partial(copying, store)
    whole = SimulatedDisk(disk.snapshot())
    action(whole)
    steps = len(whole.operations)
    expected = content(whole)
    seen = set()
    for count in range(steps + 1):
        after = crashed(disk, action, count, crash)
        files = after.contents(COPY)
        if MARK in files:
            for reads in (Journal.open, JournalReader.open, repair):
                with pytest.raises(NotAJournalError, match="repeat it, which replaces"):
                    reads(COPY, disk=after)
            with pytest.raises(NotAJournalError):
                backup(COPY, "/copy of the copy", disk=after)
            assert after.contents(COPY) == files
        if MARK in files or not files:
            action(after)
        seen.add(MARK in files if files else None)
        assert content(after) == expected
    assert seen == {None, True, False}


@pytest.mark.parametrize("crash", CRASHES)
@pytest.mark.parametrize("is_last", [False, True], ids=["in the middle", "at the end"])
def test_a_crash_of_a_clean_up_leaves_no_part(is_last: bool, crash: str) -> None:
    """P1: After a copy fails, a crash at any step of the removal of its files leaves an incomplete
    copy or nothing. If the last step of the copy fails, it may also leave the complete copy."""
    disk, _ = source(is_compacted=False)
    whole = SimulatedDisk(disk.snapshot())
    assert backup(PATH, COPY, disk=whole).lsn == 10
    syncs = whole.operations.count(("sync_directory", COPY))

    def failing(disk: SimulatedDisk) -> None:
        disk.fail("sync_directory", errno.EIO, path=COPY, after=syncs - 1 if is_last else 1)
        backup(PATH, COPY, disk=disk)

    failed = SimulatedDisk(disk.snapshot())
    with pytest.raises(OSError, match="simulated EIO"):
        failing(failed)
    assert failed.contents(COPY) == {}
    seen = set()
    for count in range(len(failed.operations)):
        after = crashed(disk, failing, count, crash)
        after.before = None
        files = after.contents(COPY)
        seen.add(MARK in files)
        if MARK in files or not files:
            assert backup(PATH, COPY, disk=after).lsn == 10
        else:
            assert is_last
            assert files == whole.contents(COPY)
    assert seen == {True, False}


def test_an_interrupted_copy_is_not_followed(tmp_path: Path) -> None:
    """`follow` refuses an incomplete copy, as an open does."""
    (tmp_path / "b").mkdir(mode=0o700)
    (tmp_path / "b" / MARK).touch()
    with pytest.raises(NotAJournalError) as raised:
        follow(f"file://{tmp_path}/m", tmp_path / "b")
    assert raised.value.is_incomplete_copy


@pytest.mark.parametrize("name", ["notes.txt", "notes.tmp", "output", "ASIDE", "SALVAGED"])
def test_a_copy_clears_no_other_files(tmp_path: Path, name: str) -> None:
    """A directory with a file that no copy makes is refused, also if an incomplete copy is there,
    and nothing in it is removed."""
    with Journal.open(tmp_path / "j") as journal:
        put(journal, 1)
        (tmp_path / "copy").mkdir()
        for each in (name, MARK, "00000000000000000001-0000000001.seg"):
            (tmp_path / "copy" / each).touch()
        with pytest.raises(FileExistsError, match="not empty; give a new directory"):
            journal.backup(tmp_path / "copy")
    assert len(list((tmp_path / "copy").iterdir())) == 3


def test_an_incomplete_copy_is_not_cleared_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without locks, another process may be making the copy, so it is refused."""
    with Journal.open(tmp_path / "j") as journal:
        put(journal, 1)
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / MARK).touch()
        no_locks = UnsafePathError("no locks", path="")
        monkeypatch.setattr(PosixDirectory, "lock", Mock(side_effect=no_locks))
        with pytest.raises(FileExistsError, match="an incomplete copy, perhaps one that is still"):
            journal.backup(tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == [MARK]


def test_two_copies_without_locks_do_not_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without locks, of two copies that begin at once in a directory, the later one is refused, and
    removes nothing of the other."""
    with Journal.open(tmp_path / "j") as journal:
        put(journal, 1)

        def begin_other(_: PosixDirectory) -> None:
            (tmp_path / "copy" / MARK).touch()  # after the check that the directory is empty
            raise UnsafePathError("no locks", path="")

        monkeypatch.setattr(PosixDirectory, "lock", begin_other)
        with pytest.raises(FileExistsError):
            journal.backup(tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == [MARK]


def test_files_put_aside_are_no_incomplete_copy(disk: SimulatedDisk) -> None:
    """A crash may leave the mark in a directory that was put aside. The file ASIDE shows that it is
    complete."""
    with open_on(disk) as journal:
        put(journal, 1)
    directory = disk.open_directory(PATH, write=True)
    aside = put_aside(disk, directory, {})
    disk.open_directory(aside.path, write=True).open(MARK, "create")
    with JournalReader.open(aside.path, disk=disk) as reader:
        assert reader.last_lsn == 1
