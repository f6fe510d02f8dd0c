"""Repair: a cut that was chosen."""

from __future__ import annotations

import pytest

from journal import CompactedError, repair
from journal.testing import SimulatedDisk, lose
from tests.crash.repair_support import damage, fixed, goes_on
from tests.support import (
    PATH,
    crash,
    frozen,
    names,
    open_on,
    put,
    put_lines,
    reopened,
    write_at,
)


def test_records_that_a_cut_keeps_are_durable(disk: SimulatedDisk) -> None:
    """P2: the cut is a segment, which proves that all before it was durable. So what a killed
    process had only written is synced first, and a power cut right after the repair costs
    nothing."""
    journal = open_on(disk, durability="os")
    put(journal, 1, 2, 3, 4)
    crash(journal, disk)
    fixed(disk, cut_at=3)
    disk.power_cut(lose)
    assert reopened(disk) == [1, 2, 3]


def test_a_cut_may_be_chosen(disk: SimulatedDisk) -> None:
    """`cut_at` is the last LSN to keep, of a sound journal too: the end of a batch, or 0."""
    with open_on(disk) as journal:
        put(journal, 1)
        journal.wait_durable(journal.append_batch([2, 3, 4]))
        put(journal, 5)
    for bad in (-1, 2, 3, 6, 10**9):
        for apply in (False, True):
            before = disk.contents(PATH)
            with pytest.raises(ValueError, match=f"cut_at={bad} is not the end of a batch"):
                repair(PATH, cut_at=bad, apply=apply, disk=disk)
            assert disk.contents(PATH) == before
    with pytest.raises(ValueError, match="cut at LSN 4 instead"):
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


def test_no_cut_takes_the_checkpoint_that_covers_damage(disk: SimulatedDisk) -> None:
    """P4: below it the log is not whole, so what a cut would keep is not all there; the checkpoint
    itself may be kept, be it in a segment that is not."""
    with open_on(disk) as journal:
        for n in range(2):
            put_lines(journal, 12, size=700)
            journal.compact(frozen(journal, f"state {n}"))
        put_lines(journal, 2, size=700)
    damage(disk, 16)
    before = disk.contents(PATH)
    assert repair(PATH, disk=disk).last_lsn >= 24
    with pytest.raises(ValueError, match=r"cut_at=20 lies after damage .* LSN 24 .* at LSN 15"):
        repair(PATH, cut_at=20, apply=True, disk=disk)
    assert disk.contents(PATH) == before
    fixed(disk, cut_at=24)
    goes_on(disk, [], *(f"{PATH}/{name}" for name in names(disk, ".seg")))


def test_a_cut_may_be_chosen_where_a_copy_is_in_the_way(disk: SimulatedDisk) -> None:
    """P4: what is set aside is none of the log in which an end of a batch is looked for."""
    with open_on(disk) as journal:
        put(journal, *range(1, 7))
    (first,) = names(disk, ".seg")
    copy = f"{3:020d}-{1:010d}.seg"
    data = disk.contents(PATH)[first]
    disk.open_directory(PATH, write=True).open(copy, "create").write(data, 0)
    report = fixed(disk, cut_at=5)
    assert (report.last_lsn, report.removed) == (5, (copy,))
    goes_on(disk, [*range(1, 6)])


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
    with pytest.raises(CompactedError, match="no checkpoint up to LSN 23 verifies"):
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
