"""OwnerLock: the owner's lock, measured, for short holds by many threads, free of convoys.

The interpreter's lock wakes a waiter by giving it the lock. The waiter then waits for the
interpreter while it *holds* the lock, so that all others run into it: from the first switch of
threads inside a hold, each hold costs two switches, for as long as anybody is in a hurry
(measured: 64 threads at a third of what 8 do). Here nobody waits for the lock itself. Who finds
it held waits *beside* it, and looks again once it runs; whoever runs meanwhile takes it first.
Who was overtaken for too long becomes the heir, for whom the next one who lets go leaves it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from threading import get_ident
from time import perf_counter_ns
from typing import TYPE_CHECKING, TypeVar

from journal._mutex import is_raised_by_call
from journal._recorder import PENDING_MAX, Recorder
from journal.errors import InterruptedCallError

if TYPE_CHECKING:
    from journal.metrics import LockStats

A = TypeVar("A")
T = TypeVar("T")

_LOST_WAKE_UP_S = 0.01  # an interrupt may swallow one; then this is how long it takes
_OVERTAKEN_NS = 50_000_000


class OwnerLock:
    """Not reentrant. How long it was held and waited for is counted for every hold."""

    def __init__(self, is_inside: Callable[[], bool] = bool) -> None:
        """Make a free lock. `is_inside` returns whether this thread holds a lock that comes after
        this one; then waiting here could deadlock, and raises InterruptedCallError.
        """
        self._is_inside = is_inside
        self._lock = threading.Lock()
        # These only keep others away from the lock, which alone decides. The thread that holds
        # it; or, negative, the one for whom it is left; 0: nobody.
        self._holder = 0
        self._heir = 0  # negative, too
        # What those beside it sleep on; changed by single atomic operations.
        self._queue: deque[threading.Lock] = deque()
        self._hold_ns = Recorder()
        self._wait_ns = Recorder()

    def run(self, action: Callable[[A], T], argument: A) -> T:
        """Return `action(argument)`, run under the lock. Raises InterruptedCallError if this thread
        holds it.

        The interpreter switches threads, and interrupts, at calls and jumps back only. There is
        none from the look at `_holder` to where it is set, nor from where it is cleared to the
        lock's release: it is set as long as the lock is held. Without a global interpreter lock
        (or where a finalizer runs in between, as before 3.12 it may) it is late, and then the lock
        itself is waited for: slower, and right all the same.
        """
        hold_ns, wait_ns = self._hold_ns, self._wait_ns
        if len(hold_ns.pending) > PENDING_MAX:
            hold_ns.fold()
            wait_ns.fold()
        me = get_ident()
        asked = perf_counter_ns()
        try:
            while self._holder and self._holder != -me:
                self._wait_in_queue(me, asked)
            with self._lock:
                self._holder = me
                try:
                    held = perf_counter_ns()
                    try:
                        return action(argument)
                    finally:
                        hold_ns.add(perf_counter_ns() - held)
                        wait_ns.add(held - asked)
                finally:
                    self._holder = self._heir
        finally:
            if self._queue or self._heir:
                self._leave(me)

    def refuse_inside(self) -> None:
        """Raise InterruptedCallError if this thread holds the lock: a callback called back in, or
        a signal handler."""
        if self._holder == get_ident() and self._lock.locked():
            raise InterruptedCallError

    def stats(self) -> LockStats:
        """In ns, since it was made."""
        from journal.metrics import LockStats

        return LockStats(self._hold_ns.histogram(), self._wait_ns.histogram())

    def _wait_in_queue(self, me: int, asked_ns: int) -> None:
        self.refuse_inside()
        if self._is_inside():
            raise InterruptedCallError
        asleep = threading.Lock()
        asleep.acquire()
        self._queue.append(asleep)
        was_woken = not self._holder or asleep.acquire(timeout=_LOST_WAKE_UP_S)
        holder = self._holder
        # The call may switch threads; whoever has taken it since then has set another holder. To
        # clear that would send all others to the lock itself, and begin a convoy.
        if not was_woken and not self._lock.locked() and self._holder == holder:
            self._holder = self._heir = 0  # two interrupts left it so, or an heir is gone, or late
        try:
            self._queue.remove(asleep)
        except ValueError as error:  # it was woken
            if not is_raised_by_call(error):
                raise
        if not self._heir and perf_counter_ns() - asked_ns > _OVERTAKEN_NS:
            self._heir = -me

    def _leave(self, me: int) -> None:
        if self._heir == -me:
            self._heir = 0
        if self._holder == -me:
            self._holder = 0
        self._wake()
        for _ in range(len(self._queue) if self._heir else 0):  # whichever of them it is
            self._wake()

    def _wake(self) -> None:
        try:
            asleep = self._queue.popleft()
        except IndexError as error:  # another thread took the last one
            if not is_raised_by_call(error):
                raise
        else:
            asleep.release()
