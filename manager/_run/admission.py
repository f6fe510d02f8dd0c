"""Admission: finds the agent of each task in the state, or spawns one."""

from __future__ import annotations

from manager._run.report import RunReport
from manager._run.tasks import AGENT_TYPE, Task, argv_of, parents_first
from manager.agent import LIVE, Agent
from manager.errors import NameInUseError, TasksError
from manager.manager import SubAgentManager


def admit(manager: SubAgentManager, tasks: list[Task] | None, *, retry_failed: bool) -> RunReport:
    """Find the agent of each task in the state, or spawn a queued one. Return a report of them."""
    known = {
        agent.metadata["task"]: agent  # the newest agent of each task
        for agent in manager.agents(include_archived=True)
        if argv_of(agent.metadata) is not None
    }
    if tasks is None:
        report = RunReport()
        for agent in known.values():
            again = retry_failed and agent.status == "failed"
            report.put(_spawn_again(manager, agent) if again else agent)
        return report
    admitted: dict[str, Agent] = {}
    ids: dict[str, str] = {}
    for task in parents_first(tasks):
        parent_id = None if task.parent is None else ids[task.parent]
        agent = _admit(manager, task, known.pop(task.key, None), parent_id, retry_failed)
        admitted[task.key] = agent
        if task.name is not None:
            ids[task.name] = agent.agent_id
    report = RunReport(others=sum(agent.status in LIVE for agent in known.values()))
    for task in tasks:
        report.put(admitted[task.key])
    return report


def _admit(
    manager: SubAgentManager, task: Task, agent: Agent | None, parent_id: str | None, retry: bool
) -> Agent:
    """Return the task's `agent`, or spawn a new one if it has none.

    Also spawn a new one to retry a failed agent, and if the task's line was edited before the agent
    completed. An edited task is recognized by its name.
    """
    if agent is not None:
        is_edited = (agent.prompt, agent.metadata) != (task.prompt, task.metadata)
        again = retry if agent.status == "failed" else is_edited and agent.status != "completed"
        if not again:
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
