"""The schedule of compactions, as plain numbers: due point, lead, pace, hold and back-off."""

from __future__ import annotations

import pytest

from journal import Options
from journal._engine.compaction_schedule import NEVER, Attempt, CompactionSchedule, Pace

# The log may grow by 1,000 bytes between two compactions, or by three times a larger checkpoint's
# size.
OPTIONS = Options(checkpoint_min_bytes=1000, checkpoint_growth=3.0, flush_bytes=100)


def new_schedule(
    *, checkpoint_bytes: int = 0, log_bytes: int = 0, options: Options = OPTIONS
) -> CompactionSchedule:
    return CompactionSchedule(options, checkpoint_bytes=checkpoint_bytes, log_bytes=log_bytes)


def compact(
    schedule: CompactionSchedule, *, at: int, end: int, size: int = 10, passed: float = NEVER
) -> Attempt:
    """Compact from log size `at` to `end`, after a commit passed the due point `passed`."""
    schedule.passed_due(passed)
    attempt = schedule.begin(at)
    schedule.published(attempt, size)
    schedule.finished(attempt, end)
    return attempt


# --- due point ---


@pytest.mark.parametrize(
    ("checkpoint_bytes", "log_bytes", "due_bytes"),
    [
        pytest.param(0, 0, 1000, id="a new journal: the minimum growth"),
        pytest.param(333, 0, 1000, id="a small checkpoint: the minimum growth"),
        pytest.param(500, 0, 1500, id="a larger checkpoint: three times its size"),
        pytest.param(0, 400, 600, id="growth before the open counts"),
        pytest.param(500, 400, 1100, id="a larger checkpoint and growth before the open"),
        pytest.param(0, 5000, -4000, id="overdue at the open"),
    ],
)
def test_the_first_due_point_follows_the_options(
    checkpoint_bytes: int, log_bytes: int, due_bytes: float
) -> None:
    """P8: A compaction is due when the log has grown by `checkpoint_min_bytes`, and by
    `checkpoint_growth` times the size of the newest checkpoint, since that checkpoint's
    snapshot."""
    schedule = new_schedule(checkpoint_bytes=checkpoint_bytes, log_bytes=log_bytes)
    assert schedule.due_bytes == due_bytes


@pytest.mark.parametrize(
    ("at", "end", "size", "passed", "due_bytes"),
    [
        pytest.param(1000, 1000, 10, NEVER, 2000, id="the log did not grow"),
        pytest.param(300, 300, 10, NEVER, 1300, id="a compaction by hand, before the due point"),
        pytest.param(1000, 1000, 500, NEVER, 2500, id="the new checkpoint is larger"),
        pytest.param(1000, 1100, 10, NEVER, 1800, id="the log grew by 100"),
        pytest.param(1000, 1125, 10, NEVER, 1750, id="by an eighth: due a quarter earlier"),
        pytest.param(1000, 9000, 10, NEVER, 1750, id="by more: no earlier than a quarter"),
        pytest.param(1000, 9000, 500, NEVER, 2125, id="a quarter of the new growth"),
        pytest.param(1050, 1050, 10, 1000, 1950, id="a commit passed the due point by 50"),
        pytest.param(1050, 1060, 10, 1000, 1930, id="and the log grew by 10 more"),
        pytest.param(
            900,
            910,
            10,
            1000,
            1880,
            id="a snapshot before the due point: counted from the snapshot",
        ),
    ],
)
def test_the_next_due_point_follows_the_last_growth(
    at: int, end: int, size: int, passed: float, due_bytes: float
) -> None:
    """P8: The next compaction is due earlier by twice the log's growth during the last one, at most
    by a quarter of the growth. That growth is counted from the due point that a commit passed, or
    else from the snapshot."""
    schedule = new_schedule()
    compact(schedule, at=at, end=end, size=size, passed=passed)
    assert schedule.due_bytes == due_bytes


def test_the_first_due_point_that_a_commit_passes_counts() -> None:
    """The first passed due point counts, although the thread may set another one before it
    compacts."""
    schedule = new_schedule()
    for due_bytes in (1000, 1020, NEVER):
        schedule.passed_due(due_bytes)
    assert schedule.begin(1050).grown_from_bytes == 1000


