"""Gate: where threads and event loops wait for one event, mostly for the commit of a batch.

A gate opens once, and wakes only its own waiters. Threads without a time limit pass through a
turnstile: a lock, which each thread takes and releases. That is one wake-up a thread, one after the
other, and the next batch has a turnstile of its own. With a Condition, all waiters would take the
same lock again, which costs a third of the throughput. Waiters that have a time limit, or wait in
an event loop, leave nothing behind when they stop waiting. A gate can also wake all threads at
once: see WakePolicy.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import cache
from operator import call
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from journal._mutex import HANDLERS_RUN_AFTER_ENTER, is_raised_by_call, new_lock, release

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

_FUTURES_PER_TURN = 32  # resolved before the loop may run other tasks


Outcome = Callable[[int], "Exception | None"]  # of an LSN, once its gate is open


class _Waiting(list["Future[None]"]):
    """The futures that wait in one event loop.

    Those whose waiters have left are removed when they are half of all, because a removal looks at
    each one.
    """

    __slots__ = ("forgotten",)

    def __init__(self) -> None:
        self.forgotten = 0

    @property
    def size(self) -> int:
        """The number of futures."""
        return len(self)

    def settle(self, begin: int, end: int) -> None:
        """Resolve the futures from `begin` to before `end`. May be repeated."""
        for future in self[begin:end]:
            if not future.done():
                future.set_result(None)


class _Appended(list[Any]):
    """The futures of records that were appended in one event loop, each followed by its LSN. All of
    these are in one batch, so they become durable together, or never.

    Pairs would be objects for the garbage collector, which then stops the loop for some ms.
    """

    __slots__ = ("_outcome",)

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    @property
    def size(self) -> int:
        """The number of futures."""
        return len(self) // 2

    def settle(self, begin: int, end: int) -> None:
        """Resolve the futures from `begin` to before `end`. May be repeated."""
        futures, lsns = self[2 * begin : 2 * end : 2], self[2 * begin + 1 : 2 * end : 2]
        have_failed = self._outcome(lsns[0]) is not None
        for future, lsn in zip(futures, lsns, strict=True):
            if future.done():
                continue
            error = self._outcome(lsn) if have_failed else None  # each has its own traceback
            if error is None:
                future.set_result(lsn)
            else:
                future.set_exception(error)


class Gate:
    __slots__ = (
        "_appends",
        "_loops",
        "_turnstile",
        "_wakers",
        "_wakes_all_at_once",
        "opened",
    )

    def __init__(self, *, wakes_all_at_once: bool = False) -> None:
        self._wakes_all_at_once = wakes_all_at_once
        self._turnstile = new_lock()
        self._turnstile.acquire()
        # No lock guards these: a signal handler that interrupted the lock's holder might wait for
        # the thread that opens the gate. A waiter adds itself, then checks `opened`; `open` sets
        # that, then wakes the waiters that were added.
        self.opened = False
        self._wakers: list[threading.Lock] = []
        # Each list is used only in its loop's thread.
        self._loops: dict[AbstractEventLoop, _Waiting] = {}
        self._appends: dict[AbstractEventLoop, _Appended] = {}

    def open(self) -> None:
        """Open the gate, and wake its waiters. After an interrupt, another call finishes that."""
        self.opened = True
        release(self._turnstile)
        if self._wakers or self._loops or self._appends:
            self._wake_others()

    def _wake_others(self) -> None:
        for lock in tuple(self._wakers):
            release(lock)
        lists: list[tuple[AbstractEventLoop, _Waiting | _Appended]]
        lists = [*self._loops.items(), *self._appends.items()]
        for loop, waiting in lists:
            try:
                loop.call_soon_threadsafe(_resolve, loop, waiting)
            except RuntimeError:
                if not loop.is_closed():  # a closed loop has no waiters left
                    raise

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the gate is open, for at most `timeout_s` seconds. Return whether it is."""
        if timeout_s is None and not self._wakes_all_at_once:
            # No interrupt can prevent the release after the acquire: neither in a `with` of a plain
            # lock, nor in one call of C functions.
            try:
                if HANDLERS_RUN_AFTER_ENTER:
                    passage: Any = self._turnstile.acquire, self._turnstile.release
                    deque(map(call, passage), maxlen=0)
                    return True
                with self._turnstile:
                    return True
            except RuntimeError as error:
                if not is_raised_by_call(error):
                    raise
                return True  # the gate was opened again while this thread passed
        waker = new_lock()
        waker.acquire()
        self._wakers.append(waker)
        try:
            if self.opened:
                return True
            limit_s = -1 if timeout_s is None else min(max(timeout_s, 0), threading.TIMEOUT_MAX)
            return waker.acquire(timeout=limit_s)
        finally:
            self._wakers.remove(waker)

    async def passed(self) -> None:
        """Wait in the running event loop until the gate is open."""
        future = self.future()
        try:
            await future
        except BaseException:
            self.forget(future)
            raise

    def future(self) -> Future[None]:
        """Return a future of the running event loop that is resolved when the gate is open. A
        caller that stops waiting for it has to `forget` it."""
        loop = running_loop()
        future: Future[None] = loop.create_future()
        waiting = self._loops.get(loop)
        if waiting is None:
            waiting = self._loops[loop] = _Waiting()
        waiting.append(future)
        if self.opened:
            future.set_result(None)
        return future

    def future_of(self, lsn: int, outcome: Outcome, loop: AbstractEventLoop) -> Future[int]:
        """Return a future of the running event loop. When the gate is open, it raises the error
        that `outcome` returns for `lsn`, or else its result is `lsn`."""
        future: Future[int] = loop.create_future()
        appended = self._appends.get(loop)
        if appended is None:
            appended = self._appends[loop] = _Appended(outcome)
        appended += future, lsn  # one operation, amid which no interrupt can strike
        if self.opened:
            appended.settle(appended.size - 1, appended.size)
        return future

    def forget(self, future: Future[None]) -> None:
        """Drop the future. The gate may be open by now, and the future resolved."""
        waiting = self._loops[future.get_loop()]
        waiting.forgotten += 1
        # When the gate is open, the pump counts on the places of the others.
        if waiting.forgotten * 2 >= len(waiting) and not self.opened:
            waiting[:] = [each for each in waiting if each is not future and not each.done()]
            waiting.forgotten = 0


