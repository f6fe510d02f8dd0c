"""A wrong clock changes no decision: times in files are for people, and are clamped."""

from __future__ import annotations

import sys
import time

import pytest

from journal import Journal, JournalReader, LockedError
from journal.testing import SimulatedDisk
from tests.support import PATH, TIMEOUT_S, frozen, interrupt_after, logged, open_on, put, until

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


def stop_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clocks of `time`, in all modules that hold their functions, as freezegun does."""
    for name in ("monotonic", "perf_counter_ns"):
        clock = getattr(time, name)
        for module_name, module in [*sys.modules.items()]:
            if module_name.partition(".")[0] in ("time", "journal", "manager"):
                for attribute, value in [*vars(module).items()]:
                    if value is clock:
                        monkeypatch.setattr(module, attribute, lambda: 10**9)


def test_clocks_that_a_program_stops_delay_no_commit(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that nobody waits for is committed after `flush_interval_s`, although a test of the
    program has stopped the clocks of `time`, or has started them again after the append."""
    with open_on(disk, flush_interval_s=0.1) as journal, interrupt_after(TIMEOUT_S):
        with monkeypatch.context() as patch:
            stop_clocks(patch)
            journal.append("while they stand still")
            until(lambda: journal.durable_lsn == 1, "the commit")
            journal.append("before they go on")
        until(lambda: journal.durable_lsn == 2, "the commit")


def test_clocks_that_a_program_stops_extend_no_time_limit(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call gives up at its time limit, although a test of the program has stopped the clocks of
    `time`."""
    with open_on(disk), interrupt_after(TIMEOUT_S):
        stop_clocks(monkeypatch)
        with pytest.raises(LockedError):
            Journal.open(PATH, disk=disk, lock_timeout_s=0.01)
