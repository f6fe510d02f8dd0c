"""Family: the tree of agents. It counts each agent's children, and finds its live descendants.

A *branch* of an agent is a child that is live, or that has branches itself. Only branches are kept,
so the time to find the live descendants of an agent does not depend on how many have ended. The
tree is derived from the rows alone, which may be loaded in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from manager.agent import LIVE, Row, get


class Family:
    """The children and the live branches of each agent.

    A change takes constant time in most cases, and at worst one step for each ancestor.
    """

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self._rows = rows
        self._children: dict[str, int] = {}
        self._branches: dict[str, dict[str, None]] = {}
        # The ended children of each agent whose results were not taken, in the order of their ends.
        self._untaken: dict[str, dict[str, None]] = {}

    def added(self, agent_id: str, row: Row) -> None:
        """Add a new agent, whose `row` is already in the table."""
        parent_id = get.parent_id(row)
        if parent_id is None:
            return
        self._children[parent_id] = self._children.get(parent_id, 0) + 1
        # An ended agent has branches already if children of it were loaded before it.
        if get.status(row) in LIVE or agent_id in self._branches:
            self._add_branch(agent_id, parent_id)
        if get.status(row) not in LIVE and get.taken_by(row) is None:
            self._untaken.setdefault(parent_id, {})[agent_id] = None

    def ended(self, agent_id: str, parent_id: str | None) -> None:
        """Take note that the agent has ended. Its children may still be live."""
        if parent_id is not None:
            self._untaken.setdefault(parent_id, {})[agent_id] = None
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

    def taken(self, agent_id: str, parent_id: str) -> None:
        """Take note that the result of a child of `parent_id` was taken, or will never be."""
        if (untaken := self._untaken.get(parent_id)) is not None:
            untaken.pop(agent_id, None)
            if not untaken:
                del self._untaken[parent_id]

    def untaken(self, agent_id: str) -> list[str]:
        """Return the ids of the agent's ended children whose results were not taken."""
        return [*self._untaken.get(agent_id, ())]

    def removed(self, agent_id: str, parent_id: str) -> None:
        """Take note that a child of `parent_id` was removed. It had ended, and had no children."""
        self.taken(agent_id, parent_id)
        self._children[parent_id] -= 1
        if not self._children[parent_id]:
            del self._children[parent_id]

    def children(self, agent_id: str) -> int:
        """Return the number of the agent's children, live or ended."""
        return self._children.get(agent_id, 0)

    def has_live_child(self, agent_id: str) -> bool:
        """Return whether a child of the agent is live. This goes over the live children, and over
        the few ended ones with live descendants."""
        branches = self._branches.get(agent_id, ())
        return any(get.status(self._rows[child_id]) in LIVE for child_id in branches)

    def living(self, agent_id: str) -> Iterator[str]:
        """Yield the ids of the agent's live descendants, parents before their children."""
        pending = [agent_id]
        while pending:
            for child_id in self._branches.get(pending.pop(), ()):
                pending.append(child_id)
                if get.status(self._rows[child_id]) in LIVE:
                    yield child_id

    def _add_branch(self, agent_id: str, parent_id: str | None) -> None:
        while parent_id is not None:
            branches = self._branches.get(parent_id)
            if branches is not None:  # then the parent is in its own parent's branches already
                branches[agent_id] = None
                return
            self._branches[parent_id] = {agent_id: None}
            row = self._rows.get(parent_id)  # None if the parent is not loaded yet
            agent_id, parent_id = parent_id, None if row is None else get.parent_id(row)
