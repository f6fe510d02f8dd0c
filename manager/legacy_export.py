"""Legacy export: writes agents in the format that `manager.legacy` reads.

An import of the result gives the same agents, except for what the format can't express. A queued or
running agent becomes interrupted. Names and takings of results are those of the import. The sources
of usage and the events of progress are left out. So are metadata whose names have another meaning
in that format, such as "status", or "assignment" if its value is not an object.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from manager.agent import Agent

_STATUSES = {
    "completed": "Completed",
    "cancelled": "Cancelled",
    "budget_exhausted": "BudgetExhausted",
    "running": "Running",
}
_REASONS = {"failed": "Failed", "interrupted": "Interrupted"}
_WORKER_STATUSES = {"budget_exhausted": "failed"}


def exported(agents: Iterable[Agent]) -> dict[str, Any]:
    """Return the content of an older tool's file with these agents."""
    agents = list(agents)
    children: dict[str | None, int] = {}  # tokens used below each agent
    for agent in agents:
        children[agent.parent_id] = children.get(agent.parent_id, 0) + agent.tokens_used
    document: dict[str, Any] = {"schema_version": 1, "agents": [], "workers": []}
    for agent in agents:
        metadata = agent.metadata
        others = metadata.pop("legacy_file", None)
        if isinstance(others, dict):
            document |= {key: value for key, value in others.items() if key not in document}
        ownerless = _workers_in(metadata.pop("ownerless_workers", None))
        workers = _workers_in(metadata.pop("workers", None))
        own = max(agent.tokens_used - children.get(agent.agent_id, 0), 0)
        document["workers"] += ownerless + _workers(agent, workers, own)
        document["agents"].append(_agent(agent))
    return document


def _agent(agent: Agent) -> dict[str, Any]:
    metadata = agent.metadata
    objective = _text_in(metadata.pop("objective", None))
    assignment = metadata.pop("assignment", None)
    if not isinstance(assignment, dict):
        assignment = {}
    name = _text_in(metadata.pop("session_name", None))
    if name is None and agent.name != agent.agent_id:
        name = agent.name
    began_ms = agent.created_at_ms if agent.started_at_ms is None else agent.started_at_ms
    return {
        **metadata,  # fields that the import did not know
        "id": agent.agent_id,
        "session_name": name or agent.agent_id,
        "agent_type": agent.agent_type,
        "prompt": agent.prompt,
        "assignment": {**assignment, "objective": objective or agent.prompt, "role": agent.role},
        "model": agent.model or "",
        "nickname": _text_in(metadata.get("nickname")),
        "status": _status(agent),
        "result": agent.result,
        "steps_taken": agent.steps_taken,
        "checkpoint": agent.checkpoint,
        "needs_input": agent.needs_input,
        "duration_ms": max(agent.updated_at_ms - began_ms, 0),
        "allowed_tools": None if agent.allowed_tools is None else [*agent.allowed_tools],
        "updated_at_ms": agent.updated_at_ms,
        "session_boot_id": agent.boot_id,
    }


def _status(agent: Agent) -> Any:
    if agent.status == "queued":
        return {"Interrupted": "queued, not started"}
    if agent.status in _REASONS:
        return {_REASONS[agent.status]: agent.reason or ""}
    return _STATUSES[agent.status]


def _text_in(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _workers_in(value: Any) -> list[Any]:
    """Return the workers that an import has put into an agent's metadata, if `value` is a list of
    them."""
    workers = value if isinstance(value, list) else []
    is_valid = all(
        isinstance(worker, dict)
        and all(isinstance(worker.get(key) or {}, dict) for key in ("spec", "usage"))
        for worker in workers
    )
    return workers if is_valid else []


def _workers(agent: Agent, workers: list[Any], own_tokens: int) -> list[Any]:
    """Return the agent's workers, of which the last states its parent, tokens and budget."""
    *earlier, last = workers or [{}]
    spec = last.get("spec") or {}
    model = agent.model or ""
    objective = _text_in(agent.metadata.get("objective")) or agent.prompt
    usage = {"status": "reported", "note": ""} | (last.get("usage") or {})
    last = {
        "status": _WORKER_STATUSES.get(agent.status, agent.status),
        "created_at_ms": agent.created_at_ms,
        "steps_taken": agent.steps_taken,
        **last,
        "spec": {
            "objective": objective,
            "role": agent.role,
            "agent_type": agent.agent_type,
            "model": model,
            "workspace": ".",
            "context_mode": "fresh",
            "fork_context": False,
            "tool_profile": "inherited",
            "max_steps": 0,
            "max_spawn_depth": agent.spawn_depth,
            "run_id": agent.agent_id,
            **spec,
            "worker_id": agent.agent_id,
            "spawn_depth": agent.spawn_depth,
        },
        "usage": usage | {"total_tokens": own_tokens, "token_budget": agent.token_budget},
        "updated_at_ms": agent.updated_at_ms,
    }
    if agent.token_budget is not None:
        last["usage"]["budget_spent_tokens"] = agent.tokens_used
    if agent.parent_id is not None:
        last["parent_run_id"] = agent.parent_id
    for worker in earlier:  # their tokens are in the total of the last one
        for key in ("total_tokens", "input_tokens", "output_tokens", "budget_spent_tokens"):
            if worker.get("usage"):
                worker["usage"][key] = None
    return [*earlier, last]
