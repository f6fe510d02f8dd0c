"""Importing: which agents of an older file a fleet takes over, decided under the lock."""

from __future__ import annotations

from manager.agent import LIVE, Row, get
from manager.errors import NameInUseError
from manager.fleet import Fleet
from manager.legacy import call_by_id
from manager.records import Import, Record


def imports(fleet: Fleet, *, agents: list[Import]) -> list[tuple[Row | None, Record]]:
    """Return the records that take over those of `agents` that are not in the fleet yet."""
    found = (new_here(fleet, agent) for agent in agents)
    return [(None, [*agent]) for agent in found if agent is not None]


def new_here(fleet: Fleet, agent: Import) -> Import | None:
    """Return the agent to import, called by its id if its name is taken; None if it is here.

    Raises NameInUseError if its id is the name of a live agent.
    """
    if agent.agent_id in fleet.rows:
        return None
    if (holder := fleet.live_agent_id(agent.agent_id)) is not None:
        raise NameInUseError(agent.agent_id, holder, get.status(fleet.rows[holder]))
    is_live = agent.status in LIVE
    if agent.name in fleet.rows or (is_live and fleet.live_agent_id(agent.name) is not None):
        return call_by_id(agent)
    return agent
