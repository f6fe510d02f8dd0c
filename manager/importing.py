"""Importing: adds the agents of a legacy file that are new to the fleet."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import chain

from journal import Options
from manager import clock
from manager.agent import LIVE, Row, get
from manager.errors import NameInUseError
from manager.fleet import Fleet
from manager.layouts import Import, Record
from manager.legacy import named_by_id, read_legacy
from manager.limits import Limits
from manager.records import imported
from manager.updates import Updates
from manager.workspace import StrPath


def import_file(
    path: StrPath,
    fleet: Fleet,
    updates: Updates,
    limits: Limits,
    options: Options,
    skip_unknown: bool,
) -> list[Row]:
    """Import the agents of the file at `path`, and return their rows; see `import_legacy`."""
    batches = read_legacy(
        path,
        at_ms=clock.now_ms(),
        limits=limits,
        record_bytes_max=options.record_bytes_max,
        skip_unknown=skip_unknown,
    )
    for agent in chain.from_iterable(batches):
        as_new(fleet, agent)  # raises if its id is a live agent's name
    rows: list[Row] = []
    for chunk in batches:
        rows += updates.update_many(partial(import_records, agents=chunk))
    return rows


def import_records(fleet: Fleet, *, agents: list[Import]) -> list[tuple[Row | None, Record]]:
    """Return records that add those `agents` that are not in the fleet yet. Called under the
    lock."""
    added: list[tuple[Row | None, Record]] = []
    attempts: dict[str, int] = {}  # of the names in this slice
    by_id: dict[str, Import] = {}
    for agent in (as_new(fleet, agent) for agent in agents):
        if agent is None:
            continue
        attempt = max(fleet.next_attempt(agent.name), attempts.get(agent.name, 0) + 1)
        attempts[agent.name] = attempt
        agent = below(fleet, agent._replace(attempt=attempt), by_id)
        by_id[agent.agent_id] = agent
        added.append((None, imported(agent)))
    return added


def below(fleet: Fleet, agent: Import, added: Mapping[str, Import]) -> Import:
    """Return `agent` below its parent as it is in the fleet or in this slice, or as a root if it is
    no longer there."""
    if agent.parent_id is None:
        return agent
    row, new = fleet.rows.get(agent.parent_id), added.get(agent.parent_id)
    if row is None and new is None:
        return agent._replace(parent_id=None, spawn_depth=0)
    depth = get.spawn_depth(row) if row is not None else added[agent.parent_id].spawn_depth
    return agent._replace(spawn_depth=depth + 1)


def as_new(fleet: Fleet, agent: Import) -> Import | None:
    """Return the agent to import, named by its id if its name is taken. Return None if the fleet
    has an agent with its id.

    Raises NameInUseError if its id is the name of a live agent.
    """
    if agent.agent_id in fleet.rows:
        return None
    if (holder := fleet.by_name.live(agent.agent_id)) is not None:
        raise NameInUseError(agent.agent_id, holder, get.status(fleet.rows[holder]))
    is_live = agent.status in LIVE
    if agent.name in fleet.rows or (is_live and fleet.by_name.live(agent.name) is not None):
        return named_by_id(agent)
    return agent
