"""Matching: a filter of entries by agent, kind and text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from journal import CorruptionError, Entry, JournalReader, LargeRecord
from journal_inspect.commands.quick_test import quick_test
from journal_inspect.rendering.entries import Lines
from journal_inspect.rendering.kinds import agent_of, is_agent_id, kind_of, name_of


class Matcher:
    """A filter of entries. Every given condition must hold, but any of several agents or kinds.

    An agent is given by its id, by the beginning of its id, or by a name: then all agents that have
    or had that name match. The text of a LargeRecord is not searched: it is taken to match.
    """

    unknown_agents: list[str]
    """The given agents that the log does not have."""

    kinds_seen: set[str]
    """The kinds of the entries that were looked at, if kinds are given."""

    def __init__(
        self,
        reader: JournalReader,
        agents: Collection[str],
        kinds: Collection[str],
        grep: re.Pattern[str] | None,
        lines: Lines,
    ) -> None:
        self._kinds = frozenset(kinds)
        self._grep = grep
        self._body = lines.body
        self._may_match = quick_test(grep) if grep and lines.shows_all else None
        self._names = frozenset(agents)
        self._ids, self.unknown_agents = _find_ids(reader, agents) if agents else (set(), [])
        self.kinds_seen = set()

    def __call__(self, entry: Entry) -> bool:
        record = entry.record
        if self._kinds:
            kind = kind_of(record)
            self.kinds_seen.add(kind)
            if kind not in self._kinds:
                return False
        if self._names:
            agent_id = agent_of(record)
            if agent_id is None:
                return False
            if name_of(record) in self._names:  # an agent spawned while the log is followed
                self._ids.add(agent_id)
            if agent_id not in self._ids:
                return False
        if self._grep is None or isinstance(record, LargeRecord):
            return True
        if self._may_match is not None and not self._may_match(record):
            return False
        return self._grep.search(self._body(entry)) is not None


def _find_ids(reader: JournalReader, refs: Collection[str]) -> tuple[set[str], list[str]]:
    """Return the ids that `refs` mean, and those of `refs` that mean no agent. Raises
    NothingFoundError if several ids begin with one."""
    from journal_inspect.commands.fleets import find_by_prefix  # it imports the manager

    if all(map(is_agent_id, refs)):
        return set(refs), []  # no agent's name looks like an id
    ids: set[str] = set()
    named: dict[str, set[str]] = {ref: set() for ref in refs}
    for agent_id, name in _agents_of(reader):
        ids.add(agent_id)
        if name in named:
            named[name].add(agent_id)
    unknown: list[str] = []
    for ref, found in named.items():
        if ref in ids:
            found.add(ref)
        if not found and (whole := find_by_prefix(reader.path, ids, ref)):
            found.add(whole)
        if not found:
            unknown.append(ref)
    return set().union(*named.values()), unknown


def _agents_of(reader: JournalReader) -> Iterator[tuple[str, str | None]]:
    """Yield the id of each agent, and a name that it has or had, from checkpoints and from the
    undamaged log."""
    for checkpoint in reader.checkpoints():
        try:
            for item in checkpoint.items():
                if isinstance(item, dict) and "agent_id" in item:
                    yield str(item["agent_id"]), item.get("name")
        finally:
            checkpoint.close()
    try:
        for entry in reader.entries():
            if (agent_id := agent_of(entry.record)) is not None:
                yield agent_id, name_of(entry.record)
    except CorruptionError:
        return  # the caller reports it when it reads on
