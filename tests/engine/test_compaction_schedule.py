"""The schedule of compactions, in plain numbers: due, lead, pace, hold, back-off."""

from __future__ import annotations

import pytest

from journal import Options
from journal._engine.compaction_schedule import NEVER, Attempt, CompactionSchedule, Pace

# The log may grow by 1,000 bytes between two compactions, or by thrice a larger checkpoint's size.
OPTIONS = Options(checkpoint_min_bytes=1000, checkpoint_growth=3.0, flush_bytes=100)


def new_schedule(
    *, checkpoint_bytes: int = 0, log_bytes: int = 0, options: Options = OPTIONS
) -> CompactionSchedule:
    return CompactionSchedule(options, checkpoint_bytes=checkpoint_bytes, log_bytes=log_bytes)


def compact(
    schedule: CompactionSchedule, *, at: int, end: int, size: int = 10, passed: float = NEVER
) -> Attempt:
    """Compact from log size `at` to `end`, after a commit that passed the due point `passed`."""
    schedule.passed_due(passed)
    attempt = schedule.begin(at)
    schedule.published(attempt, size)
    schedule.finished(attempt, end)
    return attempt


# --- due ---


@pytest.mark.parametrize(
    ("checkpoint_bytes", "log_bytes", "due_bytes"),
    [
        pytest.param(0, 0, 1000, id="a new journal: the least growth"),
        pytest.param(333, 0, 1000, id="a small checkpoint: the least growth"),
        pytest.param(500, 0, 1500, id="a larger checkpoint: thrice its size"),
        pytest.param(0, 400, 600, id="what was logged before the open counts"),
        pytest.param(500, 400, 1100, id="both"),
        pytest.param(0, 5000, -4000, id="overdue at the open"),
    ],
)
def test_the_first_compaction_is_due(
    checkpoint_bytes: int, log_bytes: int, due_bytes: float
) -> None:
    """P8: as the log has grown by `checkpoint_min_bytes`, and by `checkpoint_growth` times the
    newest checkpoint's size, since that one's snapshot."""
    schedule = new_schedule(checkpoint_bytes=checkpoint_bytes, log_bytes=log_bytes)
    assert schedule.due_bytes == due_bytes


@pytest.mark.parametrize(
    ("at", "end", "size", "passed", "due_bytes"),
    [
        pytest.param(1000, 1000, 10, NEVER, 2000, id="the log did not grow"),
        pytest.param(300, 300, 10, NEVER, 1300, id="by hand, before it was due"),
        pytest.param(1000, 1000, 500, NEVER, 2500, id="the new checkpoint is larger"),
        pytest.param(1000, 1100, 10, NEVER, 1800, id="the log grew by 100"),
        pytest.param(1000, 1125, 10, NEVER, 1750, id="by an eighth: a quarter earlier"),
        pytest.param(1000, 9000, 10, NEVER, 1750, id="by more: no earlier than that"),
        pytest.param(1000, 9000, 500, NEVER, 2125, id="a quarter of the new growth"),
        pytest.param(1050, 1050, 10, 1000, 1950, id="a commit passed the due point by 50"),
        pytest.param(1050, 1060, 10, 1000, 1930, id="and the log grew by 10"),
        pytest.param(900, 910, 10, 1000, 1880, id="a snapshot before the due point counts itself"),
    ],
)
def test_the_next_compaction_is_due(
    at: int, end: int, size: int, passed: float, due_bytes: float
) -> None:
    """P8: earlier by twice what the log grew by during the last one, from the due point that a
    commit passed, or else from its snapshot; at most by a quarter of the growth."""
    schedule = new_schedule()
    compact(schedule, at=at, end=end, size=size, passed=passed)
    assert schedule.due_bytes == due_bytes


def test_the_first_due_point_that_a_commit_passes_counts() -> None:
    """The thread may set it anew before it gets to compact."""
    schedule = new_schedule()
    for due_bytes in (1000, 1020, NEVER):
        schedule.passed_due(due_bytes)
    assert schedule.begin(1050).grown_from_bytes == 1000


def test_a_due_point_counts_for_one_attempt() -> None:
    """What a commit passed before an attempt, or during it, does not set a later one's lead."""
    schedule = new_schedule()
    schedule.passed_due(1000)
    attempt = schedule.begin(1050)
    schedule.passed_due(1000)
    schedule.published(attempt, 10)
    schedule.finished(attempt, 1050)
    assert schedule.begin(2000).grown_from_bytes == 2000
    schedule.passed_due(3000)
    schedule.begin(3050)
    assert schedule.begin(3100).grown_from_bytes == 3100


def test_an_attempt_that_ends_early_puts_nothing_off() -> None:
    """An interrupt or an error before its checkpoint is published leaves the next one due."""
    schedule = new_schedule()
    schedule.begin(1000)
    assert (schedule.due_bytes, schedule.snapshot_bytes) == (1000, 0)


