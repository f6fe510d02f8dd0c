"""Sources: the sources of usage that were counted for each agent, so that none is counted twice.

A checkpoint has them after the agents, in items of up to 256 sources of one agent:

    {"usage_sources": ["resp_1", "resp_2"], "of_agent": "agent_0123456789ab"}
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

from journal import CowTable, FormatVersionError
from manager.records import USAGE_SOURCES
from manager.values import source_name

_CHUNK = 256
_Chunk = tuple[str, tuple[str, ...]]  # the agent and its sources


class Sources:
    """The counted sources of each agent. To look one up or to add one takes constant time."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, None]] = {}
        # The same in pieces that do not change, for checkpoints.
        self._chunks: CowTable[tuple[str, int], _Chunk] = CowTable()

    def has(self, agent_id: str, source_id: str) -> bool:
        """Return whether this source was counted for the agent."""
        return source_id in self._seen.get(agent_id, ())

    def add(self, agent_id: str, source_id: str) -> None:
        """Add a source. Raises ValueError if it was counted for the agent before."""
        seen = self._seen.setdefault(agent_id, {})
        if source_id in seen:
            raise ValueError("source_id was counted before")
        key = agent_id, len(seen) // _CHUNK
        _, ids = self._chunks.get(key, (agent_id, ()))
        self._chunks[key] = agent_id, (*ids, source_id)
        seen[source_id] = None

    def removed(self, agent_id: str) -> None:
        """Forget the sources of an agent that was removed."""
        seen = self._seen.pop(agent_id, None)
        if seen is not None:
            for number in range(-(-len(seen) // _CHUNK)):
                del self._chunks[agent_id, number]

    def freeze(self) -> Iterator[Any]:
        """Return an iterator of the items as of now. This takes constant time."""
        return map(_item, self._chunks.freeze())

    def load(self, item: Mapping[str, Any], agent_ids: Container[str]) -> None:
        """Add the sources of an item. Raises FormatVersionError if no manager wrote it."""
        agent_id, ids = item.get("of_agent"), item[USAGE_SOURCES]
        try:
            if type(agent_id) is not str or agent_id not in agent_ids:
                raise ValueError("of_agent names no agent")
            if type(ids) is not list:
                raise TypeError("usage_sources is not a list")
            for source_id in ids:
                self.add(agent_id, source_name("usage_sources", source_id))
        except (TypeError, ValueError) as error:
            raise FormatVersionError(
                f"an item of usage_sources: {error!s:.200}; open the journal with the version that "
                "wrote it"
            ) from error


def _item(chunk: _Chunk) -> dict[str, Any]:
    agent_id, ids = chunk
    return {USAGE_SOURCES: [*ids], "of_agent": agent_id}
