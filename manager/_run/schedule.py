"""Schedule: the order in which tasks are started.

A task is ready when all tasks in its `after` have completed. Ready tasks start in the order of the
file, and those that became ready later come after them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from typing import Generic, NamedTuple, TypeVar

from manager._run.tasks import Settings
from manager.agent import LIVE, Agent

T = TypeVar("T")


class Entry(NamedTuple, Generic[T]):
    """A task of a schedule."""

    key: str
    """The task's key; see `Task`."""

    after: Collection[str]
    """The names of the tasks that it waits for."""

    item: T
    """What `take` returns for it."""


class Schedule(Generic[T]):
    """The tasks that have not been started yet."""

    def __init__(self, entries: Iterable[Entry[T]], completed: Collection[str]) -> None:
        """Enter tasks. `completed` has the keys of the tasks that have completed before."""
        self._ready: deque[T] = deque()
        self._unmet: dict[str, set[str]] = {}  # by the key of a waiting task
        self._waiting: dict[str, list[Entry[T]]] = {}  # by the key of the task that is waited for
        for entry in entries:
            self._enter(entry, completed)

    @property
    def blocked(self) -> list[T]:
        """The tasks that wait for others."""
        entries = (entry for waiting in self._waiting.values() for entry in waiting)
        return list({entry.key: entry.item for entry in entries}.values())

    def take(self) -> T | None:
        """Return the next task to start, or None if none is ready."""
        return self._ready.popleft() if self._ready else None

    def add(self, item: T) -> None:
        """Add a task that waits for nothing, such as a retry."""
        self._ready.append(item)

    def complete(self, key: str) -> None:
        """Note that a task has completed, so that those that wait for it may start."""
        for waiting in self._waiting.pop(key, ()):
            unmet = self._unmet[waiting.key]
            unmet.discard(key)
            if not unmet:
                del self._unmet[waiting.key]
                self._ready.append(waiting.item)

    def _enter(self, entry: Entry[T], completed: Collection[str]) -> None:
        unmet = {f"name:{name}" for name in entry.after}.difference(completed)
        if not unmet:
            self._ready.append(entry.item)
            return
        self._unmet[entry.key] = unmet
        for key in unmet:
            self._waiting.setdefault(key, []).append(entry)


def schedule_of(agents: Iterable[Agent]) -> Schedule[Agent]:
    """Return the schedule of the live ones of `agents`, which are those of all tasks of a run."""
    agents = list(agents)
    completed = {agent.metadata["task"] for agent in agents if agent.status == "completed"}
    live = (agent for agent in agents if agent.status in LIVE)
    return Schedule((Entry(a.metadata["task"], after_of(a), a) for a in live), completed)


def after_of(agent: Agent) -> Collection[str]:
    """Return the names of the tasks that an agent's task waits for."""
    return Settings.of(agent.metadata).after if "after" in agent.metadata else ()
