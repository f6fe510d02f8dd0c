"""The policy of waking a commit's waiters: in turn, or all at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from journal._commit import wake_policy
from journal._commit.gate import Gate
from journal._commit.wake_policy import WakePolicy
from journal.testing import SimulatedDisk
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


def commit(policy: WakePolicy, clock: Clock, waiters: int, passed: int, took_s: float) -> bool:
    """End a commit of `waiters`, and begin the next one `took_s` later, after `passed` of them have
    passed. Return whether the next waiters are woken all at once."""
    policy.note_release(waiters, 0)
    clock.now_ns += int(took_s * 1e9)
    for _ in range(passed):
        policy.note_passed(clock.now_ns)
    policy.note_begin()
    return policy.wakes_all_at_once


@pytest.mark.parametrize(
    ("released", "sync_s", "waiting", "since_s", "due_s"),
    [
        (64, 0.0009, 1, 0, 0),  # a fast sync: a commit waits for nobody
        (10_000, 0.0001, 0, 0, 0),
        (64, 0.003, 1, 0, 0.001),  # a third of a slow sync
        (64, 0.018, 1, 0, 0.005),  # never longer than this
        (64, 0.003, 63, 0.0009, 0.0001),  # all can come back, so it waits for all
        (256, 0.002, 56, 0.0001, 0),  # not all can come back during a sync of 2 ms
        (256, 0.0021, 45, 0.0001, 0.0006),
        (2, 0.003, 1, 0, 0.001),
    ],
)
def test_a_commit_waits_on_a_slow_disk(
    clock: Clock, released: int, sync_s: float, waiting: int, since_s: float, due_s: float
) -> None:
    """P7: A commit waits for the waiters that the last one released, for a bounded time, if a sync
    is slow."""
    policy = WakePolicy()
    policy.note_sync(sync_s)
    policy.note_release(released, 0)
    clock.now_ns += int(since_s * 1e9)
    assert max(0, policy.due_s(waiting)) == pytest.approx(due_s, abs=1e-9)


def test_a_commit_waits_on_while_waiters_come_back(clock: Clock) -> None:
    """P7: On a slow disk, a commit waits for as long as a sync takes, if waiters come back all the
    time."""
    policy = WakePolicy()
    policy.note_sync(0.009)
    policy.note_release(64, 0)
    clock.now_ns += 3_000_000
    assert policy.due_s(20) == pytest.approx(0.00075)
    clock.now_ns += 750_000
    assert policy.due_s(20) <= 0  # nobody came
    assert policy.due_s(21) > 0
    clock.now_ns += 6_000_000
    assert policy.due_s(22) <= 0


@pytest.mark.parametrize(
    ("waiters", "passed", "took_s", "at_once"),
    [
        (64, 64, 0.0016, False),  # 25 us per waiter
        (256, 256, 0.013, False),  # 50 us per waiter
        (64, 1, 0.0001, False),  # the first waiter back found the commit turn free
        (64, 0, 1.0, False),  # no waiter passed
        (64, 20, 0.028, True),  # a computing thread runs between any two waiters
        (8, 1, 0.005, True),
        (1, 1, 0.005, False),  # a lone waiter waits for no other
    ],
)
def test_slow_waiters_are_woken_all_at_once(
    clock: Clock, waiters: int, passed: int, took_s: float, at_once: bool
) -> None:
    """P7: Among threads that compute, each switch to a waiter may take 5 ms."""
    assert commit(WakePolicy(), clock, waiters, passed, took_s) == at_once


def test_a_pause_between_commits_does_not_count_as_slow(clock: Clock) -> None:
    """What counts is the time in which the released waiters pass, and not the time until the next
    commit."""
    policy = WakePolicy()
    policy.note_release(64, 0)
    clock.now_ns += 1_600_000
    for _ in range(64):
        policy.note_passed(clock.now_ns)
    clock.now_ns += 50_000_000
    policy.note_begin()
    assert not policy.wakes_all_at_once


def test_waking_in_turn_is_tried_again(clock: Clock) -> None:
    """Among quick waiters, waking all at once is half as fast, so waking in turn is tried again
    after 16 batches."""
    policy = WakePolicy()
    assert commit(policy, clock, 64, 2, 0.010)
    batches = 1
    while commit(policy, clock, 64, 64, 0.0016):
        batches += 1
    assert batches == 16
    assert commit(policy, clock, 64, 2, 0.010)


def test_a_gate_wakes_all_at_once() -> None:
    """P2: No waiter waits for another to pass, and none passes before the gate opens."""
    gate, passed = Gate(wakes_all_at_once=True), []

    def wait() -> None:
        passed.append(gate.wait())

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(gate._wakers) == len(threads), "all threads wait")
    assert not gate.wait(0.01)
    assert passed == []
    gate.open()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert passed == [True] * len(threads)
    assert gate.wait()


def test_passing_waiters_inform_the_policy(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waiter reports when it passed. The policy changes with the next batch, for all waiters
    at its gate."""
    monkeypatch.setattr(wake_policy, "_SLOW_NS_MIN", -(10**18))
    monkeypatch.setattr(wake_policy, "_SLOW_PASS_NS", -(10**18))
    gates: list[bool] = []

    class RecordedGate(Gate):
        def __init__(self, *, wakes_all_at_once: bool = False) -> None:
            gates.append(wakes_all_at_once)
            super().__init__(wakes_all_at_once=wakes_all_at_once)

    monkeypatch.setattr("journal._commit.commit_turn.Gate", RecordedGate)
    with open_on(disk) as journal, ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            with Held(disk, "sync", ".seg") as held:
                waiting = [pool.submit(put, journal, "first")]
                held.wait_reached()
                waiting += [pool.submit(put, journal, number) for number in range(3)]
                until(
                    lambda: journal._buffer.filling.waiters == 3, "three waiters in the next batch"
                )
            for each in waiting:
                each.result(TIMEOUT_S)
    policy = journal._turn.wake_policy
    assert policy._passed_ns
    assert min(policy._passed_ns) > policy.released_ns
    assert gates[-1]
    assert not gates[0]


def test_a_lane_waits_for_its_part_of_the_crowd() -> None:
    """Waiters on their way back are in no batch, so the crowd shrinks by an eighth at most."""
    policy = WakePolicy()
    policy.note_sync(0.005)
    enough: list[int] = []
    for released, waiting, lanes in ((85, 171, 3), (80, 20, 3), (80, 20, 1)):
        policy.note_release(released, waiting, lanes=lanes)
        enough.append(policy.enough_waiters)
    assert enough == [76, 67, 100]  # nine tenths of a third of 256 and of 224, and all of 100
