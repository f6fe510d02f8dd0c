"""A lead agent and twenty agents under it, of which eight run at a time.

    python harness.py

Kill it at any moment and start it again. It continues where it was, and repeats no step that it has
printed. Its state is in `.subagents`; `subagents list` and `journal-inspect report .subagents` show
it, also while the program runs. To begin anew, remove that directory.
"""

from __future__ import annotations

import asyncio
import sys

from manager import Agent, AgentResult, Limits, SubAgentManager, UnknownAgentError

PARTS = [f"part {number}" for number in range(20)]
STEPS = 5
RUNNING_MAX = 8


def begin(manager: SubAgentManager, name: str, parent_id: str | None = None) -> Agent:
    """Return the agent, and let it run unless it has ended in an earlier run."""
    try:
        agent = manager.get(name)
    except UnknownAgentError:
        return manager.spawn("survey", name=name, parent_id=parent_id)
    return manager.resume(name) if agent.status == "interrupted" else agent


async def work(manager: SubAgentManager, name: str, places: asyncio.Semaphore) -> str:
    """Run one agent to its end, and return its result."""
    async with places:  # the manager refuses the eleventh running agent; it does not wait
        agent = begin(manager, name, "lead")
        for step in range(agent.steps_taken, STEPS):
            await asyncio.sleep(0.01)  # a real agent would think and act here
            agent = manager.update_checkpoint(name, {"done": step}, steps_taken=step + 1)
            await manager.durable(agent.lsn)
            print(f"{name}: step {step} is done", flush=True)
        if agent.status == "running":
            manager.update_from_result(name, AgentResult(f"{name} has {agent.checkpoint}"))
        ended = await manager.ended(name)  # returns when the end is durable
    return ended.result or f"{name} {ended.status}: {ended.reason}"


async def main() -> None:
    limits = Limits(max_running=RUNNING_MAX + 1)  # the lead runs, too
    async with SubAgentManager.aopen(".", limits=limits) as manager:
        lead = begin(manager, "lead")
        places = asyncio.Semaphore(RUNNING_MAX)
        results = await asyncio.gather(*(work(manager, name, places) for name in PARTS))
        if lead.status == "running":
            manager.update_from_result("lead", AgentResult("\n".join(results)))
        print((await manager.ended("lead")).result)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
