"""Schedule: the order in which tasks are started.

A task is ready when all tasks in its `after` have completed. Ready tasks start in the order of the
file, and those that became ready later come after them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from manager._run.tasks import Settings
from manager.agent import LIVE, Agent


class Schedule:
    """The tasks that have not been started yet."""

    def __init__(self, agents: Iterable[Agent]) -> None:
        """Enter the live ones of `agents`, which are those of all tasks of the run."""
        agents = list(agents)
        self._ready: deque[Agent] = deque()
        self._unmet: dict[str, set[str]] = {}  # by the id of a waiting agent
        self._waiting: dict[str, list[Agent]] = {}  # by the key of a task
        completed = {a.metadata["task"] for a in agents if a.status == "completed"}
        for agent in agents:
            if agent.status in LIVE:
                self._enter(agent, completed)

    @property
    def blocked(self) -> list[Agent]:
        """The tasks that wait for others."""
        agents = (agent for waiting in self._waiting.values() for agent in waiting)
        return list({agent.agent_id: agent for agent in agents}.values())

    def take(self) -> Agent | None:
        """Return the next task to start, or None if none is ready."""
        return self._ready.popleft() if self._ready else None

    def add(self, agent: Agent) -> None:
        """Add a task that waits for nothing, such as a retry."""
        self._ready.append(agent)

    def complete(self, agent: Agent) -> None:
        """Note that a task has completed, so that those that wait for it may start."""
        key = agent.metadata["task"]
        for waiting in self._waiting.pop(key, ()):
            unmet = self._unmet[waiting.agent_id]
            unmet.discard(key)
            if not unmet:
                del self._unmet[waiting.agent_id]
                self._ready.append(waiting)

    def _enter(self, agent: Agent, completed: set[str]) -> None:
        after = Settings.of(agent.metadata).after if "after" in agent.metadata else ()
        unmet = {f"name:{name}" for name in after} - completed
        if not unmet:
            self._ready.append(agent)
            return
        self._unmet[agent.agent_id] = unmet
        for key in unmet:
            self._waiting.setdefault(key, []).append(agent)
