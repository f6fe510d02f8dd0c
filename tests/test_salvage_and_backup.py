"""Salvaging what stands behind the end, and backups."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from tests.repair_support import damage, fixed, offset_of
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
    read_all,
    reopened,
    until,
    write_at,
)

# --- salvaging ---


def test_what_is_behind_the_damage_is_salvaged(disk: SimulatedDisk) -> None:
    """`salvage` writes the valid frames behind the cut to a journal of their own, in their order,
    numbered anew; without `apply` it tells which."""
    with open_on(disk) as journal:
        put(journal, "a")
        journal.wait_durable(journal.append_batch(["b", "c"]))
        put(journal, "d", {"e": [1, b"2", None]})
        put_lines(journal, 6, size=900)
    damage(disk, 1)
    report = fixed(disk, salvage=True)
    assert report.salvaged_to == f"{PATH}.salvaged-1"
    assert report.salvaged[:3] == ((2, 3), (4, 4), (5, 5))
    with Journal.open(report.salvaged_to, options=options(), disk=disk) as journal:
        found = logged(journal)
        assert found[:4] == ["b", "c", "d", {"e": [1, b"2", None]}]
        assert [record[0] for record in found[4:]] == [*range(6, 12)]
    with JournalReader.open(report.salvaged_to, disk=disk) as reader:
        offsets = {entry.record: entry.offset for entry in itertools.islice(reader.entries(), 2)}
        assert len(set(offsets.values())) == 1
        assert list(reader.verify()) == []


def test_a_torn_tail_is_salvaged(disk: SimulatedDisk) -> None:
    """Whole frames in a torn tail stay on disk for this; the journal itself needs no repair, and
    `repair` leaves it as it is."""
    journal = open_on(disk)
    put(journal, "kept")
    until(lambda: read_all(disk) == ["kept"], "the mark")
    (name,) = names(disk, ".seg")
    whole = disk.contents(PATH)[name]
    journal.append("torn")
    journal.append_batch(["whole", "too"])
    journal.wait_durable()
    put(journal, "more")
    crash(journal, disk)
    later = disk.contents(PATH)[name]
    # Of the frames behind the first one, the power cut left all but a piece of the first.
    mark = end_of_first = len(whole.rstrip(b"\0"))
    assert end_of_first == mark
    broken = bytearray(later)
    frame_2 = 64 + 44 + 5
    broken[frame_2 + 44] ^= 0xFF
    write_at(disk, name, 0, bytes(broken))
    # Nothing says that it was durable: the durable LSN of the frame behind it is older.
    report = repair(PATH, salvage=True, disk=disk)
    if report.problem is None:
        before = disk.contents(PATH)
        report = fixed(disk, salvage=True)
        assert disk.contents(PATH) == before
        assert report.last_lsn == 1
    assert report.salvaged[-1] == (5, 5)


def test_a_torn_tail_behind_the_next_epoch_is_salvaged(disk: SimulatedDisk) -> None:
    """P1: what an epoch cut off stays dead; its frames are shown under the LSNs they had, and the
    journal's own records of those LSNs are not among them."""
    journal = open_on(disk)
    put(journal, "one")
    (name,) = names(disk, ".seg")
    end = end_of(disk, name)
    put(journal, "lost")
    dead = disk.contents(PATH)[name]
    crash(journal, disk)
    write_at(disk, name, end, bytes(len(dead) - end))
    with open_on(disk) as journal:
        put(journal, "two", "three")
    write_at(disk, name, 0, dead)
    report = fixed(disk, salvage=True)
    assert (report.problem, report.last_lsn, report.salvaged) == (None, 3, ((2, 2),))
    assert report.salvaged_to is not None
    with Journal.open(report.salvaged_to, disk=disk) as journal:
        assert logged(journal) == ["lost"]
    assert reopened(disk) == ["one", "two", "three"]


def test_each_repair_has_directories_of_its_own(disk: SimulatedDisk) -> None:
    """What an earlier repair kept aside is never written over."""
    with open_on(disk) as journal:
        put_lines(journal, 30, size=900)
    for number, cut_at in enumerate((24, 16, 8), 1):
        report = fixed(disk, cut_at=cut_at, salvage=True)
        assert report.saved_to == f"{PATH}.cut-{number}"
        assert report.salvaged_to == f"{PATH}.salvaged-{number}"
    assert reopened(disk) == [[n, "x" * 900] for n in range(1, 9)]


@given(data=st.data())
def test_any_damage_can_be_repaired(data: st.DataObject) -> None:
    """P1, P4: after bytes anywhere in the segments are changed, repair yields a prefix of what was
    appended, that goes on; or says that there is nothing to go on from."""
    disk = SimulatedDisk()
    for _ in range(2):
        with open_on(disk) as journal:
            put_lines(journal, 4, size=300)
            journal.compact(frozen(journal, journal.last_lsn))
            put_lines(journal, 8, size=700)
    log = [[n, "x" * (300 if (n - 1) % 12 < 4 else 700)] for n in range(1, 25)]
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(names(disk, ".seg") + names(disk, ".json")))
        size = len(disk.contents(PATH)[name])
        offset = data.draw(st.integers(0, size - 1))
        write_at(disk, name, offset, data.draw(st.binary(min_size=1, max_size=60)))
    try:
        report = fixed(disk, salvage=True)
    except JournalError:
        assert len(names(disk, ".json")) > 0
        return
    with open_on(disk) as journal:
        base_lsn = journal.checkpoint.lsn if journal.checkpoint else 0
        assert journal.last_lsn == report.last_lsn
        assert logged(journal, None) == log[base_lsn : report.last_lsn]
        put(journal, "on")
    with open_on(disk) as journal:
        assert logged(journal, None)[-1] == "on"


