"""A clock that is wrong: times in files are for people, so they are clamped and decide nothing."""

from __future__ import annotations

import pytest

from journal import JournalReader
from journal.testing import SimulatedDisk
from tests.support import PATH, frozen, logged, open_on, put

LATEST_NS = 2**64 - 1  # what a frame's field can say
CLOCKS = [
    (-(10**18), 0),
    (-1, 0),
    (0, 0),
    (LATEST_NS, LATEST_NS),
    (LATEST_NS + 1, LATEST_NS),
    (10**30, LATEST_NS),
]


@pytest.mark.parametrize(("clock_ns", "said_ns"), CLOCKS)
def test_a_clock_out_of_range_stops_nothing(
    disk: SimulatedDisk, clock_ns: int, said_ns: int
) -> None:
    """P5: before 1970 or after 2554 the journal goes on, its times at the nearest bound: commits,
    marks, new segments, checkpoints, and what reads them."""
    disk.clock_ns, disk.tick_ns = clock_ns, 0
    with open_on(disk) as journal:
        put(journal, 1, 2)
        journal._core.committer.mark()
        checkpoint = journal.compact(frozen(journal, "state"))
        assert checkpoint.created_at_ms == said_ns // 1_000_000
        put(journal, "x" * 3000, "x" * 3000)  # into another segment
        times_ns = {entry.written_at_ns for entry in journal.replay(0)}
        assert times_ns == {said_ns}
    with open_on(disk) as journal:
        assert len(logged(journal, 0)) == 4
    with JournalReader.open(PATH, disk=disk) as reader:
        assert not list(reader.verify())
        assert len(reader.segments()) == 2


def test_the_commits_of_an_os_journal_go_on_with_a_wrong_clock(disk: SimulatedDisk) -> None:
    """P5: a clock that stands still at a bound, or jumps, delays no commit."""
    disk.tick_ns = 0
    with open_on(disk, durability="os") as journal:
        for clock_ns, _ in CLOCKS:
            disk.clock_ns = clock_ns
            put(journal, clock_ns % 1000)
        assert journal.durable_lsn == len(CLOCKS)
