"""Admission: finds the agent of each task in the state, or spawns one."""

from __future__ import annotations

from collections.abc import Iterable

from manager._run.report import RunReport
from manager._run.tasks import AGENT_TYPE, Task, argv_of, parents_first
from manager.agent import LIVE, Agent
from manager.errors import NameInUseError, TasksError
from manager.manager import SubAgentManager


def admit(manager: SubAgentManager, tasks: list[Task] | None, *, retry_failed: bool) -> RunReport:
    """Find the agent of each task in the state, or spawn a queued one. Return a report of them."""
    known = newest_agents(manager.agents(include_archived=True))
    if tasks is None:
        report = RunReport()
        for agent in known.values():
            again = retry_failed and agent.status == "failed"
            report.put(_spawn_again(manager, agent) if again else agent)
        return report
    admitted: dict[str, Agent] = {}
    ids: dict[str, str] = {}
    edited: list[str] = []
    for task in parents_first(tasks):
        parent_id = None if task.parent is None else ids[task.parent]
        earlier = known.pop(task.key, None)
        if earlier is not None and earlier.status == "completed" and is_edited(task, earlier):
            edited.append(earlier.name)
        agent = _admit(manager, task, earlier, parent_id, retry_failed)
        admitted[task.key] = agent
        if task.name is not None:
            ids[task.name] = agent.agent_id
    others = sum(agent.status in LIVE for agent in known.values())
    report = RunReport(others=others, edited=tuple(edited))
    for task in tasks:
        report.put(admitted[task.key])
    return report


def newest_agents(agents: Iterable[Agent]) -> dict[str, Agent]:
    """Return the newest agent of each task, by the task's key."""
    # By LSN, because a clock may be set back: a task gets a new agent only when the last has ended.
    return {
        agent.metadata["task"]: agent
        for agent in sorted(agents, key=lambda agent: agent.lsn)
        if argv_of(agent.metadata) is not None
    }


def is_edited(task: Task, agent: Agent) -> bool:
    """Return whether the line of `task` differs from the one that `agent` was made from."""
    return (agent.prompt, agent.metadata) != (task.prompt, task.metadata)


def _admit(
    manager: SubAgentManager, task: Task, agent: Agent | None, parent_id: str | None, retry: bool
) -> Agent:
    """Return the task's `agent`, or spawn a new one if it has none.

    Also spawn a new one to retry a failed agent, and if the task's line was edited and the agent
    has not completed. An edited task is recognized by its name.
    """
    if agent is not None:
        if not (
            (retry and agent.status == "failed")
            or (agent.status != "completed" and is_edited(task, agent))
        ):
            return agent
        manager.cancel(agent.agent_id)  # has no effect on an agent that has ended
    try:
        return manager.spawn(
            task.prompt,
            name=task.name,
            agent_type=AGENT_TYPE,
            parent_id=parent_id,
            metadata=task.metadata,
            queued=True,
        )
    except NameInUseError as error:
        raise TasksError(f"{task.where}: {error}") from error


def _spawn_again(manager: SubAgentManager, agent: Agent) -> Agent:
    return manager.spawn(
        agent.prompt,
        name=None if agent.name == agent.agent_id else agent.name,
        agent_type=agent.agent_type,
        parent_id=agent.parent_id,
        metadata=agent.metadata,
        queued=True,
    )
