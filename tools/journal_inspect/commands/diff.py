"""diff: show the agents that differ between two moments, and the fields that differ."""

from __future__ import annotations

from collections.abc import Iterator

from _journal_console.exits import FINE, NEGATIVE
from _journal_console.text import count_of, put_lines, table

from journal_inspect.commands.changes import changed_fields, describe_changes
from journal_inspect.commands.fleets import Moment, open_fleets
from journal_inspect.rendering.messages import command, say
from journal_inspect.rendering.objects import JSON, dumps, put_objects, versioned
from journal_inspect.rendering.renderer import Renderer
from manager import Agent, FleetView

_HEADER = ("CHANGE", "AGENT", "NAME", "FIELDS")


def show_diff(path: str, renderer: Renderer, from_at: Moment, to_at: Moment) -> int:
    """Print the differences and return the exit code: 1 if there are any."""
    before, after = open_fleets(path, renderer, (from_at, to_at))
    differences = list(_differences(before, after, renderer))
    if renderer.form == "json":
        print(dumps(versioned(from_lsn=before.lsn, to_lsn=after.lsn, agents=differences)))
    elif renderer.form == "jsonl":
        put_objects(
            ({"schema_version": 1, **difference} for difference in differences), renderer.form
        )
    elif differences:
        put_lines(
            table(
                _HEADER,
                (_row(difference, renderer) for difference in differences),
                flexible=("NAME",),
                folded="FIELDS",
            )
        )
    low, high = sorted((before.lsn, after.lsn))
    log = command("log", path, "--from-lsn", low + 1, "--to-lsn", high)
    summary = (
        f"{count_of(len(differences), 'agent')} changed" if differences else "no agent differs"
    )
    say(
        f"{path}: {summary} between LSN {before.lsn} and LSN {after.lsn}"
        f"{f'; see the records in between: {log}' if low < high else ''}"
    )
    return NEGATIVE if differences else FINE


def _differences(
    before: FleetView, after: FleetView, renderer: Renderer
) -> Iterator[dict[str, JSON]]:
    old = {agent.agent_id: agent for agent in before.agents(include_archived=True)}
    new = {agent.agent_id: agent for agent in after.agents(include_archived=True)}
    for agent_id in old | new:
        was, now = old.get(agent_id), new.get(agent_id)
        fields = changed_fields(was, now, renderer)
        if fields or (was is None) != (now is None):
            yield {
                "agent_id": agent_id,
                "name": _name(now or was, renderer),
                "change": "added" if was is None else "removed" if now is None else "changed",
                "fields": {} if now is None else fields,
            }


def _name(agent: Agent | None, renderer: Renderer) -> JSON:
    return renderer.plain({"name": agent.name})["name"] if agent else None


def _row(difference: dict[str, JSON], renderer: Renderer) -> tuple[object, ...]:
    agent_id, name = difference["agent_id"], difference["name"]
    fields = {k: v for k, v in difference["fields"].items() if k not in ("agent_id", "name")}
    own_name = None if name == agent_id else name
    return difference["change"], agent_id, own_name, describe_changes(fields, renderer) or None
