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

_PAUSE_S, _PAUSE_S_MAX = 1, 60  # the pause before the first retry, and the longest pause


class Entry(NamedTuple, Generic[T]):
    """A task of a schedule."""

    key: str
    """The task's key; see `Task`."""

    after: Collection[str]
    """The names of the tasks that it waits for."""

    item: T
    """The value that `take` returns for it."""


class Schedule(Generic[T]):
    """The tasks that have not been started yet."""

    def __init__(self, entries: Iterable[Entry[T]], completed: Iterable[str]) -> None:
        """Enter tasks. `completed` has the keys of the tasks that have completed before."""
        self._ready: deque[T] = deque()
        # By the key of a task: the entries that wait for it, each with all keys for which it still
        # waits.
        self._waiting: dict[str, list[tuple[Entry[T], set[str]]]] = {}
        self._completed = {*completed}
        for entry in entries:
            self.add(entry)

    @property
    def blocked(self) -> list[T]:
        """The tasks that wait for others."""
        everyone = (each for waiting in self._waiting.values() for each in waiting)
        return list({id(unmet): entry.item for entry, unmet in everyone}.values())

    @property
    def is_ready(self) -> bool:
        """True if a task can be started."""
        return bool(self._ready)

    def take(self) -> T | None:
        """Return the next task to start, or None if none is ready."""
        return self._ready.popleft() if self._ready else None

    def add(self, entry: Entry[T]) -> None:
        """Enter a task, such as a retry. It waits for the tasks that it comes after."""
        unmet = {f"name:{name}" for name in entry.after} - self._completed
        if not unmet:
            self._ready.append(entry.item)
        for key in unmet:
            self._waiting.setdefault(key, []).append((entry, unmet))

    def complete(self, key: str) -> None:
        """Note that a task has completed, so that those that wait for it may start."""
        self._completed.add(key)
        for entry, unmet in self._waiting.pop(key, ()):
            unmet.discard(key)
            if not unmet:
                self._ready.append(entry.item)


def schedule_of(agents: Iterable[Agent]) -> Schedule[Agent]:
    """Return the schedule of the live ones of `agents`, which are those of all tasks of a run."""
    agents = list(agents)
    completed = (agent.metadata["task"] for agent in agents if agent.status == "completed")
    return Schedule((entry_of(agent) for agent in agents if agent.status in LIVE), completed)


def entry_of(agent: Agent) -> Entry[Agent]:
    return Entry(agent.metadata["task"], after_of(agent), agent)


def after_of(agent: Agent) -> Collection[str]:
    """Return the names of the tasks that an agent's task waits for."""
    return Settings.of(agent.metadata).after if "after" in agent.metadata else ()


def pause_s(tries: int) -> float:
    """Return the time between a task's failure number `tries` and the next try, in seconds."""
    return float(min(_PAUSE_S_MAX, _PAUSE_S * 2 ** min(tries - 1, 30)))
