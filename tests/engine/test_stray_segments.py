"""Segments under names where no log could have them, and the findings of verify about them."""

from __future__ import annotations

import pytest

from journal import CorruptionError, DamageReason, Finding
from journal._format.segment import SegmentName, segment_names
from journal._recovery.stray_segments import stray_segments
from journal.testing import SimulatedDisk
from tests.support import PATH, findings, infos, names, open_on, put


def copy_to(disk: SimulatedDisk, old: str, new: str) -> None:
    data = disk.contents(PATH)[old]
    disk.open_directory(PATH, write=True).open(new, "create").write(data, 0)


@pytest.mark.parametrize("lsn", [3, 5])
def test_a_copy_under_a_wrong_name_is_not_taken_for_a_loss(disk: SimulatedDisk, lsn: int) -> None:
    """P4: A copy in the range of another segment, between two frames or inside one, is corruption
    without a lost record. A copy that nothing proves to be stray counts as a damaged segment."""
    with open_on(disk) as journal:
        put(journal, 1, 2, 3)
        journal.wait_durable(journal.append_batch([4, 5]))
    with open_on(disk) as journal:
        put(journal, 6)
    first, _ = names(disk, ".seg")
    name = f"{lsn:020d}-{1:010d}.seg"
    copy_to(disk, first, name)
    with pytest.raises(CorruptionError):
        open_on(disk)
    corruption = [finding for finding in findings(disk) if finding.kind == "corruption"]
    message = (
        f"the file contains a copy of {first}; it does not belong here: LSN {lsn} is in {first}"
    )
    size = len(disk.contents(PATH)[name])
    reason = DamageReason.OUT_OF_PLACE
    assert corruption == [
        Finding("corruption", f"{PATH}/{name}", 0, 0, size, message, reason, first)
    ]
    assert [info.state for info in infos(disk)] == ["sealed", "stray", "sealed"]
    disk.open_directory(PATH, write=True).remove(name)
    copy_to(disk, first, f"{8:020d}-{2:010d}.seg")
    assert {finding.lsn for finding in findings(disk) if finding.kind == "corruption"} == {7, 8}


def test_segments_compacted_meanwhile_are_not_stray(disk: SimulatedDisk) -> None:
    """A segment that a live writer removed after its name was read is not stray, while a copy of
    another segment under that name is."""
    for _ in range(2):
        with open_on(disk) as journal:
            put(journal, 1)
    directory = disk.open_directory(PATH, write=False)
    gone = SegmentName(2, 1)
    segments = sorted([*segment_names(directory.names()), gone])
    assert stray_segments(directory, segments) == {}
    copy_to(disk, names(disk, ".seg")[0], str(gone))
    assert list(stray_segments(directory, segments)) == [gone]
