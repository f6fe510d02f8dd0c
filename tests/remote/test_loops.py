"""Agents whose code runs in threads and event loops of its own, beside the worker's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import pytest

from manager import TransitionError, WorkContext
from tests.remote.fleets import World, queue, run
from tests.remote.network import holding_time
from tests.support import TIMEOUT_S

T = TypeVar("T")


async def elsewhere(work: Callable[[], Awaitable[T]]) -> T:
    """Return the result of `work`, which runs in an event loop of a thread of its own."""

    async def limited() -> T:
        async with asyncio.timeout(TIMEOUT_S):
            return await work()

    # The end of the loop waits for its own executor by the virtual clock, which would jump.
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, asyncio.run, limited())


def test_another_event_loop_reports_as_the_worker_s_does() -> None:
    """Checkpoints and progress that come from another event loop are recorded in order."""

    async def work(context: WorkContext) -> str:
        async def report() -> str:
            for number in range(3):
                await context.progress(f"{number}")
                agent = await context.checkpoint(number)
                assert (agent.checkpoint, agent.steps_taken) == (number, number + 1)
            await context.progress("last")
            return "done"

        with holding_time():
            return await elsewhere(report)

    async def body(world: World) -> None:
        world.work({"t": work})
        queue(world, "a")
        agent = await world.ended("a", 10)
        assert (agent.result, agent.checkpoint, agent.steps_taken) == ("done", 2, 3)
        assert agent.progress is not None
        assert (agent.progress["text"], agent.progress["number"]) == ("last", 4)

    run(body)


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_thread_that_outlives_its_agent_or_worker_does_not_wait_forever(has_ended: bool) -> None:
    """A report from the thread of an agent that has ended, or that a worker without a manager has
    left, fails instead of waiting for an answer that nobody will give."""
    begin = threading.Event()
    late: list[asyncio.Task[None]] = []

    async def work(context: WorkContext) -> str:
        async def report() -> None:
            assert await asyncio.to_thread(begin.wait, TIMEOUT_S)
            with pytest.raises(TransitionError, match="no longer run here"):
                await context.checkpoint("late")

        late.append(asyncio.create_task(elsewhere(report)))
        if not has_ended:
            await asyncio.sleep(1e9)
        return "done"

    async def body(world: World) -> None:
        worker = world.work({"t": work})
        queue(world, "a")
        while not late or (has_ended and world.manager.get("a").ended_at_ms is None):
            await asyncio.sleep(0)
        await asyncio.sleep(1)  # the worker has heard that the result is recorded
        await world.kill_manager()
        task = world.task_of(worker)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        begin.set()
        with holding_time():
            await late[0]
        await world.open()

    run(body)