@cache
def _get_running_loop() -> Callable[[], AbstractEventLoop]:
    # Imported at first use, because its import takes as long as the engine's own. Cached, because
    # an import statement that finds the module costs a waiter as much as its future.
    from asyncio import get_running_loop

    return get_running_loop


def running_loop() -> AbstractEventLoop:
    """Return the event loop that runs in this thread. Raises RuntimeError if none does."""
    return _get_running_loop()()


class _LoopPump:
    """Resolves the futures that wait in one event loop, at most `_FUTURES_PER_TURN` a turn.

    This lets the loop run other tasks in between, however many gates open. It is used only in the
    loop's thread.
    """

    __slots__ = ("_is_turning", "_opened", "_settled")

    def __init__(self) -> None:
        self._opened: deque[_Waiting | _Appended] = deque()
        self._settled = 0  # futures of the first of these
        self._is_turning = False  # the next turn resolves what is added now

    def add(self, loop: AbstractEventLoop, waiting: _Waiting | _Appended) -> None:
        self._opened.append(waiting)
        if not self._is_turning:
            self._turn(loop)

    def _turn(self, loop: AbstractEventLoop) -> None:
        budget, self._is_turning = _FUTURES_PER_TURN, bool(self._opened)
        try:
            while self._opened and budget:
                waiting, begin = self._opened[0], self._settled
                end = min(begin + budget, waiting.size)
                if begin < end:
                    waiting.settle(begin, end)
                    budget -= end - begin
                    self._settled = end
                if end >= waiting.size:
                    self._settled = 0  # first: an interrupt may strike before the next line
                    self._opened.popleft()
        finally:  # an interrupt must not end the turns: later batches rely on them
            if self._is_turning:
                loop.call_soon(self._turn, loop)


_pumps: WeakKeyDictionary[AbstractEventLoop, _LoopPump] = WeakKeyDictionary()


def open_gates(*gates: Gate | None) -> None:
    for gate in gates:
        if gate is not None:
            gate.open()


def _resolve(loop: AbstractEventLoop, waiting: _Waiting | _Appended) -> None:
    _pumps.setdefault(loop, _LoopPump()).add(loop, waiting)
