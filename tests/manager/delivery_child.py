"""A parent that takes the results of its children, to be killed at any moment.

It prints a line before each of its steps, so that the test can kill it between any two of them.
"""

from __future__ import annotations

import asyncio
import sys

from manager import AgentResult, SubAgentManager, WorkContext, run_workers

PARTS = int(sys.argv[1])


def say(what: str) -> None:
    print(what, flush=True)


async def part(context: WorkContext) -> AgentResult:
    say(f"end {context.agent.name}")
    return AgentResult(context.agent.name)


async def lead(context: WorkContext) -> str:
    manager, took = context.manager, context.agent.checkpoint or []
    for number in range(PARTS):
        manager.find_or_spawn(
            "p", name=f"part {number}", agent_type="part", parent_id="lead", queued=True
        )
    async for child in manager.results("lead"):
        say(f"got {child.name}")
        took = [*took, child.result]
        taken = manager.take(child.agent_id, by="lead", checkpoint=took)
        say(f"took {child.name}")
        await manager.durable(taken.lsn)
        say(f"durable {child.name}")
    return " ".join(took)


async def main() -> None:
    async with SubAgentManager.aopen(".") as manager:
        manager.find_or_spawn("p", name="lead", agent_type="lead", queued=True)
        await run_workers(manager, {"lead": lead, "part": part})


if __name__ == "__main__":
    asyncio.run(main())
