"""Retention: records go by age and by size, in the compactor's thread, and never too early."""

from __future__ import annotations

import errno
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import DurableState, Journal, JournalError, Options
from journal._engine.trimming import Retention
from journal.testing import SimulatedDisk
from tests.engine.compaction_support import compact, first_lsns
from tests.support import PATH, TIMEOUT_S, Table, open_on, options, put, put_lines, until

LARGE = "x" * 3000  # one record of this size takes a segment
DAY_S = 86_400
DAY_NS = DAY_S * 10**9


def before_lsn(disk: SimulatedDisk, journal: Journal, **retention: Any) -> int:
    """Return the LSN before which records may go now, by these options."""
    core = journal._core
    return Retention(core.directory, disk, core.committer, options(**retention)).before_lsn()


def a_day_each(disk: SimulatedDisk, journal: Journal, count: int) -> None:
    """Write `count` segments of one record each, with a day after each."""
    for _ in range(count):
        put(journal, [journal.last_lsn + 1, LARGE])
        disk.clock_ns += DAY_NS


def wait_for_first(disk: SimulatedDisk, lsn: int) -> None:
    until(lambda: first_lsns(disk)[0] == lsn, f"a log that begins at LSN {lsn}")


@pytest.mark.parametrize(
    ("retain_days", "first_kept"), [(0, 9), (0.5, 9), (1.5, 8), (2.5, 7), (7.5, 2), (8.5, 0)]
)
def test_records_go_by_age(disk: SimulatedDisk, retain_days: float, first_kept: int) -> None:
    """P8: Records older than `retain_s` go, as far as whole segments hold no others."""
    with open_on(disk) as journal:
        a_day_each(disk, journal, 8)
        assert before_lsn(disk, journal, retain_s=retain_days * DAY_S) == first_kept


@pytest.mark.parametrize(
    ("retain_bytes", "first_kept"), [(0, 9), (3000, 9), (4000, 8), (12_000, 6), (1 << 20, 0)]
)
def test_records_go_by_size(disk: SimulatedDisk, retain_bytes: int, first_kept: int) -> None:
    """P8: The newest segments with at least `retain_bytes` stay, and those before them go."""
    with open_on(disk) as journal:
        a_day_each(disk, journal, 8)
        assert before_lsn(disk, journal, retain_bytes=retain_bytes) == first_kept


def test_either_limit_is_enough(disk: SimulatedDisk) -> None:
    """P8: With both options, a record goes when either allows it."""
    with open_on(disk) as journal:
        a_day_each(disk, journal, 8)
        both = before_lsn(disk, journal, retain_bytes=12_000, retain_s=7.5 * DAY_S)
        assert both == 6
        assert before_lsn(disk, journal, retain_bytes=1 << 20, retain_s=2.5 * DAY_S) == 7


def test_the_whole_first_batch_of_a_segment_is_old(disk: SimulatedDisk) -> None:
    """P3: Retention removes whole batches: a replay begins after the first batch of a segment, if
    that is old as well."""
    with open_on(disk) as journal:
        for _ in range(4):
            journal.append_batch([LARGE[:1000]] * 3)
            journal.wait_durable()
            disk.clock_ns += DAY_NS
        assert before_lsn(disk, journal, retain_s=1.5 * DAY_S) == 10
        journal.trim(10)
        assert first_lsns(disk) == [7, 10]
    with open_on(disk) as journal:
        assert [entry.lsn for entry in journal.replay()] == [10, 11, 12]


@given(
    st.lists(st.integers(-3 * DAY_S, 3 * DAY_S), min_size=1, max_size=12),
    st.sampled_from([DAY_S, 5 * DAY_S]),
    st.integers(2, 4),
)
def test_no_record_goes_early_if_the_clock_is_set_back(
    steps_s: list[int], retain_s: int, kept: int
) -> None:
    """P8: Whatever the clock did, each record that goes is older than `retain_s` by its own time,
    or has a time in the future."""
    disk = SimulatedDisk()
    with open_on(disk, checkpoints_kept=kept) as journal:
        for step_s in steps_s:
            disk.clock_ns += step_s * 10**9
            put(journal, ["", LARGE])
        now_ns = disk.clock_ns
        lsn = before_lsn(disk, journal, retain_s=retain_s, checkpoints_kept=kept)
        for entry in journal.replay(0):
            age_ns = now_ns - entry.written_at_ns
            assert entry.lsn >= lsn or age_ns < 0 or age_ns > retain_s * 10**9


def test_a_clock_that_was_set_back_and_corrected_removes_nothing_early(
    disk: SimulatedDisk,
) -> None:
    """P8: Records that were written while the clock was wrong count as no older than those before
    them."""
    with open_on(disk) as journal:
        a_day_each(disk, journal, 4)
        disk.clock_ns -= 1000 * DAY_NS
        a_day_each(disk, journal, 2)
        disk.clock_ns += 998 * DAY_NS
        assert before_lsn(disk, journal, retain_s=5.5 * DAY_S) == 0
        assert before_lsn(disk, journal, retain_s=2.5 * DAY_S) == 3


def test_a_time_in_the_future_holds_up_nothing(disk: SimulatedDisk) -> None:
    """P8: Records that were written while the clock was ahead go with the records after them."""
    with open_on(disk) as journal:
        a_day_each(disk, journal, 2)
        disk.clock_ns += 1000 * DAY_NS
        a_day_each(disk, journal, 1)
        disk.clock_ns -= 1001 * DAY_NS
        a_day_each(disk, journal, 5)
        assert before_lsn(disk, journal, retain_s=2.5 * DAY_S) == 7


