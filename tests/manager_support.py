"""What the tests of the manager share."""

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
PATIENT = Options(flush_interval_s=NEVER_S, flush_bytes=1 << 30)  # commits when someone waits
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
    """Who left may leave it to another thread to forget it."""
    watch, fleet = manager._watch, manager._state.machine
    kept = (watch._waiters, watch._ended, watch._readers, watch._idle, watch._leavers, watch.feed)
    until(lambda: fleet.feed is None and not any(kept), "nothing left of those who watched")


def waiting(manager: SubAgentManager) -> int:
    """How many wait for agents that have not ended."""
    return sum(map(len, manager._watch._waiters.values()))


def in_a_thread(manager: SubAgentManager, ref: str) -> Agent:
    return manager.wait_ended(ref, timeout_s=TIMEOUT_S)


def in_a_loop(manager: SubAgentManager, ref: str) -> Agent:
    async def bounded() -> Agent:
        async with asyncio.timeout(TIMEOUT_S):
            return await manager.ended(ref)

    return asyncio.run(bounded())


class CountedLoop(asyncio.SelectorEventLoop):
    """Counts the calls from outside."""

    calls = 0

    def call_soon_threadsafe(self, *args: Any, **options: Any) -> asyncio.Handle:  # type: ignore[override]
        self.calls += 1
        return super().call_soon_threadsafe(*args, **options)


async def some(changes: AsyncIterator[Agent], count: int) -> list[Agent]:
    async with asyncio.timeout(TIMEOUT_S):
        return [await anext(changes) for _ in range(count)]


def ready(changes: Changes) -> list[Agent]:
    """What there is to read without waiting."""

    watch = changes._watch
    assert isinstance(watch, Watch)

    async def read() -> list[Agent]:
        agents = []
        while watch.feed or changes._dirty:
            agents += await some(changes, 1)
        return agents

    return asyncio.run(read())


def update(manager: SubAgentManager, agent: Agent, step: int) -> Agent:
    return manager.update_checkpoint(agent.agent_id, {"at": step}, steps_taken=step)
