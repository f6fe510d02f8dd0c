"""Family: who is below whom. How many children each agent has, and where among them is life.

A *branch* of an agent is a child that has not ended, or that has branches itself. Only branches
are kept, so finding all that live below an agent takes time for those, and none for the many that
may have ended there. Follows from the rows alone, in whatever order they are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from manager.agent import LIVE, Row, get


class Family:
    """Each change takes constant time, and at worst one step for each ancestor."""

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self._rows = rows
        self._children: dict[str, int] = {}
        self._branches: dict[str, dict[str, None]] = {}

    def added(self, agent_id: str, row: Row) -> None:
        """`row` is in the table now."""
        parent_id = get.parent_id(row)
        if parent_id is None:
            return
        self._children[parent_id] = self._children.get(parent_id, 0) + 1
        # One that has ended has branches already if children of its were loaded before it.
        if get.status(row) in LIVE or agent_id in self._branches:
            self._grow(agent_id, parent_id)

    def ended(self, agent_id: str, parent_id: str | None) -> None:
        """It lives no more; its children may."""
        while parent_id is not None and agent_id not in self._branches:
            branches = self._branches[parent_id]
            del branches[agent_id]
            if branches:
                return
            del self._branches[parent_id]
            row = self._rows[parent_id]
            if get.status(row) in LIVE:
                return
            agent_id, parent_id = parent_id, get.parent_id(row)

    def removed(self, parent_id: str) -> None:
        """One of its children is gone, which had ended and had none of its own."""
        self._children[parent_id] -= 1
        if not self._children[parent_id]:
            del self._children[parent_id]

    def children(self, agent_id: str) -> int:
        """How many it has, ended or not."""
        return self._children.get(agent_id, 0)

    def living(self, agent_id: str) -> Iterator[str]:
        """All below it that have not ended, parents before their children."""
        line = [agent_id]
        while line:
            for child_id in self._branches.get(line.pop(), ()):
                line.append(child_id)
                if get.status(self._rows[child_id]) in LIVE:
                    yield child_id

    def _grow(self, agent_id: str, parent_id: str | None) -> None:
        while parent_id is not None:
            branches = self._branches.get(parent_id)
            if branches is not None:  # then it is a branch itself
                branches[agent_id] = None
                return
            self._branches[parent_id] = {agent_id: None}
            row = self._rows.get(parent_id)  # None: its turn to be loaded has not come
            agent_id, parent_id = parent_id, None if row is None else get.parent_id(row)
