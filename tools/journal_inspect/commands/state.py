"""checkpoint --write: write a manager's state as of any moment, as JSON Lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import fields
from itertools import chain
from typing import IO

from _journal_console.exits import FINE
from _journal_console.text import count_of

from journal_inspect.commands.fleets import Moment, open_fleet
from journal_inspect.commands.reading import open_reader
from journal_inspect.exits import RefusedError
from journal_inspect.rendering.messages import say
from journal_inspect.rendering.objects import JSON, plain, put_objects, versioned
from journal_inspect.rendering.output_file import output_file
from journal_inspect.rendering.renderer import Renderer
from manager import Agent, FleetView

_NAMES = [field.name for field in fields(Agent)]
_FIRST = _NAMES[: _NAMES.index("lsn") + 1]
_RARE = ("answer", "taken_by", "taken_at_ms")  # left out of an item if they are None


def _item(fleet: FleetView, agent: Agent) -> dict[str, JSON]:
    """Return the item of an agent as a checkpoint has it."""
    item = {name: getattr(agent, name) for name in _FIRST}
    if agent.attempt != 1:
        item["attempt"] = agent.attempt
    if agent.starts != int(agent.started_at_ms is not None):
        item["starts"] = agent.starts
    item |= {name: getattr(agent, name) for name in _RARE if getattr(agent, name) is not None}
    if events := fleet.events(agent.agent_id):
        item["progress"] = [[*event.values()] for event in events]
    if agent.lease is not None:
        item["lease"] = agent.lease
    return {name: plain(value) for name, value in item.items()}


def write_state(path: str, renderer: Renderer, out: str, at: Moment | None) -> int:
    """Write a manager's state as of a moment (None: the end of the log).

    The lines go to the new file `out`, or to stdout if that is "-". The first one describes the
    state, the others are its items as in a checkpoint. Return the exit code.
    """
    with open_reader(path) as reader:
        at = reader.last_lsn if at is None else at
    fleet = open_fleet(path, renderer, at)
    agents = fleet.agents(include_archived=True)
    header = versioned(path=path, lsn=fleet.lsn, count=len(agents))
    items = (renderer.plain(_item(fleet, agent)) for agent in agents)
    if out == "-":
        put_objects(chain([header], items), "jsonl")
        return FINE
    source, target = os.path.realpath(path), os.path.realpath(out)
    if os.path.commonpath([source, target]) == source:
        raise RefusedError(f"{out}: lies inside the journal; choose a file outside it")
    if not os.path.isdir(os.path.dirname(target)):
        raise RefusedError(f"{out}: its directory does not exist; create that first")
    with output_file(out, replace=False) as file:
        _write(file, chain([header], items))
    say(f"{out}: written: the state as of LSN {fleet.lsn}, {count_of(len(agents), 'item')}")
    return FINE


def _write(file: IO[str], lines: Iterable[JSON]) -> None:
    for line in lines:
        file.write(json.dumps(line) + "\n")
