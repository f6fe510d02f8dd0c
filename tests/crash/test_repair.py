"""Repair of journals that need none, and repair by cutting."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from journal import (
    CorruptionError,
    Journal,
    JournalError,
    JournalReader,
    LockedError,
    RepairReport,
    repair,
)
from journal.testing import SimulatedDisk
from tests.crash.repair_support import check_opens_with, damage, fixed, offset_of, repaired_again
from tests.support import (
    PATH,
    frozen,
    names,
    open_on,
    put,
    put_lines,
    reopened,
    write_at,
)

# --- journals that need no repair ---


def test_an_intact_journal_needs_no_repair(disk: SimulatedDisk) -> None:
    """Repair of an intact journal reports nothing, and changes no byte, even if it is applied."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        journal.compact(frozen(journal, 1))
    before = disk.contents(PATH)
    report = fixed(disk, salvage=True)
    assert report == RepairReport(PATH, True, None, 12, (), None, (), None)
    assert disk.contents(PATH) == before


def test_repair_of_a_path_without_a_journal_is_refused(tmp_path: Path) -> None:
    """Repair makes no missing directory and changes no other one, whatever its arguments."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "holiday.jpg").touch()
    for apply, cut_at in ((False, None), (True, None), (True, 0)):
        with pytest.raises(FileNotFoundError):
            repair(tmp_path / "missing", apply=apply, cut_at=cut_at)
        with pytest.raises(JournalError, match="not a journal"):
            repair(tmp_path / "other", apply=apply, cut_at=cut_at)
    assert os.listdir(tmp_path) == ["other"]
    assert os.listdir(tmp_path / "other") == ["holiday.jpg"]


def test_a_dry_run_changes_no_mode(tmp_path: Path) -> None:
    """P9: A directory that others may read keeps its mode until a repair is applied."""
    Journal.open(tmp_path / "j").close()
    (tmp_path / "j").chmod(0o750)
    for apply, mode in ((False, 0o750), (True, 0o700)):
        assert repair(tmp_path / "j", apply=apply).problem is None
        assert (tmp_path / "j").stat().st_mode & 0o777 == mode


def test_a_live_journal_is_not_repaired(tmp_path: Path) -> None:
    """P10: Repair is a writer. Beside another writer it raises LockedError, even as a dry run."""
    with Journal.open(tmp_path / "j") as journal:
        put(journal, 1)
        for apply in (False, True):
            with pytest.raises(LockedError, match="this process has it open already"):
                repair(tmp_path / "j", apply=apply)
        put(journal, 2)
    assert repair(tmp_path / "j").problem is None
    Journal.open(tmp_path / "j").close()


# --- cutting ---


@pytest.mark.parametrize("lsn", [1, 2, 5, 9, 11])
def test_damage_is_cut_off(disk: SimulatedDisk, lsn: int) -> None:
    """P4: A repaired journal has all records before the damage, and continues there.

    The report names the records after it. Removed files are set aside, and no kept file has
    changed.
    """
    for _ in range(2):
        with open_on(disk) as journal:
            put_lines(journal, 6, size=900)
    damage(disk, lsn)
    with pytest.raises(CorruptionError) as refused:
        open_on(disk)
    before = disk.contents(PATH)
    report = fixed(disk)
    assert report.problem == str(refused.value)
    assert (report.path, report.last_lsn) == (PATH, lsn - 1)
    assert report.salvaged == tuple((n, n) for n in range(lsn + 1, 13))
    left_behind = [name for name in names(disk, ".seg") if name in before and int(name[:20]) >= lsn]
    assert left_behind == []
    assert set(report.removed) == {
        name for name in before if name.endswith(".seg") and int(name[:20]) >= lsn
    }
    after = disk.contents(PATH)
    assert all(after[name] == before[name] for name in before if name not in report.removed)
    if report.removed:
        assert report.saved_to == f"{PATH}.cut-1"
        saved = disk.contents(report.saved_to)
        assert saved == {name: before[name] for name in report.removed}
    else:
        assert report.saved_to is None
    check_opens_with(disk, [[n, "x" * 900] for n in range(1, lsn)])


def test_a_cut_begins_a_new_epoch(disk: SimulatedDisk) -> None:
    """P10: A cut is a segment of the next epoch, so a removed record and its successor differ."""
    with open_on(disk) as journal:
        put(journal, 1, 2, 3)
    damage(disk, 2)
    fixed(disk)
    assert names(disk, ".seg")[-1] == f"{2:020d}-{2:010d}.seg"
    with open_on(disk) as journal:
        assert journal.epoch == 3
        put(journal, "another 2")
        assert [(e.epoch, e.lsn) for e in journal.replay()] == [(1, 1), (3, 2)]


def test_damage_that_the_checkpoint_covers_in_part_keeps_the_checkpoint(
    disk: SimulatedDisk,
) -> None:
    """P4, P6: If the newest checkpoint stands in the middle of a damaged frame, the journal
    continues from the checkpoint.

    Only records after the checkpoint may be lost, and those in whole frames are salvaged.
    """
    with open_on(disk) as journal:
        put_lines(journal, 2, size=700)
        journal.wait_durable(journal.append_batch([[3], [4]]))
        journal.compact(lambda: (3, ["as of 3"]))
        put_lines(journal, 1, size=700)
    damage(disk, 4)
    with pytest.raises(CorruptionError):
        open_on(disk)
    report = fixed(disk, salvage=True)
    assert (report.last_lsn, report.salvaged) == (3, ((5, 5),))
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert list(journal.checkpoint.items()) == ["as of 3"]
    check_opens_with(disk, [], f"{PATH}/{names(disk, '.seg')[0]}")


def test_a_log_that_ends_before_a_bad_checkpoint_is_cut_at_its_end(disk: SimulatedDisk) -> None:
    """P4: The log is cut at its end, although a checkpoint's name is evidence of more records."""
    with open_on(disk) as journal:
        put(journal, 1, 2)
        journal.compact(frozen(journal, "as of 2"))
        put(journal, 3, 4)
        journal.compact(frozen(journal, "as of 4"))
    (name,) = names(disk, ".seg")
    old, new = names(disk, ".json")
    file = disk.open_directory(PATH, write=True).open(name, "update")
    file.truncate(offset_of(disk, 4)[1])
    write_at(disk, new, 5, b"?")
    with pytest.raises(CorruptionError):
        open_on(disk)
    report = fixed(disk)
    assert (report.last_lsn, report.removed) == (3, (new,))
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert journal.checkpoint.path.endswith(old)
    check_opens_with(disk, [3])


