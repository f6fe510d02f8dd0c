"""Turns: the waiters of a commit continue one after the other, so that an event loop stays
responsive.

A commit wakes everything that waits for it in one iteration of the loop. If each of 32 coroutines
then computes for 5 ms, a timer is late by 160 ms. With turns, it is late by the work of a few.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque


class _Turns:
    """The coroutines of one event loop that wait for their turn. Only its thread uses them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._is_taken = False  # True if a caller has continued in this iteration of the loop
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._has_run = False  # True between a call of `_next` and the `_repeat` after it

    async def wait(self) -> None:
        if self._is_taken:
            waiter = self.loop.create_future()
            self._waiting.append(waiter)
            await waiter
        else:
            self._schedule()  # first, because an interrupt may strike
            self._is_taken = True

    def _schedule(self) -> None:
        """Call `_next` in the next iteration, and again if an interrupt ends it too early."""
        self.loop.call_soon(self._next)
        self.loop.call_soon(self._repeat)

    def _repeat(self) -> None:
        if not self._has_run:
            self._next()
        self._has_run = False

    def _next(self) -> None:
        """Let the next waiter continue in the next iteration. Cancelled ones are passed over."""
        self._is_taken = bool(self._waiting)
        if self._is_taken:
            self._schedule()  # first: an interrupt must not end the turns
        self._has_run = True
        is_given = False
        while self._waiting and not is_given:
            waiter = self._waiting[0]
            if not waiter.done():
                waiter.set_result(None)
                is_given = True
            self._waiting.popleft()


class _OfThread(threading.local):
    turns: _Turns | None = None


_of_thread = _OfThread()


async def turn() -> None:
    """Wait for an iteration of the running event loop in which no other caller continues."""
    loop, turns = asyncio.get_running_loop(), _of_thread.turns
    if turns is None or turns.loop is not loop:
        turns = _of_thread.turns = _Turns(loop)
    await turns.wait()


async def pause() -> None:
    """Let the event loop run, and wait for a turn to continue."""
    await asyncio.sleep(0)
    await turn()
