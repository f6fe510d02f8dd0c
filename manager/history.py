"""History: each change of one agent, as far back as the journal retains it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from journal import JournalReader
from manager import arguments, records
from manager._public import public
from manager.agent import Agent, Row, agent_from_row, get
from manager.errors import AmbiguousNameError, UnknownAgentError
from manager.fleet import Fleet
from manager.fleet_reader import (
    Progress,
    apply_entry,
    check_agents,
    entries_up_to,
    initial_fleet,
    open_reader,
    retry,
)
from manager.workspace import StrPath


@public
@dataclass(frozen=True, slots=True)
class AgentChange:
    """The effect of a record on an agent.

    The first item of a history may be a state instead: the agent as a checkpoint contains it, with
    the kind "" and without a `before`.
    """

    lsn: int
    """The LSN of the record."""

    written_at_ns: int
    """The time at which the record was committed, in Unix nanoseconds."""

    kind: str
    """The kind of the record."""

    agent_id: str
    """The id of the agent that the record is about. This may be a descendant of the changed agent:
    its tokens count for its ancestors too."""

    before: Agent | None
    """The agent before the record, or None if it did not exist yet."""

    after: Agent | None
    """The agent after the record, or None if the record removed it."""


@public
def read_history(
    path: StrPath,
    ref: str,
    *,
    at: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[AgentChange]:
    """Return the retained changes of an agent, up to the LSN `at`, oldest first.

    `ref` is an id or a name. A name means the newest agent of the fleet that has or had it, or else
    the only removed one. Raises UnknownAgentError, AmbiguousNameError if several agents of that
    name were removed, and the errors of `read_fleet`. `progress` is called as by `read_fleet`.
    """
    arguments.instance("ref", ref, str)
    at = arguments.optional_lsn("at", at)
    with closing(open_reader(path)) as reader:
        return retry(reader, at, lambda: _history(reader, ref, at, progress))


def _history(
    reader: JournalReader, ref: str, at: int | None, progress: Progress | None
) -> list[AgentChange]:
    fleet, lsn = initial_fleet(reader, at, oldest=True)
    changes: dict[str, list[AgentChange]] = {}
    rows: dict[str, Row] = {}
    for agent_id, row in fleet.rows.items():
        if ref in (agent_id, get.name(row)):
            rows[agent_id] = row
            agent = agent_from_row(row, fleet.boot_id)
            at_ns = get.updated_at_ms(row) * 1_000_000
            changes[agent_id] = [AgentChange(get.lsn(row), at_ns, "", agent_id, None, agent)]
    feed: deque[Row] = deque()
    fleet.feed_to(feed)
    for entry in entries_up_to(reader, lsn, at, progress):
        if entry.is_filler:
            continue
        apply_entry(fleet, entry)
        for row in feed:
            agent_id, is_removed = get.agent_id(row), len(row) == 1
            if agent_id not in rows and (is_removed or ref not in (agent_id, get.name(row))):
                continue
            check_agents(reader, fleet, [agent_id])  # callers see each state of this agent
            before = rows.pop(agent_id, None)
            if not is_removed:
                rows[agent_id] = row
            change = AgentChange(
                entry.lsn,
                entry.written_at_ns,
                entry.record[records.KIND],
                entry.record[records.AGENT_ID],
                agent_from_row(before, fleet.boot_id) if before else None,
                None if is_removed else agent_from_row(row, fleet.boot_id),
            )
            changes.setdefault(agent_id, []).append(change)
        feed.clear()
    check_agents(reader, fleet)
    return changes[_pick(fleet, ref, list(changes))]


def _pick(fleet: Fleet, ref: str, ids: list[str]) -> str:
    """Return the agent that `ref` means among `ids`, the agents that have or had that id or name.

    Raises UnknownAgentError or AmbiguousNameError.
    """
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
