"""Legacy workers: the facts about agents in the `workers` of an older tool's file.

    spec.worker_id, spec.run_id             the agent of a worker; also agent_id, worker_id and id
    parent_run_id, spec.parent_run_id       parent_id, if that run is an agent of the file
    usage.total_tokens, or input_tokens     tokens_used, which count for the ancestors, too
      and output_tokens
    usage.token_budget                      token_budget. If usage.budget_spent_tokens is more than
                                            the tokens above, it counts instead, so that a spent
                                            budget stays spent
    the whole worker                        metadata.workers of its agent
    a worker of no agent in the file        metadata.ownerless_workers of the first agent
    other keys of the file                  metadata.legacy_file of the first agent

The depth of an agent follows from its parent's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from manager.layouts import Import
from manager.values import INT_MAX, json_value, whole

_KEYS = ("agent_id", "worker_id", "id")
_KEYS_OF_SPEC = ("worker_id", "run_id")
_FILE_KEYS = ("schema_version", "agents", "workers")


def dict_of(where: str, value: object) -> dict[str, Any]:
    """Return `value`, or {} for None. Raises TypeError if it is not an object."""
    if value is not None and not isinstance(value, dict):
        raise TypeError(f"{where} must be an object, not {type(value).__name__}")
    return {} if value is None else value


def list_of(where: str, value: object) -> list[Any]:
    """Return `value`, or [] for None. Raises TypeError if it is not an array."""
    if value is not None and not isinstance(value, list):
        raise TypeError(f"{where} must be an array, not {type(value).__name__}")
    return [] if value is None else value


def with_workers(
    by_id: Mapping[str, Import], document: Mapping[str, Any]
) -> tuple[list[Import], int]:
    """Return the agents of a file with what its workers say, parents before their children, and the
    number of workers of no agent. Raises TypeError or ValueError, naming the place.
    """
    agents = dict(by_id)
    runs = {agent_id: agent_id for agent_id in agents}  # the agent of each run
    workers: list[tuple[str, dict[str, Any], str | None]] = []
    for index, item in enumerate(list_of("workers", document.get("workers"))):
        where = f"workers[{index}]"
        if not isinstance(item, dict):
            raise TypeError(f"{where} must be an object, not {type(item).__name__}")
        spec = dict_of(f"{where}.spec", item.get("spec"))
        names = [item.get(key) for key in _KEYS] + [spec.get(key) for key in _KEYS_OF_SPEC]
        known = [name for name in names if isinstance(name, str)]
        owner = next((name for name in known if name in agents), None)
        workers.append((where, item, owner))
        if owner is not None:
            runs |= {name: owner for name in known if name not in runs}
    ownerless = []
    used: dict[str, tuple[int, int]] = {}
    for where, worker, owner in workers:
        if owner is None:
            ownerless.append(json_value(where, [[worker]])[0][0])
        else:
            agents[owner] = _with_worker(where, agents[owner], worker, runs, used)
    first = next(iter(agents.values()), None)
    if first is not None:
        others = {key: value for key, value in document.items() if key not in _FILE_KEYS}
        kept = {"ownerless_workers": ownerless, "legacy_file": json_value("the file", others)}
        first.metadata.update({key: value for key, value in kept.items() if value})
    return _by_depth(agents, used), len(ownerless)


def _with_worker(
    where: str,
    agent: Import,
    worker: Mapping[str, Any],
    runs: Mapping[str, str],
    used: dict[str, tuple[int, int]],
) -> Import:
    """Return the agent with its worker's parent and budget. Add to `used` its own tokens, and those
    that count against its budget.
    """
    spec = dict_of(f"{where}.spec", worker.get("spec"))
    usage = dict_of(f"{where}.usage", worker.get("usage"))

    def tokens(key: str) -> int:
        return whole(f"{where}.usage.{key}", 0 if usage.get(key) is None else usage[key])

    total = tokens("total_tokens") or tokens("input_tokens") + tokens("output_tokens")
    budget = tokens("token_budget") or None
    own, spent = used.get(agent.agent_id, (0, 0))
    spent = spent if budget is None else max(spent, tokens("budget_spent_tokens"))
    used[agent.agent_id] = own + total, spent
    owned = agent.metadata.setdefault("workers", [])
    list_of(f"the field workers of the owner of {where}", owned).append(
        json_value(where, [[worker]])[0][0]  # checked at the depth that it will have
    )
    parent_run_id = worker.get("parent_run_id") or spec.get("parent_run_id")
    parent_id = runs.get(parent_run_id) if isinstance(parent_run_id, str) else None
    return agent._replace(
        parent_id=agent.parent_id if parent_id in (None, agent.agent_id) else parent_id,
        token_budget=agent.token_budget if budget is None else budget,
    )


def _by_depth(agents: Mapping[str, Import], used: Mapping[str, tuple[int, int]]) -> list[Import]:
    """Return the agents with their depths and their tokens, parents before their children."""
    lines = {agent_id: [*_lineage(agents, agent_id)] for agent_id in agents}
    totals = dict.fromkeys(agents, 0)
    for agent_id in sorted(agents, key=lambda each: len(lines[each]), reverse=True):
        own, spent = used.get(agent_id, (0, 0))
        # The descendants have been added already. They count against the budget, too.
        added = max(own, spent - totals[agent_id])
        for above in lines[agent_id]:
            totals[above] += added
    filled = (
        agent._replace(
            spawn_depth=len(lines[agent_id]) - 1, tokens_used=min(totals[agent_id], INT_MAX)
        )
        for agent_id, agent in agents.items()
    )
    return sorted(filled, key=lambda agent: agent.spawn_depth)  # stable: as in the file


def _lineage(agents: Mapping[str, Import], agent_id: str | None) -> Iterable[str]:
    """Yield the agent and its ancestors. Raises ValueError if it is its own ancestor."""
    seen: set[str] = set()
    while agent_id is not None:
        if agent_id in seen:
            raise ValueError(f"workers: the agent {agent_id[:80]!r} is its own ancestor")
        seen.add(agent_id)
        yield agent_id
        agent_id = agents[agent_id].parent_id
