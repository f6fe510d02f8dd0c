"""Repair and backup: cutting, salvaging, copying; damage, repair, append more, reopen, compare."""

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
    FailedError,
    Journal,
    JournalError,
    JournalReader,
    LockedError,
    RepairReport,
    backup,
    repair,
)
from journal.testing import SimulatedDisk
from journal.testing.disk import Operation
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


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


def offset_of(disk: SimulatedDisk, lsn: int) -> tuple[str, int]:
    """File and offset of the frame that holds a record."""
    with JournalReader.open(PATH, disk=disk) as reader:
        (entry,) = itertools.islice(reader.entries(lsn - 1), 1)
    assert entry.path is not None
    assert entry.offset is not None
    return entry.path.rpartition("/")[2], entry.offset


def damage(disk: SimulatedDisk, lsn: int) -> None:
    """Spoil the payload of the frame that holds a record."""
    name, offset = offset_of(disk, lsn)
    write_at(disk, name, offset + 44, b"\xff\xff")


def fixed(disk: SimulatedDisk, **how: Any) -> RepairReport:
    """Dry run first, which must tell the same and change nothing; then the repair itself."""
    before = disk.contents(PATH)
    dry = repair(PATH, disk=disk, **how)
    assert (disk.contents(PATH), dry.applied, dry.saved_to, dry.salvaged_to) == (
        before, False, None, None
    )  # fmt: skip
    report = repair(PATH, apply=True, disk=disk, **how)
    assert report.applied
    assert (dry.problem, dry.last_lsn, dry.removed, dry.salvaged) == (
        report.problem, report.last_lsn, report.removed, report.salvaged
    )  # fmt: skip
    return report


def goes_on(disk: SimulatedDisk, expected: list[Any], *ignored: str) -> None:
    """It opens with these records; more can be appended; and all of it is there when reopened.

    `ignored`: damaged files that a checkpoint covers."""
    with open_on(disk) as journal:
        assert logged(journal, None) == expected
        put_lines(journal, 10, size=900)
        more = logged(journal, None)
        assert more[: len(expected)] == expected
    with open_on(disk) as journal:
        assert logged(journal, None) == more
    with JournalReader.open(PATH, disk=disk) as reader:
        found = [finding for finding in reader.verify() if finding.path not in ignored]
    assert {finding.kind for finding in found} <= {"torn_tail", "bad_checkpoint"}


# --- what needs no repair ---


def test_a_sound_journal_needs_none(disk: SimulatedDisk) -> None:
    """No problem, nothing removed, nothing to salvage; also with `apply` not a byte changes."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        journal.compact(frozen(journal, 1))
    before = disk.contents(PATH)
    report = fixed(disk, salvage=True)
    assert report == RepairReport(PATH, True, None, 12, (), None, (), None)
    assert disk.contents(PATH) == before


def test_what_is_no_journal_is_not_repaired(tmp_path: Path) -> None:
    """A missing directory is not made, another one not touched, whatever is asked."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "holiday.jpg").touch()
    for apply, cut_at in ((False, None), (True, None), (True, 0)):
        with pytest.raises(FileNotFoundError):
            repair(tmp_path / "missing", apply=apply, cut_at=cut_at)
        with pytest.raises(JournalError, match="not a journal"):
            repair(tmp_path / "other", apply=apply, cut_at=cut_at)
    assert os.listdir(tmp_path) == ["other"]
    assert os.listdir(tmp_path / "other") == ["holiday.jpg"]


def test_a_live_journal_is_not_repaired(tmp_path: Path) -> None:
    """P10: repair is a writer: LockedError beside another one, for a dry run too."""
    with Journal.open(tmp_path / "j") as journal:
        put(journal, 1)
        for apply in (False, True):
            with pytest.raises(LockedError, match="stop it first"):
                repair(tmp_path / "j", apply=apply)
        put(journal, 2)
    assert repair(tmp_path / "j").problem is None
    Journal.open(tmp_path / "j").close()


# --- cutting ---


@pytest.mark.parametrize("lsn", [1, 2, 5, 9, 11])
def test_damage_is_cut_off(disk: SimulatedDisk, lsn: int) -> None:
    """P4: repaired, the journal holds all in front of the damage and goes on there; what was behind
    it is in the report, removed files are kept aside, and no kept file has changed."""
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
    gone = [name for name in names(disk, ".seg") if name in before and int(name[:20]) >= lsn]
    assert gone == []
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
    goes_on(disk, [[n, "x" * 900] for n in range(1, lsn)])


