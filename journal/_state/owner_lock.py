"""OwnerLock: a measured lock for short holds by many threads, without convoys.

Python's lock wakes a waiter by giving it the lock. The waiter then waits for the interpreter while
it *holds* the lock, so that all other threads run into it. After the first thread switch inside a
hold, each hold costs two switches, for as long as the lock is busy (measured: 64 threads do a third
of what 8 do). Here no thread waits for the lock itself. A thread that finds it held waits *beside*
it, and tries again once it runs; a thread that runs meanwhile takes the lock first. A thread that
was overtaken for too long becomes the heir, and the next release leaves the lock to it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from threading import get_ident
from time import perf_counter_ns
from typing import TYPE_CHECKING, TypeVar

from journal._mutex import is_raised_by_call, section_of
from journal._recorder import PENDING_MAX, Recorder
from journal._state.early_collection import EarlyCollection
from journal.errors import InterruptedCallError

if TYPE_CHECKING:
    from journal.metrics import LockStats

A = TypeVar("A")
T = TypeVar("T")

_LOST_WAKE_UP_S = 0.01  # the delay after an interrupt has swallowed a wake-up
_OVERTAKEN_NS = 50_000_000
_CHECK_MASK = 15  # before one hold in 16, what might take long within a hold is done


class OwnerLock:
    """A lock that is not reentrant. It measures every hold, and every wait for it."""

    def __init__(self, is_inside: Callable[[], bool] = bool) -> None:
        """Make a free lock. `is_inside` returns whether this thread holds a lock that comes after
        this one in the lock order. If so, waiting here could deadlock, so InterruptedCallError is
        raised instead.
        """
        self._is_inside = is_inside
        self._lock = threading.Lock()
        self._section = section_of(self._lock)
        # These two only keep other threads away from the lock; the lock itself decides.
        # `_holder` is the id of the thread that holds the lock, or the negated id of the heir to
        # which the lock is left, or 0. `_heir` is the negated id of the heir, or 0.
        self._holder = 0
        self._heir = 0
        # The locks on which waiting threads sleep. Changed only by single atomic operations.
        self._queue: deque[threading.Lock] = deque()
        self._hold_ns = Recorder()
        self._wait_ns = Recorder()
        self._collection = EarlyCollection()

    def run(self, action: Callable[[A], T], argument: A) -> T:
        """Return `action(argument)`, called under the lock. Raises InterruptedCallError if this
        thread holds it already.

        The interpreter switches threads, and runs signal handlers, only at calls and backward
        jumps. There is none between the check of `_holder` and its setting, nor between its
        clearing and the lock's release, so it is set exactly while the lock is held. Without a
        global interpreter lock, or when a finalizer runs in between (possible before 3.12), it is
        set late. Threads then wait for the lock itself, which is slower but still correct, and
        count as threads that did not wait.
        """
        hold_ns, wait_ns = self._hold_ns, self._wait_ns
        if not len(hold_ns.pending) & _CHECK_MASK:
            if len(hold_ns.pending) > PENDING_MAX:
                hold_ns.fold()
                wait_ns.fold()
            self._collection.check()
        me, add_hold, add_wait = get_ident(), hold_ns.add, wait_ns.add
        asked_ns = 0  # a thread that finds the lock free does not read the clock: 90 ns of 630
        try:
            if self._holder:
                asked_ns = perf_counter_ns()
                while self._holder and self._holder != -me:
                    self._wait_in_queue(me, asked_ns)
            with self._section:
                self._holder = me
                try:
                    held_ns = perf_counter_ns()
                    try:
                        return action(argument)
                    finally:
                        add_hold(perf_counter_ns() - held_ns)
                        add_wait(held_ns - asked_ns if asked_ns else 0)
                finally:
                    self._holder = self._heir
        finally:
            if self._queue or self._heir:
                self._leave(me)

    def refuse_inside(self) -> None:
        """Raise InterruptedCallError if this thread holds the lock, so that a callback or a signal
        handler made this call."""
        if self._holder == get_ident() and self._lock.locked():
            raise InterruptedCallError

    def is_held(self) -> bool:
        """Return whether any thread holds the lock."""
        return self._lock.locked()

    def stats(self) -> LockStats:
        """Return the times of all holds and waits so far, in ns."""
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
        # `locked` may switch threads, and a thread that then takes the lock sets another holder.
        # Clearing that one would send all others to the lock itself and begin a convoy.
        if not was_woken and not self._lock.locked() and self._holder == holder:
            self._holder = self._heir = 0  # two interrupts left it so, or the heir is gone or late
        try:
            self._queue.remove(asleep)
        except ValueError as error:  # another thread woke it
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
        for _ in range(len(self._queue) if self._heir else 0):  # the heir may be any of them
            self._wake()

    def _wake(self) -> None:
        try:
            asleep = self._queue.popleft()
        except IndexError as error:  # another thread has taken the last one
            if not is_raised_by_call(error):
                raise
        else:
            asleep.release()
