"""How those who wait for a commit are let go: one behind the other, or all at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from journal import wake_policy
from journal.gate import Gate
from journal.testing import SimulatedDisk
from journal.wake_policy import WakePolicy
from tests.support import TIMEOUT_S, Held, open_on, put, until


class Clock:
    def __init__(self) -> None:
        self.now_ns = 10**9

    def perf_counter_ns(self) -> int:
        return self.now_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(wake_policy, "time", clock)
    return clock


def commit(found: WakePolicy, clock: Clock, let_go: int, passed: int, took_s: float) -> bool:
    """The rest of a commit, and the beginning of the next: so many of those let go have passed
    by then, the last of them after so long. Whether the next ones go at once."""
    found.let_go(let_go, 0)
    clock.now_ns += int(took_s * 1e9)
    found.passed += passed
    found.passed_ns = clock.now_ns if passed else found.passed_ns
    found.begins()
    return found.goes_at_once


@pytest.mark.parametrize(
    ("let_go", "passed", "took_s", "at_once"),
    [
        (64, 64, 0.0016, False),  # 25 us each
        (256, 256, 0.013, False),  # 50
        (64, 1, 0.0001, False),  # the first one back has found nobody at the log's end
        (64, 0, 1.0, False),  # a commit that nobody of them waits for
        (64, 20, 0.028, True),  # a computing thread takes its turn between any two
        (8, 1, 0.005, True),
        (1, 1, 0.005, False),  # alone it waits for nobody
    ],
)
def test_who_passes_slowly_goes_at_once(
    clock: Clock, let_go: int, passed: int, took_s: float, at_once: bool
) -> None:
    """P7: beside threads that compute, each hand-over of the interpreter may take 5 ms."""
    assert commit(WakePolicy(), clock, let_go, passed, took_s) == at_once


def test_a_pause_between_two_commits_is_not_slow(clock: Clock) -> None:
    """What counts is how long those who were let go took to pass, not when anybody called next."""
    found = WakePolicy()
    found.let_go(64, 0)
    clock.now_ns += 1_600_000
    found.passed, found.passed_ns = 64, clock.now_ns
    clock.now_ns += 50_000_000
    found.begins()
    assert not found.goes_at_once


def test_going_at_once_is_given_up_again(clock: Clock) -> None:
    """Elsewhere it is half as fast, so one behind the other is tried again and again."""
    found = WakePolicy()
    assert commit(found, clock, 64, 2, 0.010)
    batches = 1
    while commit(found, clock, 64, 64, 0.0016):
        batches += 1
    assert batches == 16
    assert commit(found, clock, 64, 2, 0.010)


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


def test_who_passes_says_so(disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the next batch on: a gate is one or the other for all who wait at it."""
    monkeypatch.setattr(wake_policy, "_SLOW_NS_MIN", -(10**18))
    monkeypatch.setattr(wake_policy, "_SLOW_PASS_NS", -(10**18))
    gates: list[bool] = []

    class Noted(Gate):
        def __init__(self, *, goes_at_once: bool = False) -> None:
            gates.append(goes_at_once)
            super().__init__(goes_at_once=goes_at_once)

    monkeypatch.setattr("journal.buffer.Gate", Noted)
    with open_on(disk) as journal, ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            with Held(disk, "sync", ".seg") as held:
                waiting = [pool.submit(put, journal, "first")]
                held.wait_reached()
                waiting += [pool.submit(put, journal, number) for number in range(3)]
                until(lambda: journal._buffer._filling.waiters == 3, "three gather")
            for each in waiting:
                each.result(TIMEOUT_S)
    found = journal._buffer.crowd
    assert found.passed_ns > found._let_go_ns
    assert found.passed > 0
    assert gates[-1]
    assert not gates[0]
