"""Repair with a chosen cut."""

from __future__ import annotations

import pytest

from journal import CompactedError, repair
from journal.testing import SimulatedDisk, lose
from tests.crash.repair_support import check_opens_with, damage, fixed
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
    """P2: A repair syncs the records that it keeps before it writes the cut.

    The cut is a segment, which is evidence that all records before it were durable. A power cut
    right after the repair therefore loses none of them, even if a killed process had only written
    them.
    """
    journal = open_on(disk, durability="os")
    put(journal, 1, 2, 3, 4)
    crash(journal, disk)
    fixed(disk, cut_at=3)
    disk.power_cut(lose)
    assert reopened(disk) == [1, 2, 3]


def test_the_cut_can_be_chosen(disk: SimulatedDisk) -> None:
    """`cut_at` is the last LSN to keep, also in an intact journal: the end of a batch, or 0."""
    with open_on(disk) as journal:
        put(journal, 1)
        journal.wait_durable(journal.append_batch([2, 3, 4]))
        put(journal, 5)
    for bad in (2, 3, 6, 10**9):
        for apply in (False, True):
            before = disk.contents(PATH)
            with pytest.raises(ValueError, match=f"cut_at={bad} is not the end of a batch"):
                repair(PATH, cut_at=bad, apply=apply, disk=disk)
            assert disk.contents(PATH) == before
    with pytest.raises(ValueError, match="cut at LSN 1 or 4 instead"):
        repair(PATH, cut_at=3, disk=disk)
    assert fixed(disk, cut_at=4).problem is None
    assert reopened(disk) == [1, 2, 3, 4]
    fixed(disk, cut_at=1)
    assert reopened(disk) == [1]
    fixed(disk, cut_at=0)
    check_opens_with(disk, [])


def test_a_cut_after_the_damage_is_refused(disk: SimulatedDisk) -> None:
    """P4: `cut_at` must not be after the damage, even if a later segment begins exactly there.

    Not all records up to such a cut are left.
    """
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
    check_opens_with(disk, [*range(5)])


def test_a_cut_between_damage_and_the_checkpoint_that_covers_it_is_refused(
    disk: SimulatedDisk,
) -> None:
    """P4: A cut between damage and the checkpoint that covers it is refused: records are missing.

    The checkpoint's own LSN is accepted, even if the segment with that LSN is removed.
    """
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
    check_opens_with(disk, [], *(f"{PATH}/{name}" for name in names(disk, ".seg")))


def test_a_chosen_cut_ignores_a_copy_in_the_way(disk: SimulatedDisk) -> None:
    """P4: A segment that is set aside does not count when `cut_at` must be the end of a batch."""
    with open_on(disk) as journal:
        put(journal, *range(1, 7))
    (first,) = names(disk, ".seg")
    copy = f"{3:020d}-{1:010d}.seg"
    data = disk.contents(PATH)[first]
    disk.open_directory(PATH, write=True).open(copy, "create").write(data, 0)
    report = fixed(disk, cut_at=5)
    assert (report.last_lsn, report.removed) == (5, (copy,))
    check_opens_with(disk, [*range(1, 6)])


def test_a_cut_removes_the_checkpoints_after_it(disk: SimulatedDisk) -> None:
    """P10: A checkpoint after the cut would contradict it, so it is removed, even if it is damaged.

    If no checkpoint up to the cut is left and the log's beginning was removed, the cut is refused.
    """
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
    check_opens_with(disk, [[n, "x" * 700] for n in range(25, 31)])
