"""Admission: finds the agent of each task in the state, or spawns one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from manager._run.report import RunReport
from manager._run.schedule import Entry, Schedule, after_of
from manager._run.tasks import Task, argv_of, parents_first
from manager.again import TASK_TYPE, TRIES, again_as, number_after, of_the_line, order_of
from manager.agent import ENDED, LIVE, Agent
from manager.errors import NameInUseError, TasksError
from manager.manager import SubAgentManager


def admit(manager: SubAgentManager, tasks: list[Task] | None, *, retry_failed: bool) -> RunReport:
    """Find the agent of each task in the state, or spawn a queued one. Return a report of them."""
    known = newest_agents(manager.agents(include_archived=True))
    if tasks is None:
        return _report(
            manager.spawn(**again_as(agent)) if retry_failed and agent.status == "failed" else agent
            for agent in known.values()
        )
    admitted: dict[str, Agent] = {}
    ids: dict[str, str] = {}
    edited: list[str] = []
    for task in parents_first(tasks):
        parent_id = None if task.parent is None else ids[task.parent]
        agent = known.pop(task.key, None)
        if agent is None:
            agent = _spawn(manager, task, parent_id, task.metadata)
        elif needs_new_agent(task, agent, retry_failed=retry_failed):
            manager.cancel(agent.agent_id)  # has no effect on an agent that has ended
            metadata = task.metadata | number_after(agent)
            agent = _spawn(manager, task, parent_id, metadata)
        elif agent.status == "completed" and is_edited(task, agent):
            edited.append(agent.name)
        admitted[task.key] = agent
        if task.name is not None:
            ids[task.name] = agent.agent_id
    report = _report(admitted[task.key] for task in tasks)
    report.others = sum(agent.status in LIVE for agent in known.values())
    report.edited = tuple(edited)
    return report


def newest_agents(agents: Iterable[Agent]) -> dict[str, Agent]:
    """Return the newest agent of each task, by the task's key."""
    return {
        agent.metadata["task"]: agent
        for agent in sorted(agents, key=order_of)
        if argv_of(agent) is not None
    }


def is_edited(task: Task, agent: Agent) -> bool:
    """Return whether the line of `task` differs from the one that `agent` was made from."""
    return agent.prompt != task.prompt or of_the_line(agent) != task.metadata


def needs_new_agent(task: Task, agent: Agent, *, retry_failed: bool) -> bool:
    """Return whether a task that has `agent` gets another one: to retry it, or to run its line,
    which was edited before the task completed.
    """
    if retry_failed and agent.status == "failed":
        return True
    return agent.status != "completed" and is_edited(task, agent)


def planned_commands(
    agents: Iterable[Agent], tasks: list[Task] | None, *, retry_failed: bool
) -> list[str | list[str]]:
    """Return the commands that a run would run now, if each of them completes. `agents` are those
    in the state.
    """
    known = newest_agents(agents)
    if tasks is None:
        statuses = (*LIVE, "failed") if retry_failed else LIVE
        due = [
            (key, after_of(agent), agent.metadata["command"])
            for key, agent in known.items()
            if agent.status in statuses
        ]
    else:
        due = [
            (task.key, task.after, task.command)
            for task in tasks
            if (agent := known.get(task.key)) is None
            or agent.status in LIVE
            or needs_new_agent(task, agent, retry_failed=retry_failed)
        ]
    completed = {key for key, agent in known.items() if agent.status == "completed"}
    schedule = Schedule((Entry(key, after, key) for key, after, _ in due), completed)
    starting: set[str] = set()
    while (key := schedule.take()) is not None:
        starting.add(key)
        schedule.complete(key)
    return [command for key, _, command in due if key in starting]


def _spawn(
    manager: SubAgentManager, task: Task, parent_id: str | None, metadata: dict[str, Any]
) -> Agent:
    """Spawn a queued agent for a task. Raises TasksError if its name is taken."""
    try:
        return manager.spawn(
            task.prompt,
            name=task.name,
            agent_type=TASK_TYPE,
            parent_id=parent_id,
            metadata=metadata,
            queued=True,
        )
    except NameInUseError as error:
        raise TasksError(f"{task.where}: {error}") from error


def tries_of(agent: Agent) -> int:
    """Return the `tries` with which an agent was spawned."""
    tries = agent.metadata.get(TRIES)
    return tries if type(tries) is int else 0


def _report(agents: Iterable[Agent]) -> RunReport:
    """Return the report of a run of the tasks of these agents, before any of them is run."""
    by_id = {agent.agent_id: agent for agent in agents}
    counts: Counter[str] = Counter([agent.status for agent in by_id.values()])
    return RunReport(by_id, counts, ended_before=sum(counts[status] for status in ENDED))
