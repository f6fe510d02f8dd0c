"""Waking: how the calls that wait for an agent's end are woken, in threads and event loops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING

from manager.agent import Row
from manager.changes import A_TURN

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

    Futures = dict[Future[None], None]


class Waiter:
    """One call that waits. `row` is the agent as it ended, None while it has not."""

    __slots__ = ("agent_id", "future", "group", "lock", "row")

    def __init__(self, future: Future[None] | None = None) -> None:
        self.future = future  # None: a thread, which waits for the lock
        self.lock = threading.Lock()
        self.lock.acquire()
        self.agent_id = ""
        self.group: Group = {}
        self.row: Row | None = None


Group = dict[Waiter, None]  # those who wait for one agent


def wake(groups: Iterable[tuple[Row | None, Group]]) -> None:
    loops: dict[AbstractEventLoop, Futures] = {}
    for row, group in groups:
        for waiter in group:
            waiter.row = row
            if waiter.future is not None:
                loops.setdefault(waiter.future.get_loop(), {})[waiter.future] = None
            else:
                if waiter.lock.locked():  # else it was woken before an interrupt
                    waiter.lock.release()
    for loop, futures in loops.items():
        call_in_loop(loop, resolve, loop, futures)


def call_in_loop(
    loop: AbstractEventLoop, callback: Callable[..., None], *arguments: object
) -> None:
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        if not loop.is_closed():  # a closed one's waiters are gone with it
            raise


def resolve(loop: AbstractEventLoop, futures: Futures) -> None:
    try:
        for future in list(islice(futures, A_TURN)):
            if not future.done():
                future.set_result(None)
            del futures[future]
    finally:  # an interrupt must not end the turns: nobody else would wake the rest
        if futures:
            loop.call_soon(resolve, loop, futures)
