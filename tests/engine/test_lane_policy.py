"""When syncs are tried side by side, and when they stay alone."""

from __future__ import annotations

import pytest

from journal._commit.lane_policy import LanePolicy

MS = 1_000_000
CROWD = 256


def after_syncs_alone(
    sync_ms: float = 5, return_ms: float = 3, crowd: int = CROWD, count: int = 9
) -> LanePolicy:
    policy = LanePolicy(3)
    for _ in range(count):
        policy.note_alone(int(sync_ms * MS), int(return_ms * MS), crowd)
    return policy


def note_beside(policy: LanePolicy, *sync_ms: float, crowd: int = CROWD) -> int:
    for each in sync_ms:
        policy.note_beside(int(each * MS), crowd, has_company=True)
    return policy.lanes


@pytest.mark.parametrize(
    ("sync_ms", "return_ms", "crowd", "count", "lanes"),
    [
        (5, 3, 256, 9, 3),
        (5, 3, 256, 8, 1),  # too few measured
        (5, 1.25, 256, 9, 3),  # the crowd needs a quarter of a sync to come back
        (5, 1.24, 256, 9, 1),
        (5, 20, 256, 9, 3),  # or up to four syncs
        (5, 20.1, 256, 9, 1),
        (5, 3, 100, 9, 2),  # fewer lanes for a smaller crowd
        (5, 3, 95, 9, 1),  # it comes back too quickly
    ],
)
def test_syncs_are_tried_side_by_side_if_that_may_pay(
    sync_ms: float, return_ms: float, crowd: int, count: int, lanes: int
) -> None:
    """One part of a crowd comes back during the syncs of the others."""
    assert after_syncs_alone(sync_ms, return_ms, crowd, count).lanes == lanes


def test_the_syncs_of_a_smaller_crowd_do_not_count() -> None:
    """A smaller crowd comes back in a shorter time."""
    policy = after_syncs_alone(count=8)
    policy.note_alone(5 * MS, 3 * MS, 10)
    assert policy.lanes == 1
    policy.note_alone(5 * MS, 3 * MS, CROWD)
    assert policy.lanes == 3


def test_a_crowd_that_comes_again_is_not_measured_again() -> None:
    """A crowd that has gone says nothing about the disk."""
    policy = after_syncs_alone()
    assert note_beside(policy, *[5] * 9, crowd=10) == 1
    policy.note_alone(5 * MS, 3 * MS, CROWD)
    assert policy.lanes == 3


@pytest.mark.parametrize(
    ("sync_ms", "lanes"),
    [
        (5, 3),
        (6.5, 3),  # half of the time is saved in which the crowd comes back
        (6.6, 1),  # the disk takes them in turn
        (0.9, 1),  # it is a fast disk now
    ],
)
def test_measured_syncs_decide_whether_they_stay_side_by_side(sync_ms: float, lanes: int) -> None:
    """A disk that takes its syncs in turn gets one at a time again."""
    policy = after_syncs_alone()
    assert note_beside(policy, *[sync_ms] * 8) == 3
    assert note_beside(policy, sync_ms) == lanes


@pytest.mark.parametrize("has_company", [True, False])
def test_without_a_crowd_each_sync_is_alone_again(has_company: bool) -> None:
    """A lane costs two thread switches, and few waiters may never have two syncs in flight."""
    policy = after_syncs_alone()
    policy.note_beside(5 * MS, 96, has_company=has_company)
    assert policy.lanes == 3
    policy.note_beside(5 * MS, 95, has_company=has_company)
    assert policy.lanes == 1


def test_syncs_without_company_say_nothing_about_the_disk() -> None:
    """A sync without company takes as long as one alone."""
    policy = after_syncs_alone()
    for _ in range(20):
        policy.note_beside(20 * MS, CROWD, has_company=False)
    assert policy.lanes == 3


def test_a_few_slow_syncs_decide_nothing() -> None:
    """A single slow sync says little: every disk has some."""
    policy = after_syncs_alone()
    assert note_beside(policy, *[60] * 4, *[5] * 5, *[60] * 4) == 3


def test_each_failed_try_doubles_the_time_to_the_next() -> None:
    """A disk that takes its syncs in turn loses next to nothing by the tries."""
    policy = after_syncs_alone()
    for pause in (1024, 2048, 4096):
        assert note_beside(policy, *[20] * 9) == 1
        for _ in range(pause):
            policy.note_alone(5 * MS, 3 * MS, CROWD)
        assert policy.lanes == 1
        policy.note_alone(5 * MS, 3 * MS, CROWD)
        assert policy.lanes == 3
    assert note_beside(policy, *[5] * 9, *[20] * 9) == 1  # a good one sets it back
    for _ in range(1024):
        policy.note_alone(5 * MS, 3 * MS, CROWD)
    assert policy.lanes == 1
    policy.note_alone(5 * MS, 3 * MS, CROWD)
    assert policy.lanes == 3