def test_the_thread_removes_old_records(disk: SimulatedDisk) -> None:
    """P8: While the journal is open, the compactor's thread removes old records; after a reopening
    it continues, and first removes what has become old meanwhile."""
    with open_on(disk, retain_s=1, segment_bytes=4096) as journal:
        put(journal, *([n, LARGE] for n in range(1, 5)))
        assert first_lsns(disk) == [1, 2, 3, 4]
        disk.clock_ns += 2 * 10**9
        wait_for_first(disk, 4)
        put(journal, "next")
        assert journal.stats().compactions >= 1
    disk.clock_ns += 2 * 10**9
    with open_on(disk, retain_s=1) as journal:
        wait_for_first(disk, 5)
        assert [entry.record for entry in journal.replay(4)] == ["next"]


def test_the_thread_bounds_the_log(disk: SimulatedDisk) -> None:
    """P8: With `retain_bytes`, a growing log keeps a bounded number of segments."""
    with open_on(disk, retain_bytes=10_000) as journal:
        for n in range(40):
            put(journal, [n, LARGE])
        until(lambda: len(first_lsns(disk)) <= 6, "a log of 6 segments")
        assert len(first_lsns(disk)) >= 3
        assert journal.first_lsn > 30


def test_a_segment_takes_records_for_a_quarter_of_the_age(disk: SimulatedDisk) -> None:
    """P8: A log that grows slowly begins a segment once its last one is a quarter of `retain_s`
    old, so that the records in it can go in time."""
    with open_on(disk, segment_bytes=1 << 20, retain_s=4) as journal:
        put_lines(journal, 3)
        assert first_lsns(disk) == [1]
        disk.clock_ns += 2 * 10**9
        until(lambda: journal._committer._writer._ended is not None, "a segment that ends")
        put_lines(journal, 1)
        assert first_lsns(disk) == [1, 4]


def test_appends_never_wait_for_retention(disk: SimulatedDisk) -> None:
    """P7: Commits go on while the thread is held up in a removal."""
    blocked, go_on = threading.Event(), threading.Event()
    with open_on(disk, retain_s=1) as journal:
        put(journal, *([n, LARGE] for n in range(1, 5)))

        def hold(operation: str, path: str) -> None:
            if operation == "remove" and path.endswith(".seg"):
                blocked.set()
                assert go_on.wait(TIMEOUT_S)

        disk.before = hold
        disk.clock_ns += 2 * 10**9
        assert blocked.wait(TIMEOUT_S)
        try:
            put(journal, *([n, LARGE] for n in range(5, 9)))
        finally:
            go_on.set()
        wait_for_first(disk, 4)


@pytest.mark.usefixtures("impatient")
def test_retention_that_fails_is_tried_again(
    disk: SimulatedDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """P5: If the disk is full, the log continues, the failure is logged and counted, and a later
    check removes the records."""
    with open_on(disk, retain_s=1) as journal:
        put(journal, *([n, LARGE] for n in range(1, 5)))
        failed = threading.Event()

        def fail(operation: str, path: str) -> None:
            if operation == "create" and "checkpoint" in path and not failed.is_set():
                failed.set()
                raise OSError(errno.ENOSPC, "full", path)

        disk.before = fail
        disk.clock_ns += 2 * 10**9
        assert failed.wait(TIMEOUT_S)
        put(journal, "next")
        wait_for_first(disk, 4)
        assert journal.stats().compaction_failures == 1
    assert "a compaction failed: OSError" in caplog.text


def test_a_close_ends_the_thread(disk: SimulatedDisk) -> None:
    """A close stops a thread that waits for the next check, at once."""
    with open_on(disk, retain_s=DAY_S, retain_bytes=1 << 30) as journal:
        put_lines(journal, 1)
    assert journal._core.compactor.join(0)


def test_a_journal_with_a_state_refuses_retention(disk: SimulatedDisk) -> None:
    """P6: Neither a DurableState nor a journal whose checkpoint holds items may be opened with
    retention, and a journal with retention makes no checkpoint of a state."""
    with pytest.raises(ValueError, match="are for a Journal without a state"):
        DurableState.open(PATH, Table(), options=Options(retain_s=1), disk=disk)
    with open_on(disk, retain_s=DAY_S) as journal:
        put_lines(journal, 1)
        with pytest.raises(ValueError, match="retain_s or retain_bytes"):
            compact(journal, "state")
        with pytest.raises(RuntimeError, match="already started"):
            journal.start_compaction(lambda: (0, []))
    with open_on(disk) as journal:
        compact(journal, "state").close()
    with pytest.raises(JournalError, match="its newest checkpoint holds a state of 1 items"):
        open_on(disk, retain_s=DAY_S)
    open_on(disk).close()


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("retain_s", value) for value in (-1, "1", float("nan"), float("inf"), True)),
        *(("retain_bytes", value) for value in (-1, 1.5, 1 << 63, False)),
    ],
)
def test_a_bad_limit_is_refused(name: str, bad: Any) -> None:
    """Options with a limit that is no number in its range raise ValueError with its name."""
    with pytest.raises(ValueError, match=name):
        Options(**{name: bad})
