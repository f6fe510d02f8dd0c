"""The exceptions of the manager. The module imports almost nothing, so any module may import it."""

from __future__ import annotations

import copyreg
from collections.abc import Iterable, Mapping
from typing import Any

from manager._public import public


@public
class ManagerError(Exception):
    """Base class of the errors that this package raises deliberately. Nothing has changed when one
    is raised."""

    def __reduce__(self) -> tuple[Any, ...]:
        # For pickle and copy, which would pass `args` to `__init__`. An `__init__` that builds the
        # message takes other arguments, so the attributes are restored without calling it.
        state = {**vars(self), "args": self.args}
        return copyreg.__newobj__, (type(self),), state  # type: ignore[attr-defined]


@public
class UnknownAgentError(ManagerError, LookupError):
    """No agent has this id or name."""


@public
class AmbiguousNameError(ManagerError, LookupError):
    """Several removed agents had this name, and no agent in the fleet has it. Use an id."""


@public
class TransitionError(ManagerError):
    """The agent's current status does not allow the change."""

    agent_id: str
    """The agent's id."""

    name: str
    """The agent's name."""

    from_status: str
    """The agent's current status."""

    to_status: str
    """The status that the change would have led to."""

    allowed: tuple[str, ...]
    """The statuses that the current one may change to."""

    def __init__(
        self,
        agent_id: str,
        name: str,
        from_status: str,
        to_status: str,
        verb: str,
        allowed: Iterable[str],
        needs: Iterable[str] = (),
    ) -> None:
        self.agent_id = agent_id
        self.name = name
        self.from_status = from_status
        self.to_status = to_status
        self.allowed = tuple(allowed)
        needed = " or ".join(needs) or "different"
        fault = f"{verb} needs {'an' if needed[0] in 'ei' else 'a'} {needed} agent"
        if self.allowed:
            to_make = "" if to_status in needed else f" to make it {to_status}"
            fault += f"{to_make}; this one can become {', '.join(self.allowed)}"
        elif to_status in needed:
            fault += "; this one has ended"
        else:
            fault = f"{verb} can't make it {to_status}; it has ended"
        super().__init__(f"agent {_id_and_name(agent_id, name)} is {from_status}: {fault}")


@public
class AlreadyTakenError(ManagerError):
    """The result of the agent has been taken before."""

    agent_id: str
    """The id of the agent whose result it is."""

    name: str
    """The name of that agent."""

    taken_by: str
    """The id of the agent that has taken the result."""

    taken_at_ms: int
    """The time at which it was taken, in Unix milliseconds."""

    def __init__(self, agent_id: str, name: str, taken_by: str, taken_at_ms: int) -> None:
        self.agent_id = agent_id
        self.name = name
        self.taken_by = taken_by
        self.taken_at_ms = taken_at_ms
        super().__init__(
            f"the result of agent {_id_and_name(agent_id, name)} was taken by agent {taken_by}; "
            "don't use it again"
        )


@public
class CapacityError(ManagerError):
    """A limit of the manager is reached."""

    limit: str
    """The name of the limit, which is a field of `Limits`."""

    value: int
    """The value of the limit."""

    counts: dict[str, int]
    """The numbers of agents by status, without zeros."""

    def __init__(self, limit: str, value: int, counts: Mapping[str, int], what: str) -> None:
        self.limit = limit
        self.value = value
        self.counts = {status: count for status, count in counts.items() if count}
        agents = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        super().__init__(f"{limit}={value} is reached (agents: {agents or 'none'}): {what}")


@public
class NameInUseError(ManagerError):
    """A queued, running or interrupted agent already has the name."""

    name: str
    """The name."""

    agent_id: str
    """The id of the agent that has the name."""

    status: str
    """The status of that agent."""

    def __init__(self, name: str, agent_id: str, status: str) -> None:
        self.name = name
        self.agent_id = agent_id
        self.status = status
        super().__init__(
            f"name {name!r} is in use by agent {agent_id}, which is {status}; "
            "end that agent, or choose another name"
        )


@public
class BudgetError(ManagerError):
    """A token budget is spent, either the agent's own or an ancestor's."""

    agent_id: str
    """The id of the agent whose budget is spent."""

    name: str
    """The name of that agent."""

    token_budget: int
    """The budget, in tokens."""

    tokens_used: int
    """The number of tokens used."""

    def __init__(self, agent_id: str, name: str, token_budget: int, tokens_used: int) -> None:
        self.agent_id = agent_id
        self.name = name
        self.token_budget = token_budget
        self.tokens_used = tokens_used
        super().__init__(
            f"agent {_id_and_name(agent_id, name)} has used {tokens_used} tokens of its budget of "
            f"{token_budget}: it and its descendants may not start, resume or spawn; let its "
            "program raise the budget, end it as budget_exhausted, or spawn under another parent"
        )


@public
class DispatchError(ManagerError):
    """Workers elsewhere can't be reached or used, or their manager can't. The message names the
    servers and the reason."""


@public
class LegacyError(ManagerError, ValueError):
    """The legacy state file can't be imported. The message names the place and the reason."""

    path: str
    """The path of the file."""

    def __init__(self, path: str, what: str) -> None:
        self.path = path
        super().__init__(f"{path}: {what}; nothing was imported")


class TasksError(ValueError):
    """A line of a task file, or an option of the run, is not valid. The message begins with
    `file:line:` or the option."""


def _id_and_name(agent_id: str, name: str) -> str:
    return agent_id if name == agent_id else f"{agent_id} ({name!r})"
