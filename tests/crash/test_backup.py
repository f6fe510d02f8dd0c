"""Backups of journals, open and closed."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import pytest

from journal import (
    BackupReport,
    CorruptionError,
    DurableState,
    Journal,
    JournalError,
    JournalReader,
    backup,
    repair,
)
from journal.testing import SimulatedDisk
from journal.testing.disk import Operation
from tests.crash.repair_support import damage, offset_of
from tests.support import (
    PATH,
    TIMEOUT_S,
    Table,
    crash,
    end_of,
    frozen,
    logged,
    names,
    on_disk,
    open_on,
    options,
    put,
    put_lines,
    until,
    write_at,
)


def read_backup(disk: SimulatedDisk, path: str) -> tuple[Any, list[Any]]:
    with Journal.open(path, options=options(), disk=disk) as journal:
        items = list(journal.checkpoint.items()) if journal.checkpoint else None
        return items, logged(journal, None)


@pytest.mark.parametrize("live", [True, False])
def test_a_backup_holds_all_that_is_durable(disk: SimulatedDisk, live: bool) -> None:
    """P6: A backup holds two checkpoints and the durable records after the older one, and verifies.

    An open journal copies the records up to its durable LSN. A backup by path copies what a reader
    sees.
    """
    journal = open_on(disk)
    for n in range(3):
        put_lines(journal, 12, size=700)
        journal.compact(frozen(journal, f"state {n}"))
    put_lines(journal, 5, size=700)
    if live:
        journal.append("not durable")
        report = journal.backup("/copy")
        assert disk.contents("/copy")["LOCK"] == b""
    else:
        journal.close()
        report = backup(PATH, "/copy", disk=disk)
    assert report.path == "/copy"
    assert (report.lsn, report.checkpoints) == (41, 2)
    copied = disk.contents("/copy")
    assert report.segments == sum(name.endswith(".seg") for name in copied)
    assert report.size_bytes == sum(map(len, copied.values()))
    assert read_backup(disk, "/copy") == (["state 2"], [[n, "x" * 700] for n in range(37, 42)])
    with JournalReader.open("/copy", disk=disk) as reader:
        assert [entry.lsn for entry in reader.entries(24)] == [*range(25, 42)]
        assert list(reader.verify()) == []
        assert reader.journal_id == journal.journal_id
    journal.close()


def test_a_backup_of_an_empty_journal_is_empty(disk: SimulatedDisk) -> None:
    """The backup of an empty journal opens and is empty."""
    with open_on(disk) as journal:
        report = journal.backup("/live")
    assert (report.lsn, report.segments, report.checkpoints) == (0, 0, 0)
    assert backup(PATH, "/dead", disk=disk) == BackupReport("/dead", 0, 0, 0, 0)
    for path in ("/live", "/dead"):
        assert read_backup(disk, path) == (None, [])


def test_backup_of_a_path_without_a_journal_is_refused(tmp_path: Path) -> None:
    """P4: A path without a journal gives no copy, so a mistyped path does not look backed up."""
    (tmp_path / "plain").mkdir(mode=0o700)
    (tmp_path / "plain" / "notes.txt").touch()
    with pytest.raises(JournalError, match="not a journal"):
        backup(tmp_path / "plain", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_backup_needs_a_new_directory(tmp_path: Path) -> None:
    """A backup into a directory that contains anything raises FileExistsError.

    Without a parent directory, or without a journal to copy, it raises FileNotFoundError. Nothing
    is changed in either case.
    """
    with Journal.open(tmp_path / "j") as journal:
        put(journal, 1)
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "file").touch()
        (tmp_path / "full").chmod(0o700)
        for copy in (journal.backup, lambda dest: backup(tmp_path / "j", dest)):
            with pytest.raises(FileExistsError, match="not empty; give a new directory"):
                copy(tmp_path / "full")
            with pytest.raises(FileNotFoundError):
                copy(tmp_path / "missing" / "copy")
            with pytest.raises(FileExistsError):
                copy(tmp_path / "j")
        with pytest.raises(FileNotFoundError):
            backup(tmp_path / "missing", tmp_path / "copy")
        assert not (tmp_path / "copy").exists()
        assert os.listdir(tmp_path / "full") == ["file"]
        journal.backup(tmp_path / "copy")
        assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "copy").iterdir()} == {0o600}


def test_backup_of_a_damaged_journal_is_refused(disk: SimulatedDisk) -> None:
    """P4: A journal that can't be read completely is not copied. The error names the place."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        name, offset = offset_of(disk, 3)
        damage(disk, 3)
        for copy in (journal.backup, lambda dest: backup(PATH, dest, disk=disk)):
            with pytest.raises(CorruptionError) as caught:
                copy(f"/copy {copy!r}")
            assert (caught.value.path, caught.value.offset) == (f"{PATH}/{name}", offset)


