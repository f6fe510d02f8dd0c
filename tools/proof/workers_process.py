"""A process of `python tools/proof workers`: a manager or a worker, until it is killed.

A worker appends lines to a file, each before or after one step of an agent: `begun`, `kept` once
the manager has acknowledged the agent's checkpoint, and `made` before it returns its result. Each
names the agent and its lease.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from manager import (
    AgentResult,
    Dispatcher,
    DispatchError,
    Limits,
    SubAgentManager,
    WorkContext,
    serve,
)

T = TypeVar("T")
ENOUGH = 10**6
TASK, PARENT = "task", "parent"
LIMITS = Limits(max_running=ENOUGH, max_admitted=ENOUGH, keep_ended_s=None, keep_ended_max=None)
_PAUSE_S = 0.2


def task_name(parent: int, number: int) -> str:
    return f"task-{parent}-{number}"


def result_of(name: str, epoch: int, lsn: int) -> str:
    """Return the result of a task that ran with a lease."""
    return f"{name} by {epoch}.{lsn}"


async def manage(state: str, url: str, lease_s: str, parents: str, tasks: str) -> None:
    """Spawn the parents and their tasks that do not exist yet, and wait until all have ended.

    The tasks of the last parent are spawned once the file `last` is in the directory. The file
    `serving` gets the id of the process once workers are served.
    """
    async with (
        SubAgentManager.aopen(state, limits=LIMITS) as manager,
        await _until_connected(
            lambda: asyncio.to_thread(
                Dispatcher.open, url, manager, lease_s=float(lease_s), attempts_max=ENOUGH
            )
        ),
    ):
        (Path(state) / "serving").write_text(str(os.getpid()))
        for number in range(int(parents)):
            while number == int(parents) - 1 and not (Path(state) / "last").exists():
                await asyncio.sleep(_PAUSE_S)
            _begin(manager, number, int(tasks))
        for number in range(int(parents)):
            await _finish(manager, number, int(tasks))
        await manager.durable()


def _begin(manager: SubAgentManager, number: int, tasks: int) -> None:
    parent = manager.find_or_spawn("plan", name=f"parent-{number}", agent_type=PARENT)
    if parent.status == "completed":
        return
    if parent.status == "interrupted":
        manager.resume(parent.agent_id)
    for task in range(tasks):
        manager.find_or_spawn(
            "work",
            name=task_name(number, task),
            agent_type=TASK,
            parent_id=parent.agent_id,
            queued=True,
        )


async def _finish(manager: SubAgentManager, number: int, tasks: int) -> None:
    for task in range(tasks):
        await manager.ended(task_name(number, task))
    if manager.get(f"parent-{number}").status == "running":
        manager.update_from_result(f"parent-{number}", AgentResult(f"{tasks} tasks"))


async def work(log: str, url: str, name: str, slots: str, work_s: str) -> None:
    """Run tasks, each of which checkpoints once and takes up to twice `work_s` seconds."""
    lines = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def run(context: WorkContext) -> str:
        agent, lease = context.agent, context.agent.lease
        assert lease is not None
        epoch, lsn = lease["epoch"], lease["lsn"]

        def note(event: str) -> None:
            # The line is written at once and whole, as POSIX demands of files that append.
            os.write(lines, f"{event} {agent.name} {epoch} {lsn}\n".encode())

        note("begun")
        if agent.checkpoint is None:
            await context.checkpoint([epoch, lsn])
            note("kept")
        await context.progress("half")
        await asyncio.sleep(random.Random(agent.name).random() * 2 * float(work_s))
        note("made")
        return result_of(agent.name, epoch, lsn)

    await _until_connected(lambda: serve(url, {TASK: run}, slots=int(slots), name=name))


async def _until_connected(connect: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await connect()
        except DispatchError as error:  # no server can be reached
            print(error, file=sys.stderr)
            await asyncio.sleep(_PAUSE_S)


if __name__ == "__main__":
    _, role, *arguments = sys.argv
    asyncio.run({"manager": manage, "worker": work}[role](*arguments))
