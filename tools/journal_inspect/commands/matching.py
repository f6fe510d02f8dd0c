"""Matching: a filter of entries by agent, kind and text."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

from journal import CorruptionError, Entry, JournalReader
from journal_inspect.rendering.kinds import agent_of, is_agent_id, kind_of, name_of


class Matcher:
    """A filter of entries. Every given condition must hold, but any of several agents or kinds.

    An agent is given by its id, or by a name: then all agents that have or had that name match.
    """

    def __init__(
        self,
        reader: JournalReader,
        agents: Collection[str],
        kinds: Collection[str],
        grep: re.Pattern[str] | None,
        body: Callable[[Entry], str],
    ) -> None:
        self._kinds = frozenset(kinds)
        self._grep = grep
        self._body = body
        self._names = frozenset(agents)
        self._ids = {*agents, *_named(reader, self._names)} if agents else set()

    def __call__(self, entry: Entry) -> bool:
        record = entry.record
        if self._ids:
            agent_id = agent_of(record)
            if agent_id is None:
                return False
            if name_of(record) in self._names:  # an agent spawned while the log is followed
                self._ids.add(agent_id)
            if agent_id not in self._ids:
                return False
        if self._kinds and kind_of(record) not in self._kinds:
            return False
        return self._grep is None or self._grep.search(self._body(entry)) is not None


def _named(reader: JournalReader, names: Collection[str]) -> Iterator[str]:
    """Yield the ids of agents with one of `names`, from checkpoints and from the undamaged log."""
    if all(is_agent_id(name) for name in names):
        return  # no agent's name looks like an id
    for checkpoint in reader.checkpoints():
        try:
            for item in checkpoint.items():
                if isinstance(item, dict) and item.get("name") in names:
                    yield str(item.get("agent_id"))
        finally:
            checkpoint.close()
    try:
        for entry in reader.entries():
            if name_of(entry.record) in names and (agent_id := agent_of(entry.record)) is not None:
                yield agent_id
    except CorruptionError:
        return  # the caller reports it when it reads on
