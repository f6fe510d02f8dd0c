"""Helpers of the tests of repair."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator
from typing import Any

from journal import (
    FailedError,
    JournalReader,
    RepairReport,
    repair,
)
from journal.testing import SimulatedDisk
from tests.crash.crash_support import fail_at, image
from tests.support import (
    PATH,
    logged,
    open_on,
    put_lines,
    write_at,
)


def offset_of(disk: SimulatedDisk, lsn: int) -> tuple[str, int]:
    """Return the file and offset of the frame that holds a record."""
    with JournalReader.open(PATH, disk=disk) as reader:
        (entry,) = itertools.islice(reader.entries(lsn - 1), 1)
    assert entry.path is not None
    assert entry.offset is not None
    return entry.path.rpartition("/")[2], entry.offset


def damage(disk: SimulatedDisk, lsn: int) -> None:
    """Damage the payload of the frame that holds a record."""
    name, offset = offset_of(disk, lsn)
    write_at(disk, name, offset + 44, b"\xff\xff")


def fixed(disk: SimulatedDisk, **options: Any) -> RepairReport:
    """Repair the journal and return the report.

    A dry run comes first. It must report the same and change nothing.
    """
    before = disk.contents(PATH)
    dry = repair(PATH, disk=disk, **options)
    assert (disk.contents(PATH), dry.applied, dry.saved_to, dry.salvaged_to) == (
        before, False, None, None
    )  # fmt: skip
    report = repair(PATH, apply=True, disk=disk, **options)
    assert report.applied
    assert (dry.problem, dry.last_lsn, dry.removed, dry.salvaged) == (
        report.problem, report.last_lsn, report.removed, report.salvaged
    )  # fmt: skip
    return report


def check_opens_with(disk: SimulatedDisk, expected: list[Any], *ignored: str) -> None:
    """Check that the journal opens with `expected`, and that more records can be appended.

    `ignored` are damaged files that a checkpoint covers.
    """
    with open_on(disk) as journal:
        assert logged(journal, None) == expected
        put_lines(journal, 10, size=900)
        more = logged(journal, None)
        assert more[: len(expected)] == expected
    with open_on(disk) as journal:
        assert logged(journal, None) == more
    with JournalReader.open(PATH, disk=disk) as reader:
        findings = [finding for finding in reader.verify() if finding.path not in ignored]
    assert {finding.kind for finding in findings} <= {"torn_tail", "bad_checkpoint"}


def repaired_again(damaged: dict[str, bytes]) -> Iterator[SimulatedDisk]:
    """Repair a journal of these files on disks of which each fails at another call, and then once
    more. Yield each disk after that."""
    for failing in itertools.count():
        disk = image(damaged)
        calls = fail_at(disk, failing, errno.EIO)
        try:
            repair(PATH, apply=True, disk=disk)
            is_complete = True
        except (OSError, FailedError):
            is_complete = False
        disk.before = None
        if is_complete and next(calls) <= failing:
            break
        repair(PATH, apply=True, disk=disk)
        yield disk
    assert failing > 30