# --- backup ---


def read_backup(disk: SimulatedDisk, path: str) -> tuple[Any, list[Any]]:
    with Journal.open(path, options=options(), disk=disk) as journal:
        items = list(journal.checkpoint.items()) if journal.checkpoint else None
        return items, logged(journal, None)


@pytest.mark.parametrize("live", [True, False])
def test_a_backup_holds_all_that_is_durable(disk: SimulatedDisk, live: bool) -> None:
    """P6: checkpoints, and the log after the older one, verified; by the open journal itself up to
    its durable LSN, by path what a reader is shown."""
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


def test_a_backup_of_an_empty_journal(disk: SimulatedDisk) -> None:
    """Nothing is a state too: the copy opens, and is as empty."""
    with open_on(disk) as journal:
        report = journal.backup("/live")
    assert (report.lsn, report.segments, report.checkpoints) == (0, 0, 0)
    assert backup(PATH, "/dead", disk=disk) == BackupReport("/dead", 0, 0, 0, 0)
    for path in ("/live", "/dead"):
        assert read_backup(disk, path) == (None, [])


def test_a_backup_goes_to_a_new_place(tmp_path: Path) -> None:
    """FileExistsError if there is anything in it; FileNotFoundError without a parent, or a journal
    to copy; nothing is changed then."""
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


def test_a_damaged_journal_is_not_backed_up_as_sound(disk: SimulatedDisk) -> None:
    """P4: what can't be read whole is refused, with its place."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        name, offset = offset_of(disk, 3)
        damage(disk, 3)
        for copy in (journal.backup, lambda dest: backup(PATH, dest, disk=disk)):
            with pytest.raises(CorruptionError) as caught:
                copy(f"/copy {copy!r}")
            assert (caught.value.path, caught.value.offset) == (f"{PATH}/{name}", offset)


def test_a_torn_tail_is_left_out_of_a_backup(disk: SimulatedDisk) -> None:
    """P1: the copy ends where the log does."""
    journal = open_on(disk)
    put(journal, 1, 2)
    crash(journal, disk)
    (name,) = names(disk, ".seg")
    write_at(disk, name, end_of(disk, name), b"torn")
    assert backup(PATH, "/copy", disk=disk).lsn == 2
    with JournalReader.open("/copy", disk=disk) as reader:
        assert [entry.record for entry in reader.entries()] == [1, 2]
        assert list(reader.verify()) == []


def test_a_compaction_before_the_copy_is_no_corruption(disk: SimulatedDisk) -> None:
    """P4, P6: a checkpoint that is published after the backup began, with a newer LSN than was
    durable then, is copied with the log that it needs."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        journal.compact(frozen(journal, 1))

        def meanwhile(operation: Operation, path: str) -> None:
            if path == "/copy" and operation == "make_directory":
                disk.before = None
                put_lines(journal, 12, size=700)
                journal.compact(frozen(journal, 2))

        disk.before = meanwhile
        report = journal.backup("/copy")
        assert report.lsn >= 12
    items, _ = read_backup(disk, "/copy")
    assert items == [2] if report.lsn >= 24 else [1]


def test_a_compaction_amid_the_copy_begins_it_anew(disk: SimulatedDisk) -> None:
    """P6: files that vanish while they are copied are no error; the copy is whole."""
    with open_on(disk) as journal:
        for n in range(2):
            put_lines(journal, 12, size=700)
            journal.compact(frozen(journal, n))
        copies = []

        def meanwhile(operation: Operation, path: str) -> None:
            if operation == "create" and path.startswith("/copy"):
                copies.append(path)
                if len(copies) == 2:
                    for n in (2, 3):
                        put_lines(journal, 12, size=700)
                        journal.compact(frozen(journal, n))

        disk.before = meanwhile
        report = journal.backup("/copy")
        disk.before = None
        live = journal.last_lsn
    assert 24 <= report.lsn <= live
    items, tail = read_backup(disk, "/copy")
    assert items == [3] if report.lsn == live else items is not None
    assert [record[0] for record in tail] == [*range(report.lsn + 1 - len(tail), report.lsn + 1)]


def test_backups_under_load(disk: SimulatedDisk) -> None:
    """P2, P6: while others append, wait and compact, each backup opens as the state that was live
    at one LSN, not below what was durable when it began."""
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


def sound(disk: SimulatedDisk) -> Iterator[str]:
    with JournalReader.open(PATH, disk=disk) as reader:
        for finding in reader.verify():
            yield finding.kind


def test_a_backup_can_be_repaired_and_backed_up(disk: SimulatedDisk) -> None:
    """A copy is a journal like any other."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        journal.compact(frozen(journal, 1))
        journal.backup("/copy")
    assert repair("/copy", disk=disk).problem is None
    assert backup("/copy", "/again", disk=disk).lsn == 12
    assert read_backup(disk, "/again") == ([1], [])
    assert list(sound(disk)) == []
    assert len(on_disk(disk)) == 12
