"""Locks whose `with` statement is interrupted by handlers of real signals, at any moment."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from journal._mutex import HandlerSafeLock, section_of
from journal._state.owner_lock import OwnerLock
from journal.testing import SimulatedDisk
from tests.support import Interrupted

RUNS = 10_000
# In a run. Before CPython 3.12, the main thread may not see a signal that another thread gets.
HOLDS_MAX = 10_000


class Strikes:
    """Raises Interrupted in this thread after `first_s` seconds, and again `gap_s` seconds later,
    unless that is 0."""

    def __init__(self) -> None:
        self.first_s = self.gap_s = 0.0
        self._left = 0

    def begin(self) -> None:
        self._left = 2 if self.gap_s else 1
        signal.setitimer(signal.ITIMER_REAL, self.first_s)

    def end(self) -> None:
        self._left = 0
        signal.setitimer(signal.ITIMER_REAL, 0)

    def strike(self, *_: object) -> None:
        if self._left:
            self._left -= 1
            if self._left:
                signal.setitimer(signal.ITIMER_REAL, self.gap_s)
            raise Interrupted


@pytest.fixture
def strikes() -> Iterator[Strikes]:
    made = Strikes()
    before = signal.signal(signal.SIGALRM, made.strike)
    gc.disable()  # an exception that is raised inside a finalizer reaches nobody
    try:
        yield made
    finally:
        gc.enable()
        signal.signal(signal.SIGALRM, before)


Made = tuple[Callable[[], Any], Callable[[], bool]]  # a call that holds a lock; whether it is held


def mutex() -> Made:
    lock = HandlerSafeLock()

    def hold() -> None:
        with lock.checked():
            pass

    return hold, lock.is_held_here


def section() -> Made:
    lock = HandlerSafeLock()
    held = section_of(lock)

    def hold() -> None:
        with held:
            pass

    return hold, lock.is_held_here


def owner_lock() -> Made:
    lock = OwnerLock()
    return lambda: lock.run(len, ()), lock.is_held


def simulated_disk() -> Made:
    disk = SimulatedDisk()
    return disk.open_directory("/j", write=True).names, disk._mutex.is_held_here


@pytest.mark.parametrize("gap_s", [0, 1e-6])
@pytest.mark.parametrize("make", [mutex, section, owner_lock, simulated_disk])
def test_no_interrupt_leaves_a_lock_held(
    make: Callable[[], Made], gap_s: float, strikes: Strikes
) -> None:
    """Wherever one or two interrupts strike, the lock is free afterwards."""
    held = struck = 0
    for run in range(RUNS):
        hold, is_held = make()
        strikes.first_s, strikes.gap_s = 3e-5 + run % 40 * 1e-6, gap_s * (1 + run % 12 / 2)
        try:
            strikes.begin()
            for _ in range(HOLDS_MAX):
                hold()
            strikes._left = 0  # no call, at which one may strike
        except Interrupted:
            strikes._left = 0
            struck += 1
        strikes.end()
        held += is_held()
    assert held == 0
    assert struck > RUNS / 2
