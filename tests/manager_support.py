"""Helpers that the tests of the manager share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from journal import Options
from manager import Agent, AgentResult, Changes, Limits, SubAgentManager
from manager.agent import Status
from manager.watch import Watch
from tests.support import NEVER_S, TIMEOUT_S, until

MANY = Limits(max_running=10**6, max_admitted=10**6)
PATIENT = Options(flush_interval_s=NEVER_S, flush_bytes=1 << 30)  # commits only for a waiter
DONE = AgentResult("done")

ROOMY = Limits(max_running=1000, max_admitted=1000)


def agent_that_is(manager: SubAgentManager, status: Status, **options: Any) -> Agent:
    agent = manager.spawn("work", queued=status == "queued", **options)
    match status:
        case "queued" | "running":
            return agent
        case "interrupted":
            return manager.interrupt(agent.agent_id, "a reason", checkpoint=[1], needs_input="?")
        case "cancelled":
            return manager.cancel(agent.agent_id)
    return manager.update_from_result(agent.agent_id, AgentResult("out", status=status))


def ids(agents: Iterable[Agent]) -> set[str]:
    return {agent.agent_id for agent in agents}


def assert_nobody_watches(manager: SubAgentManager) -> None:
    """Wait until the watch holds nothing.

    A caller that leaves may hand its cleaning up to another thread.
    """
    watch, fleet = manager._watch, manager._state.machine
    contents = (
        watch._waiters,
        watch._ended,
        watch._readers,
        watch._idle,
        watch._leavers,
        watch.feed,
    )
    until(lambda: fleet.feed is None and not any(contents), "a watch without waiters and readers")


def waiter_count(manager: SubAgentManager) -> int:
    """Return the number of waiters for agents that have not ended."""
    return sum(map(len, manager._watch._waiters.values()))


def wait_in_a_thread(manager: SubAgentManager, ref: str) -> Agent:
    return manager.wait_ended(ref, timeout_s=TIMEOUT_S)


def wait_in_a_loop(manager: SubAgentManager, ref: str) -> Agent:
    return asyncio.run(asyncio.wait_for(manager.ended(ref), TIMEOUT_S))


class CountedLoop(asyncio.SelectorEventLoop):
    """An event loop that counts the calls from other threads."""

    calls = 0

    def call_soon_threadsafe(self, *args: Any, **options: Any) -> asyncio.Handle:  # type: ignore[override]
        self.calls += 1
        return super().call_soon_threadsafe(*args, **options)


async def take(changes: AsyncIterator[Agent], count: int) -> list[Agent]:
    async with asyncio.timeout(TIMEOUT_S):
        return [await anext(changes) for _ in range(count)]


def take_ready(changes: Changes) -> list[Agent]:
    """Return the agents that can be read without waiting."""

    watch = changes._watch
    assert isinstance(watch, Watch)

    async def read() -> list[Agent]:
        agents = []
        while watch.feed or changes._dirty:
            agents += await take(changes, 1)
        return agents

    return asyncio.run(read())


def update(manager: SubAgentManager, agent: Agent, step: int) -> Agent:
    return manager.update_checkpoint(agent.agent_id, {"at": step}, steps_taken=step)
