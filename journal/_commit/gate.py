"""Gate: where threads and event loops wait for one event, mostly for the commit of a batch.

A gate opens once, and wakes only its own waiters. Threads without a time limit pass through a
turnstile: one lock, which each thread takes and releases. That is one wake-up a thread, one after
the other, and the next batch has a lock of its own. With a Condition, all waiters would take the
same lock again, which costs a third of the throughput. Waiters that have a time limit, or wait in
an event loop, leave nothing behind when they stop waiting. A gate can also wake all threads at
once: see WakePolicy.
"""

from __future__ import annotations

import threading
from collections import deque
from functools import cache
from itertools import islice
from types import ModuleType
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from journal._mutex import is_raised_by_call, release

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

    Waiting = dict[Future[None], None]

_FUTURES_PER_TURN = 64  # resolved before the loop may run other tasks


class Gate:
    __slots__ = ("_loops", "_turnstile", "_wakers", "_wakes_all_at_once", "opened")

    def __init__(self, *, wakes_all_at_once: bool = False) -> None:
        self._wakes_all_at_once = wakes_all_at_once
        self._turnstile = threading.Lock()
        self._turnstile.acquire()
        # No lock guards these: a signal handler that interrupted the lock's holder might wait for
        # the thread that opens the gate. A waiter adds itself, then checks `opened`; `open` sets
        # that, then wakes the waiters that were added.
        self.opened = False
        self._wakers: list[threading.Lock] = []
        # Each inner dict is used only in its loop's thread.
        self._loops: dict[AbstractEventLoop, Waiting] = {}

    def open(self) -> None:
        """Open the gate, and wake its waiters. After an interrupt, another call finishes that."""
        self.opened = True
        for lock in (self._turnstile, *self._wakers):
            release(lock)
        for loop in [*self._loops]:
            waiting = self._loops[loop]
            try:
                loop.call_soon_threadsafe(_resolve, loop, waiting)
            except RuntimeError:
                if not loop.is_closed():  # a closed loop has no waiters left
                    raise

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the gate is open, for at most `timeout_s` seconds. Return whether it is."""
        if timeout_s is None and not self._wakes_all_at_once:
            # In a `with` of a plain lock, no interrupt can prevent the release after the acquire.
            try:
                with self._turnstile:
                    return True
            except RuntimeError as error:
                if not is_raised_by_call(error):
                    raise
                return True  # the gate was opened again while this thread passed
        waker = threading.Lock()
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
        loop = _asyncio().get_running_loop()
        future: Future[None] = loop.create_future()
        try:
            self._loops[loop][future] = None
        except KeyError:
            self._loops[loop] = {future: None}
        if self.opened:
            self.forget(future)
            future.set_result(None)
        return future

    def forget(self, future: Future[None]) -> None:
        """Drop the future. The gate may be open by now, and the future resolved."""
        self._loops[future.get_loop()].pop(future, None)


@cache
def _asyncio() -> ModuleType:
    # Imported at first use, because its import takes as long as the engine's own. Cached, because
    # an import statement that finds the module costs a waiter as much as its future.
    import asyncio

    return asyncio


class _LoopPump:
    """Resolves the futures that wait in one event loop, at most `_FUTURES_PER_TURN` a turn.

    This lets the loop run other tasks in between, however many gates open. It is used only in the
    loop's thread.
    """

    __slots__ = ("_is_turning", "_opened")

    def __init__(self) -> None:
        self._opened: deque[Waiting] = deque()
        self._is_turning = False  # the next turn resolves what is added now

    def add(self, loop: AbstractEventLoop, waiting: Waiting) -> None:
        self._opened.append(waiting)
        if not self._is_turning:
            self._turn(loop)

    def _turn(self, loop: AbstractEventLoop) -> None:
        budget, self._is_turning = _FUTURES_PER_TURN, bool(self._opened)
        try:
            while self._opened and budget:
                waiting = self._opened[0]
                for future in list(islice(waiting, budget)):
                    if not future.done():
                        future.set_result(None)
                    del waiting[future]
                    budget -= 1
                if not waiting:
                    self._opened.popleft()
        finally:  # an interrupt must not end the turns: later batches rely on them
            if self._is_turning:
                loop.call_soon(self._turn, loop)


_pumps: WeakKeyDictionary[AbstractEventLoop, _LoopPump] = WeakKeyDictionary()


def open_gates(*gates: Gate | None) -> None:
    for gate in gates:
        if gate is not None:
            gate.open()


def _resolve(loop: AbstractEventLoop, waiting: Waiting) -> None:
    _pumps.setdefault(loop, _LoopPump()).add(loop, waiting)
