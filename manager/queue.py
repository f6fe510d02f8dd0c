"""Queue: the queued agents, by their type and queue, in the order in which they were spawned."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from itertools import count as counted
from itertools import islice
from typing import Any

from manager.agent import Row, get

DEFAULT = "default"
"""The queue of agents that name none."""


def queue_of(metadata: Mapping[str, Any]) -> str:
    """Return the queue that an agent's metadata name."""
    queue = metadata.get("queue")
    return queue if type(queue) is str else DEFAULT


class Queue:
    """The queued agents. A change takes constant time."""

    def __init__(self) -> None:
        self._turns = counted()
        self._all: dict[str, int] = {}  # in the order of their turns
        self._by_type: dict[str, dict[str, dict[str, None]]] = {}  # of each type, by queue

    def add(self, row: Row) -> None:
        """Add an agent at the end."""
        agent_id = get.agent_id(row)
        self._all[agent_id] = next(self._turns)
        queues = self._by_type.setdefault(get.agent_type(row), {})
        queues.setdefault(queue_of(get.metadata(row)), {})[agent_id] = None

    def remove(self, row: Row) -> None:
        """Remove an agent, wherever it is."""
        agent_id, agent_type = get.agent_id(row), get.agent_type(row)
        queues, queue = self._by_type[agent_type], queue_of(get.metadata(row))
        del self._all[agent_id], queues[queue][agent_id]
        if not queues[queue]:
            del queues[queue]
            if not queues:
                del self._by_type[agent_type]

    def fill(self, rows: Iterable[Row]) -> None:
        """Add these agents by age, because they may have been loaded in any order. The LSN of a
        queued agent is that of its spawn in most cases."""
        for row in sorted(rows, key=lambda row: (get.created_at_ms(row), get.lsn(row))):
            self.add(row)

    def first(
        self,
        agent_types: Iterable[str] | None,
        count: int | None,
        queues: Container[str] | None = None,
    ) -> list[str]:
        """Return the ids of the first `count` agents (None: of all) that have one of these types
        (None: any type), and are in one of these `queues` (None: any queue)."""
        if agent_types is None:
            return [*islice(self._all, count)]
        by_queue = (self._by_type.get(agent_type, {}) for agent_type in agent_types)
        chosen = (
            agents
            for of_type in by_queue
            for queue, agents in of_type.items()
            if queues is None or queue in queues
        )
        ids = [agent_id for agents in chosen for agent_id in islice(agents, count)]
        ids.sort(key=self._all.__getitem__)
        return ids[:count]


class NoQueue(Queue):
    """A queue that stores nothing, of a fleet that starts no agents."""

    def add(self, row: Row) -> None:
        """Add nothing."""

    def remove(self, row: Row) -> None:
        """Remove nothing."""