@pytest.mark.parametrize("durability", ["disk", "os"])
@pytest.mark.parametrize("live", [True, False])
def test_damage_to_the_last_frame_of_a_backup_is_reported(
    disk: SimulatedDisk, live: bool, durability: Literal["disk", "os"]
) -> None:
    """P4: A backup carries its own evidence that its last frame was durable.

    Nothing was written after that frame in the journal itself.
    """
    with Journal.open(PATH, options=options(durability=durability), disk=disk) as journal:
        journal.append("the last one")
        journal.wait_durable()
        if live:
            journal.backup("/copy")
    if not live:
        backup(PATH, "/copy", disk=disk)
    files = disk.contents("/copy")
    (name,) = (name for name in files if name.endswith(".seg"))
    files[name] = files[name].replace(b"the last one", b"the last onf")
    with pytest.raises(CorruptionError) as caught:
        Journal.open("/copy", disk=SimulatedDisk.holding("/copy", files))
    assert (caught.value.path, caught.value.lsn) == (f"/copy/{name}", 1)


def test_a_torn_tail_is_left_out_of_a_backup(disk: SimulatedDisk) -> None:
    """P1: A backup ends where the log ends, before a torn tail."""
    journal = open_on(disk)
    put(journal, 1, 2)
    crash(journal, disk)
    (name,) = names(disk, ".seg")
    write_at(disk, name, end_of(disk, name), b"torn")
    assert backup(PATH, "/copy", disk=disk).lsn == 2
    with JournalReader.open("/copy", disk=disk) as reader:
        assert [entry.record for entry in reader.entries()] == [1, 2]
        assert list(reader.verify()) == []


def test_a_compaction_before_the_copy_is_not_corruption(disk: SimulatedDisk) -> None:
    """P4, P6: A checkpoint that is published after the backup began is copied with its log.

    Its LSN may be newer than the durable LSN at the beginning of the backup.
    """
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        journal.compact(frozen(journal, 1))

        def compact_at_the_copy(operation: Operation, path: str) -> None:
            if path == "/copy" and operation == "make_directory":
                disk.before = None
                put_lines(journal, 12, size=700)
                journal.compact(frozen(journal, 2))

        disk.before = compact_at_the_copy
        report = journal.backup("/copy")
        assert report.lsn >= 12
    items, _ = read_backup(disk, "/copy")
    assert items == [2] if report.lsn >= 24 else [1]


def test_a_compaction_during_the_copy_restarts_it(disk: SimulatedDisk) -> None:
    """P6: Files that disappear while they are copied are no error, and the copy is complete."""
    with open_on(disk) as journal:
        for n in range(2):
            put_lines(journal, 12, size=700)
            journal.compact(frozen(journal, n))
        copies = []

        def compact_at_the_second_file(operation: Operation, path: str) -> None:
            if operation == "create" and path.startswith("/copy"):
                copies.append(path)
                if len(copies) == 2:
                    for n in (2, 3):
                        put_lines(journal, 12, size=700)
                        journal.compact(frozen(journal, n))

        disk.before = compact_at_the_second_file
        report = journal.backup("/copy")
        disk.before = None
        live = journal.last_lsn
    assert 24 <= report.lsn <= live
    items, tail = read_backup(disk, "/copy")
    assert items == [3] if report.lsn == live else items is not None
    assert [record[0] for record in tail] == [*range(report.lsn + 1 - len(tail), report.lsn + 1)]


