"""Names: the agents by name, except those whose name is their id."""

from __future__ import annotations

from collections.abc import Mapping

from manager.agent import LIVE, Row, get
from manager.columns import AGENT_ID, NAME, STATUS


class Names:
    """The live agent and the ended agents of each name.

    It is derived from the rows alone, which may be loaded in any order.
    """

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self._rows = rows
        self._live: dict[str, str] = {}
        self._newest: dict[str, str] = {}  # of the ended agents of each name
        # The ended agents of each name that several had. Most names have only one.
        self._ended: dict[str, dict[str, None]] = {}

    def live(self, name: str) -> str | None:
        """Return the id of the live agent of this name, or None."""
        return self._live.get(name)

    def newest(self, name: str) -> str | None:
        """Return the id of the live agent of this name, or else of the newest one, or None."""
        return self._live.get(name) or self._newest.get(name)

    def last(self, name: str) -> list[str]:
        """Return the ids of the live agent of this name and of the newest ended one, if any. An
        imported agent may have ended before one that is live."""
        ids = self._live.get(name), self._newest.get(name)
        return [agent_id for agent_id in ids if agent_id is not None]

    def put(self, row: Row) -> None:
        """Add an agent, or take note of its new status. Its row is already in the table."""
        agent_id, name = row[AGENT_ID], row[NAME]
        if row[STATUS] in LIVE:
            self._live[name] = agent_id
            return
        if self._live.get(name) == agent_id:
            del self._live[name]
        newest = self._newest.setdefault(name, agent_id)
        if newest != agent_id:
            self._ended.setdefault(name, {newest: None})[agent_id] = None
            if _age(row) >= _age(self._rows[newest]):
                self._newest[name] = agent_id

    def removed(self, agent_id: str, name: str) -> None:
        """Take note that an ended agent was removed. Its row is no longer in the table."""
        ids = self._ended.get(name)
        if ids is None:
            del self._newest[name]
            return
        del ids[agent_id]
        if self._newest[name] == agent_id:
            self._newest[name] = max(ids, key=lambda each: _age(self._rows[each]))
        if len(ids) == 1:
            del self._ended[name]


def _age(row: Row) -> tuple[int, int, str]:
    """Return the order of the agents of one name. Agents of an older manager share an attempt."""
    return get.attempt(row), get.created_at_ms(row), get.agent_id(row)
