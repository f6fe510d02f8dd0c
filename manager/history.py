"""History: each change of one agent, as far back as the journal tells of it."""

from __future__ import annotations

from collections import deque
from contextlib import closing
from dataclasses import dataclass

from journal import JournalReader
from manager import arguments, records
from manager._public import public
from manager.agent import Agent, Row, agent_from_row, get
from manager.errors import AmbiguousNameError, UnknownAgentError
from manager.fleet import Fleet
from manager.fleet_reader import (
    apply_entry,
    check_agents,
    entries_up_to,
    initial_fleet,
    open_reader,
    retried,
)
from manager.workspace import StrPath


@public
@dataclass(frozen=True, slots=True)
class AgentChange:
    """The effect of a record on an agent.

    The first change that is kept may be a state instead of an effect: the agent as a checkpoint
    holds it, with kind "" and without a `before`.
    """

    lsn: int
    """The LSN of the record."""

    written_at_ns: int
    """The time at which the record was committed, in Unix nanoseconds."""

    kind: str
    """The kind of the record."""

    agent_id: str
    """The agent that the record is about. It may be a descendant of the changed agent, whose tokens
    count for that one too."""

    before: Agent | None
    """The agent before the record. None if it did not exist yet."""

    after: Agent | None
    """The agent after the record. None if it was removed."""


@public
def read_history(path: StrPath, ref: str, *, at: int | None = None) -> list[AgentChange]:
    """Each change of the agent that is or was `ref`, as far back as they are kept, up to `at`.

    An id, or a name: of the live agent that has it, else of the only one that had. Raises what
    `read_fleet` raises, UnknownAgentError, AmbiguousNameError.
    """
    arguments.instance("ref", ref, str)
    at = arguments.optional_lsn("at", at)
    with closing(open_reader(path)) as reader:
        return retried(reader, at, lambda: _history(reader, ref, at))


def _history(reader: JournalReader, ref: str, at: int | None) -> list[AgentChange]:
    fleet, lsn = initial_fleet(reader, at, oldest=True)
    found: dict[str, list[AgentChange]] = {}
    rows: dict[str, Row] = {}
    for agent_id, row in fleet.rows.items():
        if ref in (agent_id, get.name(row)):
            rows[agent_id] = row
            agent = agent_from_row(row, fleet.boot_id)
            at_ns = get.updated_at_ms(row) * 1_000_000
            found[agent_id] = [AgentChange(get.lsn(row), at_ns, "", agent_id, None, agent)]
    feed: deque[Row] = deque()
    fleet.feed_to(feed)
    for entry in entries_up_to(reader, lsn, at):
        apply_entry(fleet, entry)
        check_agents(reader, fleet, [entry.record[records.AGENT_ID]])
        for row in feed:
            agent_id, is_there = get.agent_id(row), len(row) > 1
            if agent_id not in rows and (not is_there or ref not in (agent_id, get.name(row))):
                continue
            before = rows.pop(agent_id, None)
            if is_there:
                rows[agent_id] = row
            change = AgentChange(
                entry.lsn,
                entry.written_at_ns,
                entry.record[records.KIND],
                entry.record[records.AGENT_ID],
                agent_from_row(before, fleet.boot_id) if before else None,
                agent_from_row(row, fleet.boot_id) if is_there else None,
            )
            found.setdefault(agent_id, []).append(change)
        feed.clear()
    return found[_chosen(fleet, ref, list(found))]


def _chosen(fleet: Fleet, ref: str, ids: list[str]) -> str:
    """Of the agents that are or were `ref` the one that is meant."""
    if ref in ids:
        return ref
    try:
        return get.agent_id(fleet.find(ref))
    except UnknownAgentError:
        if len(ids) > 1:
            message = f"{len(ids)} agents named {ref!r} were removed: {', '.join(ids)}; use an id"
            raise AmbiguousNameError(message) from None
        if not ids:
            raise
        return ids[0]
