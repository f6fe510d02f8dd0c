"""Every exception of the manager. A leaf: imports nothing, so anything may import it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class ManagerError(Exception):
    """Base of every error that this package raises on purpose. Nothing has changed when one is."""


class UnknownAgentError(ManagerError, LookupError):
    """No agent has this id or name."""


class AmbiguousNameError(ManagerError, LookupError):
    """Several finished agents had this name, and no live one has it: use an id."""


class TransitionError(ManagerError):
    """The agent's status does not allow this; `allowed` are the statuses it may go to."""

    def __init__(
        self,
        agent_id: str,
        name: str,
        from_status: str,
        to_status: str,
        verb: str,
        allowed: Iterable[str],
    ) -> None:
        called = agent_id if name == agent_id else f"{agent_id} ({name!r})"
        self.agent_id = agent_id
        self.name = name
        self.from_status = from_status
        self.to_status = to_status
        self.allowed = tuple(allowed)
        super().__init__(
            f"agent {called} is {from_status}: {verb} can't make it {to_status}; "
            f"it may become: {', '.join(self.allowed) or 'nothing, it has ended'}"
        )


class CapacityError(ManagerError):
    """A limit is reached: `limit` is its name, `value` what it is, `counts` agents by status."""

    def __init__(self, limit: str, value: int, counts: Mapping[str, int], what: str) -> None:
        self.limit = limit
        self.value = value
        self.counts = {status: count for status, count in counts.items() if count}
        there_are = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        super().__init__(f"{limit}={value} is reached: {what}; agents: {there_are or 'none'}")


class NameInUseError(ManagerError):
    """A queued, running or interrupted agent has this name; `agent_id` is its id."""

    def __init__(self, name: str, agent_id: str, status: str) -> None:
        self.name = name
        self.agent_id = agent_id
        self.status = status
        super().__init__(
            f"name {name!r} is in use by {agent_id} ({status}); end it, or pick another"
        )


class BudgetError(ManagerError):
    """The agent's token budget, or an ancestor's, is spent."""