def test_a_checkpoint_counts_before_what_it_covers_is_removed() -> None:
    """If the removal is interrupted or fails, the next one is put off, with the lead of before."""
    schedule = new_schedule()
    compact(schedule, at=1000, end=1100)
    schedule.published(schedule.begin(1800), 500)
    assert (schedule.due_bytes, schedule.snapshot_bytes) == (3100, 1800)


# --- pace ---


@pytest.mark.parametrize(
    ("at", "log_bytes", "has_room", "items"),
    [
        pytest.param(1000, 1000, True, 2, id="the log does not grow"),
        pytest.param(1000, 1125, True, 2, id="up to an eighth of the growth"),
        pytest.param(1000, 1126, True, 64, id="past an eighth: in larger steps"),
        pytest.param(1000, 1126, False, 256, id="and updates wait: in the largest"),
        pytest.param(1000, 1125, False, 2, id="updates wait for something else"),
        pytest.param(200, 325, True, 2, id="by hand, early: counted from the snapshot"),
        pytest.param(200, 326, True, 64, id="by hand, early, and past an eighth"),
        pytest.param(5000, 5000, True, 64, id="begun late: counted from the due point"),
    ],
)
def test_the_encoding_step_grows_when_compaction_lags(
    at: int, log_bytes: int, has_room: bool, items: int
) -> None:
    """P7, P8: few, so that no other thread is stalled, until the log outgrows the compaction."""
    attempt = new_schedule().begin(at)
    assert attempt.pace(log_bytes, has_room=has_room, now_s=0) == Pace(items, gives_room=False)


@pytest.mark.parametrize(
    ("pauses", "gives_room"),
    [
        pytest.param([(5.0, False)], False, id="they just began to wait"),
        pytest.param([(5.0, False), (5.9, False)], False, id="for less than a second"),
        pytest.param([(5.0, False), (6.0, False)], True, id="for a second"),
        pytest.param([(5.0, False), (6.5, False), (7.0, False)], True, id="and from then on"),
        pytest.param([(5.0, True), (6.0, False)], False, id="counted from when they wait"),
        pytest.param([(5.0, False), (5.5, True), (6.0, False)], True, id="not counted anew"),
        pytest.param([(5.0, False), (7.0, True)], False, id="there is room"),
    ],
)
def test_updates_wait_for_a_second_of_encoding(
    pauses: list[tuple[float, bool]], gives_room: bool
) -> None:
    """P7: however large the state is. A pause is a reading of the clock, and whether there is
    room."""
    attempt = new_schedule().begin(1000)
    paces = [attempt.pace(2000, has_room=has_room, now_s=now_s) for now_s, has_room in pauses]
    assert paces[-1].gives_room is gives_room


# --- hold ---


@pytest.mark.parametrize(
    ("log_bytes", "flush_bytes", "hold_bytes"),
    [
        pytest.param(0, 100, 1250, id="a quarter of the growth past the due point"),
        pytest.param(1000, 100, 1250, id="due now"),
        pytest.param(3000, 100, 3250, id="overdue: past where the log is"),
        pytest.param(0, 400, 1400, id="a batch's room at least"),
    ],
)
def test_updates_wait_for_a_compaction_that_is_far_behind(
    log_bytes: int, flush_bytes: int, hold_bytes: float
) -> None:
    """P8: the disk holds no more than what two compactions let the log grow by."""
    options = Options(checkpoint_min_bytes=1000, flush_bytes=flush_bytes)
    assert new_schedule(options=options).hold_bytes(log_bytes) == hold_bytes


def test_an_earlier_compaction_is_waited_for_earlier() -> None:
    """The lead moves the hold with the due point."""
    schedule = new_schedule()
    compact(schedule, at=1000, end=1100)
    assert schedule.hold_bytes(1100) == schedule.due_bytes + 250 == 2050


# --- back-off ---


def test_the_back_off_doubles_from_one_second_to_sixty() -> None:
    """P8: what keeps failing is tried again at least once a minute."""
    schedule = new_schedule()
    delays = []
    for _ in range(8):
        schedule.failed()
        delays.append(schedule.backoff_s)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize(
    ("by_the_thread", "then_s"),
    [
        pytest.param(True, 1, id="the thread's own success: the next failure is a first one"),
        pytest.param(False, 4, id="a compaction by hand: the next failure is one more in a row"),
    ],
)
def test_a_success_ends_the_back_off(by_the_thread: bool, then_s: float) -> None:
    """P8: the next compaction is no retry: it is made when it is due, and updates may wait for
    it."""
    schedule = new_schedule()
    retries = [schedule.is_retry]
    schedule.failed()
    schedule.failed()
    retries.append(schedule.is_retry)
    compact(schedule, at=1000, end=1000)
    if by_the_thread:
        schedule.succeeded()
    retries.append(schedule.is_retry)
    assert retries == [False, True, False]
    schedule.failed()
    assert schedule.backoff_s == then_s


def test_a_removal_that_fails_is_retried() -> None:
    """The back-off goes on after a checkpoint was published, until what it covers is removed."""
    schedule = new_schedule()
    schedule.failed()
    schedule.published(schedule.begin(1000), 10)
    assert schedule.is_retry
