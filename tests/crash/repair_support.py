"""What the tests of repair share."""

from __future__ import annotations

import itertools
from typing import Any

from journal import (
    JournalReader,
    RepairReport,
    repair,
)
from journal.testing import SimulatedDisk
from tests.support import (
    PATH,
    logged,
    open_on,
    put_lines,
    write_at,
)


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
