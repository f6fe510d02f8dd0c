"""Again: another agent for the task of one that has ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from manager.agent import LIVE, Agent

TASK_TYPE = "command"
"""The type of the tasks of a run, whose metadata have commands. Neither a request nor an import
makes an agent of this type, so commands come only from files of tasks and the user's programs."""

# The keys in the metadata of a retry of a run: for the number of the task's failures, and for the
# number of the attempt if the task has no name.
TRIES, ATTEMPT = "tries", "attempt"


def again_as(agent: Agent, *, tries: int = 0) -> dict[str, Any]:
    """Return the arguments of `spawn` for another agent like this one, which is queued.

    `tries` is the number of agents of the same task that have failed since it was last begun anew.
    """
    metadata = agent.metadata
    if is_task(agent):
        counted = {TRIES: tries} if tries else {}
        metadata = {**of_the_line(agent), **number_after(agent), **counted}
    return {
        "prompt": agent.prompt,
        "name": agent.name if is_named(agent) else None,
        "agent_type": agent.agent_type,
        "parent_id": agent.parent_id,
        "model": agent.model,
        "role": agent.role,
        "allowed_tools": agent.allowed_tools,
        "token_budget": agent.token_budget,
        "metadata": metadata,
        "queued": True,
    }


def of_the_line(agent: Agent) -> Mapping[str, Any]:
    """Return the part of an agent's metadata that was made from the line of its task."""
    metadata = agent.metadata
    if TRIES in metadata or ATTEMPT in metadata:
        return {key: value for key, value in metadata.items() if key not in (TRIES, ATTEMPT)}
    return metadata


def number_after(agent: Agent) -> dict[str, int]:
    """Return the part of the next agent's metadata that states its number among those of its
    task."""
    return {} if is_named(agent) else {ATTEMPT: attempt_of(agent) + 1}


def attempt_of(agent: Agent) -> int:
    """Return the number of an agent among those of its task, or else of its name.

    A manager numbers only the agents of one name, so the runner numbers those of a task without.
    """
    number = agent.metadata.get(ATTEMPT)
    if type(number) is int and is_task(agent) and not is_named(agent):
        return number
    return agent.attempt


def order_of(agent: Agent) -> tuple[int, int]:
    """Return the order of an agent among those of its task or name. The time of its spawn is not in
    it, because a clock may be set back. The LSN is that of its last change, as when its result was
    taken, so it orders only agents of older versions, which have no numbers."""
    return attempt_of(agent), agent.lsn


def is_named(agent: Agent) -> bool:
    """Return whether an agent has another name than its id."""
    return agent.name != agent.agent_id


def is_task(agent: Agent) -> bool:
    """Return whether the agent is a task of a run."""
    return agent.agent_type == TASK_TYPE and isinstance(agent.metadata.get("task"), str)


def newest_like(agent: Agent, agents: Iterable[Agent]) -> Agent:
    """Return the newest one of `agents` that has the task of `agent`, or its name."""
    name, task = agent.name, agent.metadata["task"] if is_task(agent) else None
    like = (
        other
        for other in agents
        if other.name == name or (is_task(other) and other.metadata["task"] == task)
    )
    return max(like, key=order_of, default=agent)


def refusal(agent: Agent, newest: Agent | None) -> str | None:
    """Return why there can be no other agent like this one, or None if there can.

    `newest` is the newest agent of the same task or name, or None if it was removed meanwhile.
    """
    if agent.status in LIVE:
        return f"agent {agent.name} is {agent.status}; only one that has ended can be retried"
    if agent.status == "completed":
        return f"agent {agent.name} has completed; prune it to run it again, or spawn another one"
    if newest is not None and newest.agent_id != agent.agent_id:
        return f"agent {agent.agent_id} has a newer attempt: {newest.agent_id}, {newest.status}"
    return None
