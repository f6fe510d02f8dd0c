"""Draft: the fleet as the earlier changes of a transaction leave it, to check the next ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from manager.agent import Row
from manager.family import Family
from manager.fleet import Fleet
from manager.names import Names
from manager.queue import NoQueue
from manager.recent import Recent
from manager.sources import Sources

K = TypeVar("K")
V = TypeVar("V")


class Draft(Fleet):
    """A fleet whose changes stay apart from the fleet under it, until the lock is released.

    It is made in constant time, because it stores only what was changed and looks up the rest. Use
    only its checks, `find` and `apply`.
    """

    def __init__(self, fleet: Fleet) -> None:
        rows: Any = _Overlay(fleet.rows)
        self.rows = rows
        self.by_name = _DraftNames(rows, fleet.by_name)
        self.counts = fleet.counts.copy()
        self._recent = Recent()
        self.family = _NoFamily({})
        self.queue = NoQueue()
        self.boot_id = fleet.boot_id
        self.feed = None
        self.sources = _DraftSources(fleet.sources)
        self._replay, self._steps = None, self._with_effects()


class _Overlay(Generic[K, V]):
    """Changes over a mapping, which stays as it is."""

    def __init__(self, under: Mapping[K, V]) -> None:
        self._under = under
        self._over: dict[K, V | None] = {}

    def get(self, key: K) -> V | None:
        return self._over[key] if key in self._over else self._under.get(key)

    def __getitem__(self, key: K) -> V:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: K) -> bool:
        return self.get(key) is not None

    def __setitem__(self, key: K, value: V) -> None:
        self._over[key] = value

    def __delitem__(self, key: K) -> None:
        self._over[key] = None


class _DraftNames(Names):
    """The names of a draft, over those of the fleet under it."""

    def __init__(self, rows: Mapping[str, Row], under: Names) -> None:
        super().__init__(rows)
        live: Any = _Overlay(under._live)
        self._live = live
        self._under = under

    def newest(self, name: str) -> str | None:
        return super().newest(name) or self._under._newest.get(name)

    def last(self, name: str) -> list[str]:
        return super().last(name) + self._under.last(name)


class _DraftSources(Sources):
    """The sources of usage of a draft, over those of the fleet under it."""

    def __init__(self, under: Sources) -> None:
        super().__init__()
        self._under = under

    def has(self, agent_id: str, source_id: str) -> bool:
        return super().has(agent_id, source_id) or self._under.has(agent_id, source_id)


class _NoFamily(Family):
    """A family that stores nothing, because no check of a draft reads it."""

    def added(self, agent_id: str, row: Row) -> None:
        pass

    def ended(self, agent_id: str, parent_id: str | None) -> None:
        pass

    def taken(self, agent_id: str, parent_id: str) -> None:
        pass
