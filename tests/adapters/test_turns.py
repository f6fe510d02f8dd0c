"""Turns: the waiters of a commit don't all continue in the same iteration of an event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

import pytest

from journal import Tables
from journal.adapters._commits import durable
from journal.adapters._turns import _Turns, pause, turn
from journal.testing import SimulatedDisk

WAITERS = 5


class Iterations:
    """The number of the running loop's current iteration, in which callbacks run."""

    def __init__(self) -> None:
        self.number = 0
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._count)

    def _count(self) -> None:
        self.number += 1
        self._loop.call_soon(self._count)


async def continued(count: int, wait: Callable[[], Awaitable[None]]) -> list[tuple[int, int]]:
    """Let `count` tasks wait. Return the iteration and the task of each end, in order."""
    iterations, ends = Iterations(), list[tuple[int, int]]()

    async def run(number: int) -> None:
        await wait()
        ends.append((iterations.number, number))

    await asyncio.gather(*map(run, range(count)))
    return ends


def check(ends: list[tuple[int, int]]) -> None:
    """Check that no two tasks continued in the same iteration, and that their order was kept."""
    assert [task for _, task in ends] == list(range(WAITERS))
    assert len({iteration for iteration, _ in ends}) == WAITERS


def test_waiters_continue_in_iterations_of_their_own() -> None:
    """Of tasks that wait for a turn at the same time, one continues in each iteration of the loop,
    in the order in which they came. Another loop of the thread has turns of its own."""
    for _ in range(2):
        check(asyncio.run(continued(WAITERS, turn)))


def test_paused_tasks_continue_later_in_iterations_of_their_own() -> None:
    """A pause lets callbacks run, even if no other task waits, and ends with a turn."""

    async def main() -> None:
        ran: list[bool] = []
        asyncio.get_running_loop().call_soon(ran.append, True)
        await pause()
        assert ran

    asyncio.run(main())
    check(asyncio.run(continued(WAITERS, pause)))


def test_waiters_of_a_commit_take_turns() -> None:
    """Tasks that wait for the same record continue one after the other."""
    with Tables.open("/journal", disk=SimulatedDisk()) as tables:

        async def wait() -> None:
            tables.table("rows")["key"] = None
            await durable(tables, tables.journal.last_lsn)

        check(asyncio.run(continued(WAITERS, wait)))


def test_a_single_waiter_continues_at_once() -> None:
    """A task does not give up control if no other one waits for a turn."""

    async def main() -> None:
        for _ in range(3):
            waiting = turn()
            try:
                waiting.send(None)
            except StopIteration:
                await asyncio.sleep(0)
                continue
            raise AssertionError("the task gave up control")

    asyncio.run(main())


def test_a_cancelled_waiter_gives_its_turn_away() -> None:
    """The waiters after a cancelled one continue."""

    async def main() -> None:
        tasks = [asyncio.create_task(turn()) for _ in range(WAITERS)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        tasks[2].cancel()
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert [isinstance(each, asyncio.CancelledError) for each in done] == [
            False, True, True, False, False,
        ]  # fmt: skip

    asyncio.run(main())


@pytest.mark.parametrize("nth", range(1, 40))
def test_an_interrupt_does_not_end_the_turns(nth: int) -> None:
    """All waiters continue, even if a signal handler raises at any line of the callback that gives
    turns, or as it begins."""

    class HandlerError(Exception):
        pass

    async def main() -> None:
        loop = asyncio.get_running_loop()
        caught: list[object] = []
        loop.set_exception_handler(lambda _, context: caught.append(context["exception"]))
        reached = 0

        def trace(frame: FrameType, *_: object) -> Any:
            nonlocal reached
            if frame.f_code is not _Turns._next.__code__:
                return None
            reached += 1
            if reached == nth:
                raise HandlerError
            return trace

        tasks = [asyncio.create_task(turn()) for _ in range(WAITERS)]
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            await asyncio.wait_for(asyncio.gather(*tasks), 5)
        finally:
            sys.settrace(before)
        assert len(caught) == (reached >= nth)
        assert all(isinstance(each, HandlerError) for each in caught)
        await asyncio.wait_for(asyncio.gather(*(turn() for _ in range(WAITERS))), 5)

    asyncio.run(main())