def test_a_due_point_counts_for_one_attempt() -> None:
    """A due point that a commit passed before or during an attempt does not set a later one's
    lead."""
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


def test_an_unfinished_attempt_does_not_postpone_the_next() -> None:
    """An attempt that ends before its checkpoint is published leaves the next one due."""
    schedule = new_schedule()
    schedule.begin(1000)
    assert (schedule.due_bytes, schedule.snapshot_bytes) == (1000, 0)


def test_a_checkpoint_counts_before_covered_files_are_removed() -> None:
    """A published checkpoint postpones the next one, with the previous lead, even if the removal is
    interrupted or fails."""
    schedule = new_schedule()
    compact(schedule, at=1000, end=1100)
    schedule.published(schedule.begin(1800), 500)
    assert (schedule.due_bytes, schedule.snapshot_bytes) == (3100, 1800)


# --- pace ---


@pytest.mark.parametrize(
    ("at", "log_bytes", "has_room", "items"),
    [
        pytest.param(1000, 1000, True, 2, id="the log did not grow"),
        pytest.param(1000, 1125, True, 2, id="up to an eighth of the growth"),
        pytest.param(1000, 1126, True, 64, id="past an eighth: larger steps"),
        pytest.param(
            1000, 1126, False, 256, id="past an eighth, and updates wait: the largest steps"
        ),
        pytest.param(1000, 1125, False, 2, id="updates wait for another reason"),
        pytest.param(200, 325, True, 2, id="by hand and early: counted from the snapshot"),
        pytest.param(200, 326, True, 64, id="by hand and early, past an eighth"),
        pytest.param(5000, 5000, True, 64, id="late: counted from the due point"),
    ],
)
def test_the_encoding_step_grows_when_compaction_lags(
    at: int, log_bytes: int, has_room: bool, items: int
) -> None:
    """P7, P8: Items are encoded a few at a time, so that no other thread stalls, until the log
    outgrows the compaction. Here, the first item took 10 us."""
    attempt = new_schedule().begin(at)
    pace = attempt.pace(log_bytes, step_s=10e-6, has_room=has_room, now_s=0)
    assert pace == Pace(items, pause_s=200e-6)


@pytest.mark.parametrize(
    ("item_us", "items", "items_when_idle"),
    [
        pytest.param(2.1, 9, 64, id="a small item"),
        pytest.param(21, 1, 9, id="a large one"),
        pytest.param(2000, 1, 1, id="a huge one: at least one item"),
        pytest.param(0.1, 16, 64, id="a tiny one: few all the same, since the next may be huge"),
        pytest.param(0, 16, 64, id="no measurable time: the largest step"),
    ],
)
def test_a_step_has_as_many_items_as_its_time_allows(
    item_us: float, items: int, items_when_idle: int
) -> None:
    """P7: A step takes 20 us of processor time, and 200 us once the log has not grown for 50 ms."""
    attempt = new_schedule().begin(1000)
    item_s = item_us / 1e6
    pace = attempt.pace(1000, step_s=item_s, has_room=True, now_s=5.0)
    assert pace == Pace(items)
    pace = attempt.pace(1000, step_s=items * item_s, has_room=True, now_s=5.049)
    assert pace == Pace(items)
    pace = attempt.pace(1000, step_s=items * item_s, has_room=True, now_s=5.051)
    assert pace == Pace(items_when_idle, pause_s=100e-6)
    pace = attempt.pace(1001, step_s=items_when_idle * item_s, has_room=True, now_s=5.06)
    assert pace == Pace(items)  # the log grew: back to short steps


def test_a_step_is_short_while_updates_wait() -> None:
    """P7: A step takes 5 ms of processor time at most while updates wait, so that they get room in
    time."""
    attempt = new_schedule().begin(1000)
    assert attempt.pace(2000, step_s=1e-3, has_room=False, now_s=0) == Pace(5)


# --- room ---


