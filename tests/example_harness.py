"""A lead with eight parts under it, in one event loop. Kill it at any moment, and run it again."""

import asyncio

from manager import Agent, AgentResult, Changes, Limits, SubAgentManager


async def work(manager: SubAgentManager, part: Agent) -> None:
    begin = manager.resume if part.status == "interrupted" else manager.start
    part = begin(part.agent_id)
    for step in range(part.steps_taken, 5):
        await asyncio.sleep(0.02)  # here an agent would think, and act
        part = manager.update_checkpoint(part.agent_id, {"done": step}, steps_taken=step + 1)
        await manager.durable(part.lsn)  # from now on no crash makes it take this step again
    manager.update_from_result(part.agent_id, AgentResult(f"{part.name} has {part.checkpoint}"))


async def show(changes: Changes) -> None:
    async for agent in changes:
        print(agent.name, agent.status, agent.steps_taken, flush=True)


async def main(workspace: str) -> None:
    with SubAgentManager.open(workspace, limits=Limits(max_running=9)) as manager:
        shown = asyncio.create_task(show(manager.changes(after=0)))
        known = {agent.name: agent for agent in manager.agents(include_archived=True)}
        lead = known.get("lead") or manager.spawn("survey the parts", name="lead")
        if lead.status == "interrupted":
            manager.resume("lead")
        names = [f"part {number}" for number in range(8)]
        async with asyncio.TaskGroup() as group:
            for name in names:
                part = known.get(name)
                part = part or manager.spawn("work", name=name, parent_id="lead", queued=True)
                if part.ended_at_ms is None:
                    group.create_task(work(manager, part))
        results = [(await manager.ended(name)).result or "" for name in names]
        if lead.ended_at_ms is None:
            manager.update_from_result("lead", AgentResult("\n".join(results)))
        print((await manager.ended("lead")).result)
    await shown


asyncio.run(main("."))
