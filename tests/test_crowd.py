"""How those who wait for a commit are let go: one behind the other, or all at once."""

from __future__ import annotations

import threading

import pytest

from journal import Options, crowd
from journal.buffer import LogBuffer
from journal.crowd import Crowd
from journal.gate import Gate
from tests.support import TIMEOUT_S, until


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(crowd, "time", clock)
    return clock


def after_a_commit(clock: Clock, let_go: int, came_back: int, took_s: float) -> Crowd:
    found = Crowd()
    found.let_go(let_go, 0)
    clock.now_s += took_s
    found.begins(came_back)
    return found


@pytest.mark.parametrize(
    ("let_go", "came_back", "took_s", "at_once"),
    [
        (64, 64, 0.0016, False),  # 25 us each
        (256, 256, 0.013, False),  # 50
        (64, 1, 0.0001, False),  # the first one back has found nobody at the log's end
        (64, 20, 0.028, True),  # a computing thread takes its turn between any two
        (8, 1, 0.005, True),
        (1, 0, 0.005, False),  # alone it waits for nobody
    ],
)
def test_who_comes_back_slowly_goes_at_once(
    clock: Clock, let_go: int, came_back: int, took_s: float, at_once: bool
) -> None:
    """P7: beside threads that compute, each hand-over of the interpreter may take 5 ms."""
    assert after_a_commit(clock, let_go, came_back, took_s).goes_at_once == at_once


def test_the_time_that_is_given_to_come_back_is_not_slow(clock: Clock) -> None:
    """On a slow disk a commit waits for those whom the last one let go."""
    found = Crowd()
    found.synced(0.020)
    found.let_go(64, 0)
    clock.now_s += 0.0065
    found.begins(10)
    assert not found.goes_at_once


def test_going_at_once_is_given_up_again(clock: Clock) -> None:
    """Elsewhere it is half as fast, so one behind the other is tried again and again."""
    found = after_a_commit(clock, 64, 2, 0.010)
    batches = 0
    while found.goes_at_once:
        found.let_go(64, 0)
        found.begins(64)
        batches += 1
    assert batches == 16
    found.let_go(64, 0)
    clock.now_s += 0.010
    found.begins(2)
    assert found.goes_at_once


def test_a_gate_lets_all_go_at_once() -> None:
    """P2: none waits for another to have passed, and nobody passes before it opens."""
    gate, passed = Gate(goes_at_once=True), []

    def wait() -> None:
        passed.append(gate.wait())

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(gate._wakers) == len(threads), "all waiting")
    assert not gate.wait(0.01)
    assert passed == []
    gate.open()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert passed == [True] * len(threads)
    assert gate.wait()


def test_the_log_buffer_asks_how_fast_they_came_back(clock: Clock) -> None:
    """From the next batch on: a gate is one or the other for all who wait at it."""
    buffer = LogBuffer(0, Options())

    def commit(took_s: float) -> bool:
        gates = [buffer.gate(buffer.append(number)) for number in range(3)]
        clock.now_s += took_s
        batch = buffer.take()
        assert batch is not None
        buffer.committed(batch, 0.0, 0)
        buffer._leave()
        assert gates[0] is not None
        return gates[0]._goes_at_once

    assert [commit(took_s) for took_s in (0.0, 0.0, 0.010, 0.0)] == [False, False, False, True]
