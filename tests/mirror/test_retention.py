"""Retention: what a mirror keeps, whatever the clock does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from journal._mirror.blobs import CheckpointName
from journal._mirror.retention import keep

HOUR_MS = 3_600_000
DAY_S = 86_400


def checkpoints(times_ms: list[int]) -> list[CheckpointName]:
    return [CheckpointName(10 * n, 100 * n, ms) for n, ms in enumerate(times_ms, 1)]


@given(
    times_ms=st.lists(st.integers(0, 100 * HOUR_MS), max_size=30),
    now_ms=st.integers(0, 1 << 44),
    keep_s=st.integers(0, 10 * DAY_S),
)
def test_the_two_newest_checkpoints_stay(times_ms: list[int], now_ms: int, keep_s: int) -> None:
    """Whatever the times and the clock are, the two newest checkpoints are kept, and the log after
    the older one."""
    names = checkpoints(times_ms)
    kept, floor = keep(names, now_ms, keep_s)
    assert names[-2:] == kept[-2:]
    assert floor in [0, *(name.number for name in kept[:1])]
    assert len(kept) >= 2 or not floor


@given(
    gaps_ms=st.lists(st.integers(0, 3 * HOUR_MS), min_size=1, max_size=40),
    keep_s=st.integers(0, 2 * DAY_S),
    moment=st.floats(0, 1),
)
def test_each_moment_that_is_kept_can_be_restored(
    gaps_ms: list[int], keep_s: int, moment: float
) -> None:
    """While the clock goes forward and things are removed again and again, each moment of the last
    `keep_s` seconds has a checkpoint before it and the log after that, or the whole log."""
    times_ms = [sum(gaps_ms[: n + 1]) + HOUR_MS * 1000 for n in range(len(gaps_ms))]
    there, floor = list[CheckpointName](), 0
    for name in checkpoints(times_ms):
        there.append(name)
        there, least = keep(there, name.made_ms, keep_s)
        floor = max(floor, least)
        at_ms = name.made_ms - moment * keep_s * 1000
        before = [each for each in there if each.made_ms <= at_ms]
        assert not floor or before[-1].number >= floor


def test_one_checkpoint_an_hour_stays() -> None:
    """Of the checkpoints of the last day that are not the two newest, one an hour stays, and the
    last one before that day, and each base."""
    minutes = [0, 10, 70, 80, 90, 130, 140, 150]
    names = checkpoints([HOUR_MS * 1000 + minute * 60_000 for minute in minutes])
    now_ms = names[-1].made_ms
    assert keep(names, now_ms, DAY_S) == ([names[n] for n in (0, 2, 5, 6, 7)], 0)
    assert keep(names, now_ms, 130 * 60) == ([names[n] for n in (1, 2, 5, 6, 7)], names[1].number)
    names[3] = names[3]._replace(nonce="ab" * 8)
    assert keep(names, now_ms, DAY_S).checkpoints == [names[n] for n in (0, 2, 3, 5, 6, 7)]
    assert keep(names, 1 << 50, DAY_S) == (names[-2:], names[-2].number)