def test_backups_under_load_are_states_of_one_lsn(disk: SimulatedDisk) -> None:
    """P2, P6: A backup made during appends, waits and compactions opens as the state at one LSN.

    That LSN is not below the durable LSN at the beginning of the backup.
    """
    state = DurableState.open(
        PATH, Table(), options=options(segment_bytes=8192, checkpoint_min_bytes=20_000), disk=disk
    )
    stop = threading.Event()

    def write(thread: int) -> None:
        for n in itertools.count():
            if stop.is_set():
                return
            lsn = state.update(lambda _: [f"{thread}-{n % 20}", [n, "x" * 50]])  # noqa: B023
            if n % 8 == 0:
                state.wait_durable(lsn, timeout_s=TIMEOUT_S)

    reports = []
    with state, ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, thread) for thread in range(2)]
        until(lambda: state.stats().compactions, "the first compaction")
        for number in range(4):
            durable_lsn = state.journal.durable_lsn
            if number % 2:
                report = state.journal.backup(f"/copy{number}")
                assert report.lsn >= durable_lsn
            else:
                report = backup(PATH, f"/copy{number}", disk=disk)
            reports.append(report)
        stop.set()
        for writer in writers:
            writer.result(TIMEOUT_S)
    for report in reports:
        with DurableState.open(report.path, Table(), options=options(), disk=disk) as copy:
            assert copy.journal.last_lsn == report.lsn
            for thread in range(2):
                numbers = [copy.machine.content().get(f"{thread}-{k}", [-1])[0] for k in range(20)]
                newest = max(numbers)
                expected = {n % 20: n for n in range(max(0, newest - 19), newest + 1)}
                assert numbers == [expected.get(k, -1) for k in range(20)]


def finding_kinds(disk: SimulatedDisk) -> Iterator[str]:
    with JournalReader.open(PATH, disk=disk) as reader:
        for finding in reader.verify():
            yield finding.kind


def test_a_backup_can_be_repaired_and_backed_up(disk: SimulatedDisk) -> None:
    """A backup is a journal like any other."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        journal.compact(frozen(journal, 1))
        journal.backup("/copy")
    assert repair("/copy", disk=disk).problem is None
    assert backup("/copy", "/again", disk=disk).lsn == 12
    assert read_backup(disk, "/again") == ([1], [])
    assert list(finding_kinds(disk)) == []
    assert len(on_disk(disk)) == 12


def test_a_failed_backup_leaves_nothing(disk: SimulatedDisk) -> None:
    """P4: A backup that runs out of space removes its files: a part of a journal is no backup."""
    with open_on(disk) as journal:
        put_lines(journal, 20, size=900)
    disk.capacity = sum(map(len, disk.contents(PATH).values())) + 500
    with pytest.raises(OSError, match=r"ENOSPC|space"):
        backup(PATH, "/copy", disk=disk)
    disk.capacity = None
    assert disk.contents("/copy") == {}
    assert backup(PATH, "/copy", disk=disk).lsn == 20


@pytest.mark.parametrize("count", [0, 1])
def test_a_backup_raises_the_fault_of_any_call(disk: SimulatedDisk, count: int) -> None:
    """P4: Whichever call of the disk fails, the error is the disk's own, and no file is left."""
    with open_on(disk) as journal:
        put_lines(journal, count)
    calls: list[Operation] = []
    disk.before = lambda operation, path: calls.append(operation)
    backup(PATH, "/whole", disk=disk)
    assert len(calls) > 10
    for nth in range(len(calls)):
        remaining = [nth]

        def fail(operation: Operation, path: str, remaining: list[int] = remaining) -> None:
            remaining[0] -= 1
            if remaining[0] == -1:
                raise OSError(errno.EIO, operation)

        disk.before = fail
        with pytest.raises(OSError, match=calls[nth]) as caught:
            backup(PATH, f"/copy-{nth}", disk=disk)
        assert caught.value.errno == errno.EIO
        assert disk.contents(f"/copy-{nth}") == {}
