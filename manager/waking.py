"""Waking: wakes the waiters for agents' ends, in threads and in event loops."""

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
    """One call that waits for an agent's end. `row` is the ended agent's row, None before."""

    __slots__ = ("future", "group", "key", "lock", "row")

    def __init__(self, future: Future[None] | None = None) -> None:
        self.future = future  # None for a thread, which waits by acquiring the lock a second time
        self.lock = threading.Lock()
        self.lock.acquire()
        self.key: Key | None = None
        self.group: Group = {}
        self.row: Row | None = None


Group = dict[Waiter, None]  # the waiters for one key
# The event that waiters wait for: the end of the agent with this id, the end of any child of the
# agent (id,), or a free place to run.
Key = str | tuple[str | None]
PLACE: Key = ""


def wake(groups: Iterable[tuple[Row | None, Group]]) -> None:
    """Wake the waiters of each group, and set their `row` to the group's."""
    loops: dict[AbstractEventLoop, Futures] = {}
    for row, group in groups:
        for waiter in group:
            waiter.row = row
            if waiter.future is not None:
                loops.setdefault(waiter.future.get_loop(), {})[waiter.future] = None
            else:
                if waiter.lock.locked():  # else an earlier, interrupted call woke it already
                    waiter.lock.release()
    for loop, futures in loops.items():
        call_in_loop(loop, resolve, loop, futures)


def call_in_loop(
    loop: AbstractEventLoop, callback: Callable[..., None], *arguments: object
) -> None:
    """Call `callback` in the thread of `loop`, unless the loop is closed."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        if not loop.is_closed():  # a closed loop has no waiters any more
            raise


def resolve(loop: AbstractEventLoop, futures: Futures) -> None:
    """Resolve `futures`, at most `A_TURN` in each iteration of the loop."""
    try:
        for future in list(islice(futures, A_TURN)):
            if not future.done():
                future.set_result(None)
            del futures[future]
    finally:  # after an interrupt too, because nothing else would resolve the rest
        if futures:
            loop.call_soon(resolve, loop, futures)