def rooms(attempt: Attempt, *calls: tuple[float, bool, int, int]) -> list[float]:
    """Return the room that is given at each reading of the clock: whether there is room, and the
    bytes encoded and read back so far."""
    return [
        attempt.room_bytes(encoded, read, has_room=has_room, now_s=now_s)
        for now_s, has_room, encoded, read in calls
    ]


def test_updates_that_wait_get_room_every_fifteen_milliseconds() -> None:
    """P7: Updates are slowed and never stopped. While they wait, they get room once in 15 ms."""
    attempt = new_schedule().begin(1000)
    given = rooms(
        attempt,
        (5.0, False, 10, 0),
        (5.014, False, 20, 0),
        (5.0151, False, 30, 0),
        (5.0152, False, 40, 0),
        (5.025, True, 50, 0),  # they got it, and wait again from here
        (5.026, False, 60, 0),
        (5.04, False, 70, 0),
        (5.0411, False, 80, 0),
    )
    assert [room > 0 for room in given] == [False, False, True, False, False, False, False, True]


@pytest.mark.parametrize(
    ("checkpoint_bytes", "at", "size"),
    [
        pytest.param(10**9, 3 * 10**9, 4 * 10**9, id="each record adds an item"),
        pytest.param(10**9, 3 * 10**9, 10**9, id="the state does not grow"),
        pytest.param(0, 10**9, 10**9, id="a first checkpoint"),
    ],
)
def test_the_room_of_a_compaction_is_a_part_of_the_growth(
    checkpoint_bytes: int, at: int, size: int
) -> None:
    """P8: However large the state is, a compaction that ends after all the room it gives leaves the
    log within twice the allowed growth."""
    options = Options(checkpoint_min_bytes=10**9, checkpoint_growth=3.0)
    attempt = new_schedule(checkpoint_bytes=checkpoint_bytes, options=options).begin(at)
    steps = 1000
    calls = [(n / 25, False, size * n // steps, 0) for n in range(steps + 1)]
    calls += [(40 + n / 25, False, 0, size * n // steps) for n in range(1, steps + 1)]
    given = sum(rooms(attempt, *calls))
    growth = max(10**9, 3 * checkpoint_bytes)
    assert growth / 25 < given < growth / 4  # the hold point is a quarter past the due point


def test_slow_encoding_gives_some_room_all_the_same() -> None:
    """P7: A checkpoint that takes hours does not stop the log: each time gives 24 KiB at least."""
    attempt = new_schedule().begin(1000)
    assert rooms(attempt, (5.0, False, 0, 0), (5.04, False, 1, 0)) == [0, 3 << 13]


# --- hold point ---


@pytest.mark.parametrize(
    ("log_bytes", "flush_bytes", "hold_bytes"),
    [
        pytest.param(0, 100, 1250, id="a quarter of the growth past the due point"),
        pytest.param(1000, 100, 1250, id="due now"),
        pytest.param(3000, 100, 3250, id="overdue: counted from the log's size"),
        pytest.param(0, 400, 1400, id="at least the size of a batch"),
    ],
)
def test_updates_wait_for_a_compaction_that_is_far_behind(
    log_bytes: int, flush_bytes: int, hold_bytes: float
) -> None:
    """P8: Updates wait before the disk holds more than two compactions let the log grow by."""
    options = Options(checkpoint_min_bytes=1000, flush_bytes=flush_bytes)
    assert new_schedule(options=options).hold_bytes(log_bytes) == hold_bytes


def test_an_earlier_due_point_has_an_earlier_hold_point() -> None:
    """The lead moves the hold point together with the due point."""
    schedule = new_schedule()
    compact(schedule, at=1000, end=1100)
    assert schedule.hold_bytes(1100) == schedule.due_bytes + 250 == 2050


# --- back-off ---


def test_the_back_off_doubles_from_one_second_to_sixty() -> None:
    """P8: A compaction that keeps failing is retried at least once a minute."""
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
    """P8: The compaction after a success is not a retry: it is made when it is due, and updates may
    wait for it."""
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


def test_a_failed_removal_is_retried() -> None:
    """The back-off continues after a checkpoint was published, until the files that it covers are
    removed."""
    schedule = new_schedule()
    schedule.failed()
    schedule.published(schedule.begin(1000), 10)
    assert schedule.is_retry
