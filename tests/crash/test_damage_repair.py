"""Repair of a damaged journal: a dry run predicts the result, to the LSN and byte."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from journal import CorruptionError, repair
from tests.crash.crash_support import PATH, files, image
from tests.crash.damage_fixes import fixed_by_repair
from tests.crash.damage_kinds import (
    BYTES,
    FILES,
    Kind,
    duplicated,
    foreign,
    journal_that_is,
    spliced,
)
from tests.crash.damage_oracle import Evidence, base_lsn, verdict
from tests.crash.damaged_journal import NAMES, NEWER, OLDER, SEGMENTS, Files, recovered
from tests.crash.repair_support import fixed


def check_repair(damaged: Files) -> None:
    """Check P4: the journal opens with the records that the dry run predicted, and no file is lost.

    Every other file is still in its place or in the directory of removed files. A journal without
    anything to start from can't be repaired.
    """
    disk = image(damaged)
    if not base_lsn(fixed_by_repair(damaged, journal_that_is(closed=True).files)):
        with pytest.raises(CorruptionError, match="no checkpoint up to LSN"):
            fixed(disk)
        assert files(disk) == damaged
        return
    report = fixed(disk)
    remaining = files(disk)
    assert recovered(remaining) == (None, report.last_lsn)
    saved = disk.contents(report.saved_to) if report.saved_to else {}
    assert {**remaining, **saved}.items() >= damaged.items()
    old_names = {new: old for old, new in report.renamed}
    changed = {*report.removed, *report.rebuilt, *old_names}
    assert set(saved) == {old_names.get(name, name) for name in changed}


def refused(kind: Kind, name: str, every: int) -> Iterator[Files]:
    undamaged = journal_that_is(closed=True)
    evidence = Evidence.of(undamaged.files)
    for damaged in kind(undamaged, name, every):
        if verdict(damaged.files, evidence)[0]:
            yield damaged.files


@pytest.mark.parametrize("name", NAMES)
def test_a_repair_keeps_what_its_dry_run_predicts(name: str) -> None:
    """P4: A repair of damage that open refuses keeps what the dry run predicted."""
    for kind in (*BYTES, *FILES):
        if kind not in (spliced, foreign, duplicated):
            for damaged in refused(kind, name, 61):
                check_repair(damaged)


@pytest.mark.parametrize(
    ("name", "last_lsn"),
    [
        (SEGMENTS[2], 10),
        (SEGMENTS[3], 11),
        (OLDER, 13),
        (NEWER, 13),
    ],
)
def test_a_repair_keeps_no_records_of_another_journals_file(name: str, last_lsn: int) -> None:
    """P1, P4: A file of another journal is removed. Files that do not depend on it are kept."""
    [damaged] = refused(foreign, name, 1)
    check_repair(damaged)
    assert repair(PATH, disk=image(damaged)).last_lsn == last_lsn


@pytest.mark.parametrize("name", SEGMENTS)
def test_a_copy_under_another_name_is_set_aside(name: str) -> None:
    """P4: A copy under another name is set aside if it makes open refuse.

    Open refuses it because it makes other files look useless, although it needs no record of it.
    """
    for damaged in refused(duplicated, name, 1):
        check_repair(damaged)


@pytest.mark.parametrize("name", SEGMENTS[2:])
def test_a_spliced_frame_is_cut_off(name: str) -> None:
    """P1, P4: Bytes after a cut are dead, even if they are a mark with correct CRCs."""
    for damaged in refused(spliced, name, 1):
        check_repair(damaged)