def test_a_cut_uses_an_epoch(disk: SimulatedDisk) -> None:
    """P10: the cut is a segment of the next epoch, so a record cut off and its successor differ."""
    with open_on(disk) as journal:
        put(journal, 1, 2, 3)
    damage(disk, 2)
    fixed(disk)
    assert names(disk, ".seg")[-1] == f"{2:020d}-{2:010d}.seg"
    with open_on(disk) as journal:
        assert journal.epoch == 3
        put(journal, "another 2")
        assert [(e.epoch, e.lsn) for e in journal.replay()] == [(1, 1), (3, 2)]


def test_a_cut_may_be_chosen(disk: SimulatedDisk) -> None:
    """`cut_at` is the last LSN to keep, of a sound journal too: the end of a batch, or 0."""
    with open_on(disk) as journal:
        put(journal, 1)
        journal.wait_durable(journal.append_batch([2, 3, 4]))
        put(journal, 5)
    for bad in (-1, 2, 3, 6, 10**9):
        for apply in (False, True):
            before = disk.contents(PATH)
            with pytest.raises(ValueError, match=f"cut_at={bad} is no end of a batch"):
                repair(PATH, cut_at=bad, apply=apply, disk=disk)
            assert disk.contents(PATH) == before
    with pytest.raises(ValueError, match="an end beside it: 4"):
        repair(PATH, cut_at=3, disk=disk)
    assert fixed(disk, cut_at=4).problem is None
    assert reopened(disk) == [1, 2, 3, 4]
    fixed(disk, cut_at=1)
    assert reopened(disk) == [1]
    fixed(disk, cut_at=0)
    goes_on(disk, [])


def test_no_cut_lies_behind_the_damage(disk: SimulatedDisk) -> None:
    """P4: `cut_at` past what is good is refused, though a later segment begins just there: what it
    would keep is not all there."""
    for _ in range(3):
        with open_on(disk) as journal:
            put(journal, *range(5))
    damage(disk, 7)
    before = disk.contents(PATH)
    for bad in (7, 8, 10, 15):
        with pytest.raises(ValueError, match=f"cut_at={bad}.*up to LSN 6"):
            repair(PATH, cut_at=bad, apply=True, disk=disk)
    assert disk.contents(PATH) == before
    fixed(disk, cut_at=5)
    goes_on(disk, [*range(5)])


def test_a_cut_below_checkpoints(disk: SimulatedDisk) -> None:
    """P10: a checkpoint that lies behind the cut would contradict it, and goes, a bad one too; with
    none left up to the cut, and the log's beginning gone, there is nothing to go on from."""
    with open_on(disk) as journal:
        for n in range(3):
            put_lines(journal, 12, size=700)
            journal.compact(frozen(journal, f"state {n}"))
        put_lines(journal, 4, size=700)
    assert [int(name[11:31]) for name in names(disk, ".json")] == [24, 36]
    before = disk.contents(PATH)
    with pytest.raises(JournalError, match="no checkpoint up to LSN 23 verifies"):
        repair(PATH, cut_at=23, apply=True, disk=disk)
    assert disk.contents(PATH) == before
    write_at(disk, names(disk, ".json")[1], 5, b"?")
    report = fixed(disk, cut_at=30)
    assert names(disk, ".json") == [f"checkpoint-{24:020d}.json"]
    assert f"checkpoint-{36:020d}.json" in report.removed
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert list(journal.checkpoint.items()) == ["state 1"]
    goes_on(disk, [[n, "x" * 700] for n in range(25, 31)])


def test_damage_below_the_checkpoint_costs_what_follows_it_there(disk: SimulatedDisk) -> None:
    """P4, P6: where the newest checkpoint covers the damage, the journal goes on from that."""
    with open_on(disk) as journal:
        put_lines(journal, 3, size=700)
        journal.compact(frozen(journal, "as of 3"))
        put_lines(journal, 2, size=700)
    damage(disk, 2)
    with pytest.raises(CorruptionError):
        open_on(disk)
    report = fixed(disk, salvage=True)
    assert report.last_lsn >= 3
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert list(journal.checkpoint.items()) == ["as of 3"]
        kept = [entry.lsn for entry in journal.replay()]
    lost = {4, 5} - {*kept}
    assert lost <= {lsn for first, last in report.salvaged for lsn in range(first, last + 1)}
    goes_on(disk, [[n, "x" * 700] for n in kept], f"{PATH}/{names(disk, '.seg')[0]}")


