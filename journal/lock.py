"""OwnerLock: the owner's lock, measured, for short holds by many threads, free of convoys.

The interpreter's lock wakes a waiter by giving it the lock. The waiter then waits for the
interpreter while it *holds* the lock, so that all others run into it: from the first switch of
threads inside a hold, each hold costs two switches, for as long as anybody is in a hurry
(measured: 64 threads at a third of what 8 do). Here nobody waits for the lock itself. Who finds
it held waits *beside* it, and looks again once it runs; whoever runs meanwhile takes it first.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from journal.metrics import LockStats, Recorder

T = TypeVar("T")

_LOST_WAKE_UP_S = 0.01  # an interrupt may swallow one; then this is how long it takes


class OwnerLock:
    """Not reentrant. How long it was held and waited for is counted for every hold."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_held = False
        # What those beside it sleep on; changed by single atomic operations.
        self._beside: deque[threading.Lock] = deque()
        self._hold_ns = Recorder()
        self._wait_ns = Recorder()

    def run(self, action: Callable[..., T], *arguments: object) -> T:
        """`action(*arguments)` under the lock.

        The interpreter switches threads, and interrupts, at calls and jumps back only. There is
        none from the look at `_is_held` to where it is set, nor from where it is cleared to the
        lock's release: it is true as long as the lock is held. Without a global interpreter lock
        it may be late, and then the lock itself is waited for: slower, and right all the same.
        """
        if self._hold_ns.is_full:
            self._hold_ns.fold()
            self._wait_ns.fold()
        asked = time.perf_counter_ns()
        try:
            while self._is_held:
                self._wait_beside()
            with self._lock:
                self._is_held = True
                try:
                    held = time.perf_counter_ns()
                    try:
                        return action(*arguments)
                    finally:
                        self._hold_ns.add(time.perf_counter_ns() - held)
                        self._wait_ns.add(held - asked)
                finally:
                    self._is_held = False
        finally:
            if self._beside:
                self._wake()

    def stats(self) -> LockStats:
        """In ns, since it was made."""
        return LockStats(self._hold_ns.histogram(), self._wait_ns.histogram())

    def _wait_beside(self) -> None:
        asleep = threading.Lock()
        asleep.acquire()
        self._beside.append(asleep)
        if self._is_held:
            asleep.acquire(timeout=_LOST_WAKE_UP_S)
        with suppress(ValueError):  # it was woken
            self._beside.remove(asleep)

    def _wake(self) -> None:
        with suppress(IndexError):  # another thread took the last one
            self._beside.popleft().release()
