"""A lead agent and twenty agents under it, of which eight run at a time.

    python harness.py

Kill it at any moment and start it again. It continues where it was, and repeats no step that it has
printed. Its state is in `.subagents`; `subagents list` and `journal-inspect report .subagents` show
it, even while the program runs. To begin anew, remove that directory.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress

from journal import JournalError
from manager import Limits, SubAgentManager, WorkContext, run_workers

PARTS = [f"part {number}" for number in range(20)]
STEPS = 5
RUNNING_MAX = 8


async def part(context: WorkContext) -> str:
    """Take the steps of one part that were not taken yet."""
    agent = context.agent
    for step in range(agent.steps_taken, STEPS):
        await asyncio.sleep(0.01)  # a real agent would think and act here
        agent = await context.checkpoint({"done": step})
        with suppress(OSError):  # any exception would end the agent, even one about the output
            print(f"{agent.name}: step {step} is done", flush=True)
    return f"{agent.name} has {agent.checkpoint}"


async def lead(context: WorkContext) -> str:
    """Spawn the parts that do not exist yet, and take the result of each once."""
    manager, reports = context.manager, context.agent.checkpoint or {}
    for name in PARTS:
        manager.find_or_spawn("survey", name=name, agent_type="part", parent_id="lead", queued=True)
    async for child in manager.results("lead"):
        reports[child.name] = child.result or f"{child.name} {child.status}: {child.reason}"
        manager.take(child.agent_id, by="lead", checkpoint=reports)
    return "\n".join(reports[name] for name in PARTS)


async def main() -> None:
    limits = Limits(max_running=RUNNING_MAX + 1)  # the lead runs, too
    async with SubAgentManager.aopen(".", limits=limits) as manager:
        manager.find_or_spawn("survey all parts", name="lead", agent_type="lead", queued=True)
        await run_workers(manager, {"lead": lead, "part": part})
        agent = manager.get("lead")
        if agent.status != "completed":
            sys.exit(f"the lead is {agent.status}: {agent.reason}")
        print((await manager.ended("lead")).result)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end if nobody reads the output
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (JournalError, OSError) as error:
        sys.exit(f"stopped: {error}")
