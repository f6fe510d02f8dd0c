"""Repair of a damaged journal: a dry run foretells what comes of it, to the LSN and byte."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from journal import CorruptionError, repair
from tests.crash.crash_support import PATH, files, image
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


def repaired(damaged: Files) -> None:
    """P4: opens, with the records that the dry run said, and everything else is still there: in its
    place, or in the directory of what was removed. Unless there is nothing to go on from."""
    disk = image(damaged)
    if not base_lsn(damaged):
        with pytest.raises(CorruptionError, match="no checkpoint up to LSN"):
            fixed(disk)
        assert files(disk) == damaged
        return
    report = fixed(disk)
    left = files(disk)
    assert recovered(left) == (None, report.last_lsn)
    saved = disk.contents(report.saved_to) if report.saved_to else {}
    assert {**left, **saved}.items() >= damaged.items()
    assert set(saved) == set(report.removed)


def refused(kind: Kind, name: str, every: int) -> Iterator[Files]:
    undamaged = journal_that_is(closed=True)
    evidence = Evidence.of(undamaged.files)
    for damaged in kind(undamaged, name, every):
        if verdict(damaged.files, evidence)[0]:
            yield damaged.files


@pytest.mark.parametrize("name", NAMES)
def test_a_repair_keeps_what_it_foretold(name: str) -> None:
    """P4: of damage that an opening refuses, of every kind, at some places."""
    for kind in (*BYTES, *FILES):
        if kind not in (spliced, foreign, duplicated):
            for damaged in refused(kind, name, 61):
                repaired(damaged)


@pytest.mark.parametrize(
    ("name", "last_lsn"),
    [
        (SEGMENTS[2], 10),
        (SEGMENTS[3], 11),
        (OLDER, 13),
        (NEWER, 13),
    ],
)
def test_nothing_of_another_journals_file_is_kept(name: str, last_lsn: int) -> None:
    """P1, P4: whichever file it is, and all that does not depend on it is kept."""
    [damaged] = refused(foreign, name, 1)
    repaired(damaged)
    assert repair(PATH, disk=image(damaged)).last_lsn == last_lsn


@pytest.mark.parametrize("name", SEGMENTS)
def test_a_copy_under_another_name_is_set_aside(name: str) -> None:
    """P4: where open refuses it for the sake of what it makes look useless, though it needs no
    record of it."""
    for damaged in refused(duplicated, name, 1):
        repaired(damaged)


@pytest.mark.parametrize("name", SEGMENTS[2:])
def test_a_frame_that_was_spliced_in_is_cut_off(name: str) -> None:
    """P1, P4: what stands behind a cut is dead, be it a mark with good CRCs, for another place."""
    for damaged in refused(spliced, name, 1):
        repaired(damaged)
