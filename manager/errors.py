"""Every exception of the manager. It imports next to nothing, so anything may import it."""

from __future__ import annotations

import copyreg
from collections.abc import Iterable, Mapping
from typing import Any

from manager._public import public


@public
class ManagerError(Exception):
    """Base of every error that this package raises on purpose. Nothing has changed when one is."""

    def __reduce__(self) -> tuple[Any, ...]:
        # For pickle and copy: an `__init__` that makes the message takes other arguments than
        # `args`, so what it set is restored instead of calling it.
        state = {**vars(self), "args": self.args}
        return copyreg.__newobj__, (type(self),), state  # type: ignore[attr-defined]


@public
class UnknownAgentError(ManagerError, LookupError):
    """No agent has this id or name."""


@public
class AmbiguousNameError(ManagerError, LookupError):
    """Several finished agents had this name, and no live one has it: use an id."""


@public
class TransitionError(ManagerError):
    """The agent's present status does not allow the change."""

    agent_id: str
    """The agent's identity."""

    name: str
    """The agent's name."""

    from_status: str
    """The agent's present status."""

    to_status: str
    """The status that it was to get."""

    allowed: tuple[str, ...]
    """The statuses that it may get."""

    def __init__(
        self,
        agent_id: str,
        name: str,
        from_status: str,
        to_status: str,
        verb: str,
        allowed: Iterable[str],
    ) -> None:
        self.agent_id = agent_id
        self.name = name
        self.from_status = from_status
        self.to_status = to_status
        self.allowed = tuple(allowed)
        super().__init__(
            f"agent {_called(agent_id, name)} is {from_status}: {verb} can't make it {to_status}; "
            f"it may become: {', '.join(self.allowed) or 'nothing, it has ended'}"
        )


@public
class CapacityError(ManagerError):
    """A limit of the manager is reached."""

    limit: str
    """The name of the limit, a field of `Limits`."""

    value: int
    """The value of the limit."""

    counts: dict[str, int]
    """The numbers of agents by status, without zeros."""

    def __init__(self, limit: str, value: int, counts: Mapping[str, int], what: str) -> None:
        self.limit = limit
        self.value = value
        self.counts = {status: count for status, count in counts.items() if count}
        there_are = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        super().__init__(f"{limit}={value} is reached: {what}; agents: {there_are or 'none'}")


@public
class NameInUseError(ManagerError):
    """A queued, running or interrupted agent already has the name."""

    name: str
    """The name."""

    agent_id: str
    """The identity of the agent that has it."""

    status: str
    """The status of that agent."""

    def __init__(self, name: str, agent_id: str, status: str) -> None:
        self.name = name
        self.agent_id = agent_id
        self.status = status
        super().__init__(
            f"name {name!r} is in use by {agent_id} ({status}); end it, or pick another"
        )


@public
class BudgetError(ManagerError):
    """A token budget is spent: the agent's own, or an ancestor's."""

    agent_id: str
    """The identity of the agent whose budget is spent."""

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
            f"agent {_called(agent_id, name)} has used {tokens_used} tokens of its "
            f"token_budget={token_budget}: it and those below it may not run; end it with "
            "status='budget_exhausted', or spawn outside of it"
        )


@public
class LegacyError(ManagerError, ValueError):
    """The legacy state file can't be imported. The message says where and why."""

    path: str
    """The path of the file."""

    def __init__(self, path: str, what: str) -> None:
        self.path = path
        super().__init__(f"{path}: {what}; nothing was imported")


class TasksError(ValueError):
    """A line that is no task; the message begins with `file:line:`."""


def _called(agent_id: str, name: str) -> str:
    return agent_id if name == agent_id else f"{agent_id} ({name!r})"
