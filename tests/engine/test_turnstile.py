"""The turnstile of a gate: nobody passes early, and nobody is forgotten."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from journal._commit.gate import Gate
from tests.support import TIMEOUT_S, Interrupted

CROWD = 8


def test_nobody_passes_before_the_gate_opens(pool: ThreadPoolExecutor) -> None:
    """P2: All waiters pass when the gate opens, none before, and later ones at once."""
    gate = Gate()
    waiting = [pool.submit(gate.wait) for _ in range(4)]
    assert not gate.wait(0.02)
    assert not any(each.done() for each in waiting)
    gate.open()
    assert all(each.result(TIMEOUT_S) for each in waiting)
    assert gate.wait()
    assert gate.wait(1)


def test_a_gate_may_be_opened_again(pool: ThreadPoolExecutor) -> None:
    """After an interrupt, another call finishes the opening."""
    gate = Gate()
    waiting = [pool.submit(gate.wait) for _ in range(4)]
    gate.open()
    gate.open()
    assert all(each.result(TIMEOUT_S) for each in waiting)
    assert gate.wait()


@pytest.fixture
def interrupts() -> Iterator[None]:
    def handle(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handle)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def wait_at(gate: Gate, passed: list[bool]) -> None:
    passed.append(gate.wait() and gate.opened)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupted_waiter_lets_the_others_pass() -> None:
    """P2: A signal handler's exception may strike a waiter at any moment, also as it passes. All
    others pass, and none passes early."""
    draw = random.Random(24)
    early = 0
    for _ in range(100):
        gate = Gate()
        passed: list[bool] = []
        threads = [threading.Thread(target=wait_at, args=(gate, passed)) for _ in range(CROWD)]
        opener = threading.Timer(draw.uniform(0, 0.002), gate.open)
        for thread in threads:
            thread.start()
        opener.start()
        with suppress(Interrupted):
            signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.0001, 0.003))
            while True:
                gate.wait()
                early += not gate.opened
        opener.join(TIMEOUT_S)
        for thread in threads:
            thread.join(TIMEOUT_S)
        assert passed == [True] * CROWD
    assert not early


def test_a_signal_handler_of_a_waiter_may_wait_for_the_others() -> None:
    """P2: A signal handler that runs while its thread passes does not hold the lock. So it may
    wait for another thread that passes the same gate."""
    stuck: list[threading.Thread] = []

    def handle(*_: object) -> None:
        other.join(2)
        if other.is_alive():
            stuck.append(other)

    def open_and_interrupt() -> None:
        started.join(TIMEOUT_S)  # a handler can't wait for a thread that has not started
        gate.open()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        for _ in range(50):
            gate = Gate()
            other = threading.Thread(target=gate.wait)
            started = threading.Timer(0.002, other.start)  # behind the main thread
            started.start()
            opener = threading.Timer(0.01, open_and_interrupt)
            opener.start()
            gate.wait()
            opener.join(TIMEOUT_S)
            other.join(TIMEOUT_S)
            assert not stuck
    finally:
        signal.signal(signal.SIGUSR1, before)