def test_a_foreign_segment_is_cut_off(disk: SimulatedDisk) -> None:
    """P1, P4: A segment of another journal is cut off, and the journal keeps its id."""
    other = SimulatedDisk()
    other.new_id()
    for each_disk in (disk, other):
        for _ in range(2):
            with open_on(each_disk) as journal:
                put(journal, 1, 2)
    with JournalReader.open(PATH, disk=disk) as reader:
        journal_id = reader.journal_id
    _, second = names(other, ".seg")
    write_at(disk, second, 0, other.contents(PATH)[second])
    report = fixed(disk)
    assert (report.last_lsn, report.removed) == (2, (second,))
    check_opens_with(disk, [1, 2])
    with open_on(disk) as journal:
        assert journal.journal_id == journal_id


def test_a_gap_cuts_the_log_before_it(disk: SimulatedDisk) -> None:
    """P4: The log is cut before a missing segment. Later segments are set aside and salvaged."""
    for _ in range(3):
        with open_on(disk) as journal:
            put(journal, *range(4))
    first, second, third = names(disk, ".seg")
    disk.open_directory(PATH, write=True).remove(second)
    report = fixed(disk, salvage=True)
    assert (report.last_lsn, report.removed) == (4, (third,))
    assert report.salvaged == tuple((n, n) for n in range(9, 13))
    check_opens_with(disk, [*range(4)])
    assert first in names(disk, ".seg")


def test_a_journal_without_segments_continues_from_its_checkpoint(disk: SimulatedDisk) -> None:
    """P4: A journal that has a checkpoint and no log continues from the checkpoint."""
    with open_on(disk) as journal:
        put(journal, 1, 2)
        journal.compact(frozen(journal, "as of 2"))
        journal_id = journal.journal_id
    disk.open_directory(PATH, write=True).remove(names(disk, ".seg")[0])
    with pytest.raises(CorruptionError):
        open_on(disk)
    assert fixed(disk).last_lsn == 2
    check_opens_with(disk, [])
    with open_on(disk) as journal:
        assert journal.journal_id == journal_id


def test_an_interrupted_repair_can_be_repeated(disk: SimulatedDisk) -> None:
    """P5: If any call to the disk fails during a repair, a second repair completes it.

    The removed files are set aside.
    """
    for _ in range(2):
        with open_on(disk) as journal:
            put_lines(journal, 6, size=900)
    damage(disk, 5)
    for repaired in repaired_again(disk.contents(PATH)):
        assert reopened(repaired) == [[n, "x" * 900] for n in range(1, 5)]
