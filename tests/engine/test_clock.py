"""A wrong clock changes no decision: times in files are for people, and are clamped."""

from __future__ import annotations

import pytest

from journal import JournalReader
from journal.testing import SimulatedDisk
from tests.support import PATH, frozen, logged, open_on, put

LATEST_NS = 2**64 - 1  # the largest value of a frame's field
CLOCKS = [
    (-(10**18), 0),
    (-1, 0),
    (0, 0),
    (LATEST_NS, LATEST_NS),
    (LATEST_NS + 1, LATEST_NS),
    (10**30, LATEST_NS),
]


@pytest.mark.parametrize(("clock_ns", "clamped_ns"), CLOCKS)
def test_a_clock_out_of_range_stops_no_work(
    disk: SimulatedDisk, clock_ns: int, clamped_ns: int
) -> None:
    """P5: Before 1970 and after 2554, commits, marks, new segments, checkpoints and readers work,
    with times at the nearest bound."""
    disk.clock_ns, disk.tick_ns = clock_ns, 0
    with open_on(disk) as journal:
        put(journal, 1, 2)
        journal._core.committer.mark()
        checkpoint = journal.compact(frozen(journal, "state"))
        assert checkpoint.created_at_ms == clamped_ns // 1_000_000
        put(journal, "x" * 3000, "x" * 3000)  # into another segment
        times_ns = {entry.written_at_ns for entry in journal.replay(0)}
        assert times_ns == {clamped_ns}
    with open_on(disk) as journal:
        assert len(logged(journal, 0)) == 4
    with JournalReader.open(PATH, disk=disk) as reader:
        assert not list(reader.verify())
        assert len(reader.segments()) == 2


def test_an_os_journal_commits_with_a_wrong_clock(disk: SimulatedDisk) -> None:
    """P5: A clock that stays at a bound, or jumps, delays no commit."""
    disk.tick_ns = 0
    with open_on(disk, durability="os") as journal:
        for clock_ns, _ in CLOCKS:
            disk.clock_ns = clock_ns
            put(journal, clock_ns % 1000)
        assert journal.durable_lsn == len(CLOCKS)
