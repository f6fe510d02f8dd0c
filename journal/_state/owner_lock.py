"""OwnerLock: a measured lock for short holds by many threads, without convoys.

Python's lock wakes a waiter by giving it the lock. The waiter then waits for the interpreter while
it *holds* the lock, so that all other threads run into it. After the first thread switch inside a
hold, each hold costs two switches, for as long as the lock is busy (measured: 64 threads do a third
of what 8 do). Here no thread waits for the lock itself. A thread that finds it held waits *beside*
it, and tries again once it runs; a thread that runs meanwhile takes the lock first. The thread that
has waited longest becomes the heir after 10 ms, or later if many wait, and the next release leaves
the lock to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock, get_ident
from typing import TYPE_CHECKING, TypeVar

from journal._mutex import (
    HANDLERS_RUN_AFTER_ENTER,
    HandlerSafeLock,
    is_raised_by_call,
    new_lock,
    release,
    section_of,
)
from journal._recorder import PENDING_MAX, Recorder
from journal._state.early_collection import EarlyCollection
from journal._time import perf_counter_ns
from journal.errors import InterruptedCallError

if TYPE_CHECKING:
    from journal.metrics import LockStats

A = TypeVar("A")
T = TypeVar("T")

_LOST_WAKE_UP_S = 0.01  # the delay after an interrupt has swallowed a wake-up
# The wait after which a thread may become the heir. While threads sleep, computing ones get their
# turns of the interpreter: beside two of these, 8 threads that never wait make half of the updates
# with 2 ms, and two thirds with 10.
_OVERTAKEN_NS = 10_000_000
# The time between two heirs, for each pair of waiting threads. While the lock is left to an heir,
# the others go to sleep one after the other: without a break, 64 threads would do half as much.
_BETWEEN_HEIRS_NS = 20_000
_BETWEEN_HEIRS_MAX_NS = 100_000_000  # most of the threads may soon be gone
_CHECK_MASK = 15  # before one hold in 16, what might take long within a hold is done


class OwnerLock:
    """A lock that is not reentrant. It measures every hold, and every wait for it."""

    def __init__(self, is_inside: Callable[[], bool] = bool) -> None:
        """Make a free lock. `is_inside` returns whether this thread holds a lock that comes after
        this one in the lock order. If so, waiting here could deadlock, so InterruptedCallError is
        raised instead.
        """
        self._is_inside = is_inside
        self._lock = HandlerSafeLock() if HANDLERS_RUN_AFTER_ENTER else new_lock()
        self._section = section_of(self._lock)
        # These two only keep other threads away from the lock; the lock itself decides.
        # `_holder` is the id of the thread that holds the lock, or the negated id of the heir to
        # which the lock is left, or 0. `_heir` is the negated id of the heir, or 0.
        self._holder = 0
        self._heir = 0
        # These two are changed only by single atomic operations: the ids of sleeping threads with
        # the locks on which they sleep, and when each waiting thread has asked for the lock, by its
        # id. A thread that was woken waits on until it runs.
        self._queue: deque[tuple[int, Lock]] = deque()
        self._waiting: dict[int, int] = {}
        self._next_heir_ns = 0  # the time until which no heir is chosen
        self._hold_ns = Recorder()
        self._wait_ns = Recorder()
        self._collection = EarlyCollection()

    def run(self, action: Callable[[A], T], argument: A) -> T:
        """Return `action(argument)`, called under the lock. Raises InterruptedCallError if this
        thread holds it already.

        The interpreter switches threads, and runs signal handlers, only at calls and backward
        jumps. There is none between the check of `_holder` and its setting, nor between its
        clearing and the lock's release, so it is set exactly while the lock is held. It is set late
        without a global interpreter lock, if a finalizer runs in between (possible before 3.12),
        and if threads switch after `__enter__` (possible in 3.14). Threads then wait for the lock
        itself, which is slower but still correct, and count as threads that did not wait.
        """
        hold_ns, wait_ns = self._hold_ns, self._wait_ns
        if not len(hold_ns.pending) & _CHECK_MASK:
            if len(hold_ns.pending) > PENDING_MAX:
                hold_ns.fold()
                wait_ns.fold()
            self._collection.check()
        me, add_hold, add_wait = get_ident(), hold_ns.add, wait_ns.add
        # A thread that finds the lock free does not read the clock before: 90 ns of 630.
        asked_ns = ended_ns = 0
        try:
            if self._holder:
                asked_ns = perf_counter_ns()
                while self._holder and self._holder != -me:
                    self._waiting[me] = asked_ns
                    self._wait_in_queue(me)
            with self._section:
                self._holder = me
                try:
                    held_ns = perf_counter_ns()
                    try:
                        return action(argument)
                    finally:
                        ended_ns = perf_counter_ns()
                        add_hold(ended_ns - held_ns)
                        add_wait(held_ns - asked_ns if asked_ns else 0)
                finally:
                    self._holder = self._heir
        finally:
            if asked_ns:
                self._waiting.pop(me, None)
            if self._waiting and ended_ns > self._next_heir_ns:
                self._choose_heir(me, ended_ns)
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

    def _wait_in_queue(self, me: int) -> None:
        self.refuse_inside()
        if self._is_inside():
            raise InterruptedCallError
        asleep = new_lock()
        asleep.acquire()
        sleeper = me, asleep
        self._queue.append(sleeper)
        was_woken = not self._holder or asleep.acquire(timeout=_LOST_WAKE_UP_S)
        holder = self._holder
        # `locked` may switch threads, and a thread that then takes the lock sets another holder.
        # Clearing that one would send all others to the lock itself and begin a convoy.
        if not was_woken and not self._lock.locked() and self._holder == holder:
            self._holder = self._heir = 0  # two interrupts left it so, or the heir is gone or late
        try:
            self._queue.remove(sleeper)
        except ValueError as error:  # another thread woke it
            if not is_raised_by_call(error):
                raise

    def _leave(self, me: int) -> None:
        if self._heir == -me:
            self._heir = 0
        if self._holder == -me:
            self._holder = 0
        if self._heir:
            for thread_id, asleep in tuple(self._queue):
                if thread_id == -self._heir:
                    release(asleep)
        else:
            self._wake()

    def _choose_heir(self, me: int, now_ns: int) -> None:
        """Make the thread that has waited longest the heir, if it has waited for long."""
        if self._heir and self._heir != -me:
            return
        waiting = self._waiting.copy()
        break_ns = min(len(waiting) ** 2 * _BETWEEN_HEIRS_NS, _BETWEEN_HEIRS_MAX_NS)
        self._next_heir_ns = now_ns + break_ns
        first = min(waiting, key=waiting.__getitem__, default=0)
        if first and now_ns - waiting[first] > _OVERTAKEN_NS:
            # An interrupt may have kept it from removing itself, so it is chosen only once.
            self._waiting.pop(first, None)
            self._heir = -first

    def _wake(self) -> None:
        try:
            _, asleep = self._queue.popleft()
        except IndexError as error:  # another thread has taken the last one
            if not is_raised_by_call(error):
                raise
        else:
            release(asleep)  # it may have been woken as the heir