def test_a_rotten_newest_checkpoint_that_was_needed(disk: SimulatedDisk) -> None:
    """P4: the log is cut where it ends, though a checkpoint's name says that there was more."""
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
    goes_on(disk, [3])


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_damaged_segment_header(disk: SimulatedDisk, which: int) -> None:
    """P4: the whole segment can't be read: the cut is in front of it, the file is kept aside."""
    for _ in range(3):
        with open_on(disk) as journal:
            put(journal, *range(4))
    name = names(disk, ".seg")[which]
    write_at(disk, name, 30, b"\xff")
    before = disk.contents(PATH)
    report = fixed(disk, salvage=True)
    assert report.last_lsn == which * 4
    assert name in report.removed
    assert report.saved_to is not None
    assert disk.contents(report.saved_to)[name] == before[name]
    behind = range((which + 1) * 4 + 1, 13)
    assert report.salvaged == tuple((n, n) for n in behind)
    goes_on(disk, [*range(4)] * which)


def test_a_foreign_segment(disk: SimulatedDisk) -> None:
    """P1, P4: a segment of another journal, or a misnamed one, is cut off; ours keeps its id."""
    other = SimulatedDisk()
    other.new_id()
    for each in (disk, other):
        for _ in range(2):
            with open_on(each) as journal:
                put(journal, 1, 2)
    with JournalReader.open(PATH, disk=disk) as reader:
        journal_id = reader.journal_id
    _, second = names(other, ".seg")
    write_at(disk, second, 0, other.contents(PATH)[second])
    report = fixed(disk)
    assert (report.last_lsn, report.removed) == (2, (second,))
    goes_on(disk, [1, 2])
    with open_on(disk) as journal:
        assert journal.journal_id == (journal_id if second not in names(disk, ".seg") else None)


def test_a_missing_segment(disk: SimulatedDisk) -> None:
    """P4: a gap is cut in front of; the segments behind it are kept aside, and can be salvaged."""
    for _ in range(3):
        with open_on(disk) as journal:
            put(journal, *range(4))
    first, second, third = names(disk, ".seg")
    disk.open_directory(PATH, write=True).remove(second)
    report = fixed(disk, salvage=True)
    assert (report.last_lsn, report.removed) == (4, (third,))
    assert report.salvaged == tuple((n, n) for n in range(9, 13))
    goes_on(disk, [*range(4)])
    assert first in names(disk, ".seg")


def test_no_segment_left(disk: SimulatedDisk) -> None:
    """P4: with a checkpoint and no log the journal goes on from the checkpoint."""
    with open_on(disk) as journal:
        put(journal, 1, 2)
        journal.compact(frozen(journal, "as of 2"))
        journal_id = journal.journal_id
    disk.open_directory(PATH, write=True).remove(names(disk, ".seg")[0])
    with pytest.raises(CorruptionError):
        open_on(disk)
    assert fixed(disk).last_lsn == 2
    goes_on(disk, [])
    with open_on(disk) as journal:
        assert journal.journal_id == journal_id


def test_a_repair_that_is_cut_short_can_be_repeated(disk: SimulatedDisk) -> None:
    """P5: whatever call to the disk fails amid a repair, another one brings it to its end, and the
    removed files are kept aside."""
    for _ in range(2):
        with open_on(disk) as journal:
            put_lines(journal, 6, size=900)
    damage(disk, 5)
    before = disk.contents(PATH)
    for failing in itertools.count():
        copy = SimulatedDisk()
        directory = copy.open_directory(PATH, write=True)
        for name, data in before.items():
            directory.open(name, "create").write(data, 0)
        counter = itertools.count()

        def fail(
            operation: Operation,
            path: str,
            counter: itertools.count[int] = counter,
            failing: int = failing,
        ) -> None:
            if next(counter) == failing:
                raise OSError(5, f"fault at call {failing}", path)

        copy.before = fail
        try:
            repair(PATH, apply=True, disk=copy)
            done = True
        except (OSError, FailedError):
            done = False
        copy.before = None
        if done and next(counter) <= failing:
            break
        repair(PATH, apply=True, disk=copy)
        assert reopened(copy) == [[n, "x" * 900] for n in range(1, 5)], failing
    assert failing > 30


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
