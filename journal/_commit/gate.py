"""Gate: one a batch. It opens once, and wakes those who wait for that batch and no others.

Threads that wait without a limit pass through a turnstile, one lock that each takes and gives
back: one wake-up a thread, one after the other, and nothing in common with the next batch. A
lock that all would have to take back from a Condition costs a third of the throughput. Those
with a time limit, and event loops, leave behind nothing when they stop waiting. A gate may let
wake all at once instead: see WakePolicy.
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

_FUTURES_PER_TURN = 64  # resolved before the loop gets to run something else


class Gate:
    __slots__ = ("_loops", "_turnstile", "_wakers", "_wakes_all_at_once", "opened")

    def __init__(self, *, wakes_all_at_once: bool = False) -> None:
        self._wakes_all_at_once = wakes_all_at_once
        self._turnstile = threading.Lock()
        self._turnstile.acquire()
        # No lock guards these: a signal handler that interrupted the lock's holder might wait for
        # the thread that opens the gate. A waiter enlists, then checks `opened`; `open` sets it,
        # then wakes those enlisted.
        self.opened = False
        self._wakers: list[threading.Lock] = []
        # The inner dicts are touched in their loop's thread only.
        self._loops: dict[AbstractEventLoop, Waiting] = {}

    def open(self) -> None:
        """Again, after an interrupt: finishes it."""
        self.opened = True
        for lock in (self._turnstile, *self._wakers):
            release(lock)
        for loop in [*self._loops]:
            waiting = self._loops[loop]
            try:
                loop.call_soon_threadsafe(_resolve, loop, waiting)
            except RuntimeError:
                if not loop.is_closed():  # a closed one's waiters are gone with it
                    raise

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until open, at most `timeout_s` seconds. Return whether it is open."""
        if timeout_s is None and not self._wakes_all_at_once:
            # An interrupt can't part taking from giving back in a `with` of a plain lock.
            try:
                with self._turnstile:
                    return True
            except RuntimeError as error:
                if not is_raised_by_call(error):
                    raise
                return True  # the gate was opened once more while this thread passed
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
        """Wait until open, in the running loop."""
        loop = _asyncio().get_running_loop()
        future = loop.create_future()
        waiting = self._loops.setdefault(loop, {})
        waiting[future] = None
        try:
            if not self.opened:
                await future
        finally:
            waiting.pop(future, None)


@cache
def _asyncio() -> ModuleType:
    # At first use: its import takes as long as the engine's own. And an import statement that
    # finds the module there costs a waiter as much as its future.
    import asyncio

    return asyncio


class _LoopPump:
    """Of one loop: lets those go who wait there, a few a turn however many batches they are of,
    so that the loop gets to run something else. Called in the loop's thread only."""

    __slots__ = ("_is_turning", "_opened")

    def __init__(self) -> None:
        self._opened: deque[Waiting] = deque()
        self._is_turning = False  # what is added now waits for the next turn

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
