"""Supply: the agents that a worker may be given next."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

from journal import DurableState
from manager import records
from manager.agent import Agent
from manager.fleet import Fleet
from manager.queue import queue_of

_FIRST = 16  # queued agents that are read in one hold of the lock, while none is refused

# The reasons of agents that a dispatcher gives to another worker by itself.
_RESUMABLE = (records.RESTARTED, records.STOPPED, records.WORKER_LOST, records.HANDED_BACK)


def is_resumable(agent: Agent) -> bool:
    """Return whether an agent was interrupted, and goes on without a call by the user."""
    is_answered = agent.needs_input is not None and agent.answer is not None
    return agent.status == "interrupted" and (is_answered or agent.reason in _RESUMABLE)


class Supply(Protocol):
    """The agents that may be given to workers."""

    def note(self, agent: Agent) -> None:
        """Take note of an agent's new state."""

    def candidates(self, types: Collection[str], queues: Collection[str]) -> Iterator[str]:
        """Yield the ids of agents of these types and queues that may start, in order."""

    def drop(self, agent_id: str) -> None:
        """Leave out an agent that can't start until it changes again."""


class FleetSupply:
    """The queued agents of a fleet, and the interrupted ones that were noted and may go on.

    Interrupted agents come first. The queue is the fleet's own, so it takes no memory here, and it
    is read in parts, so that no hold of the manager's lock is long.
    """

    def __init__(self, state: DurableState[Fleet]) -> None:
        self._state = state
        self._waiting: dict[str, tuple[str, str]] = {}  # the type and the queue of each

    def note(self, agent: Agent) -> None:
        self._waiting.pop(agent.agent_id, None)
        if is_resumable(agent):
            self._waiting[agent.agent_id] = agent.agent_type, queue_of(agent.metadata)

    def drop(self, agent_id: str) -> None:
        self._waiting.pop(agent_id, None)

    def candidates(self, types: Collection[str], queues: Collection[str]) -> Iterator[str]:
        for agent_id, (agent_type, queue) in [*self._waiting.items()]:
            if agent_type in types and queue in queues:
                yield agent_id
        # An agent that was started has left the queue, so its first part is read again and again.
        # Only agents that were refused are left in it, and the more of them, the longer it is.
        refused, count = set[str](), _FIRST
        while True:
            first = self._first(types, queues, count)
            fresh = [agent_id for agent_id in first if agent_id not in refused]
            yield from fresh
            if len(first) < count:
                break
            refused.update(fresh)
            if not fresh:
                count *= 2

    def _first(self, types: Collection[str], queues: Collection[str], count: int) -> list[str]:
        return self._state.read(lambda fleet: fleet.queue.first(types, count, queues))
