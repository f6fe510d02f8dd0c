"""diff: the agents, and of them the fields, that differ between two moments."""

from __future__ import annotations

from collections.abc import Iterator

from journal_inspect.commands.changes import changed_fields, describe_changes
from journal_inspect.commands.fleets import Moment, open_fleet
from journal_inspect.exits import FINE, NEGATIVE
from journal_inspect.rendering.objects import JSON, dumps, put_objects, versioned
from journal_inspect.rendering.renderer import Renderer
from journal_inspect.rendering.text import command, put_lines, say, table
from manager import Agent, FleetView

_HEADER = ("CHANGE", "AGENT", "NAME", "FIELDS")


def show_diff(path: str, renderer: Renderer, from_at: Moment, to_at: Moment) -> int:
    """1 if there is a difference."""
    before, after = open_fleet(path, renderer, from_at), open_fleet(path, renderer, to_at)
    found = list(_differences(before, after, renderer))
    if renderer.form == "json":
        print(dumps(versioned(from_lsn=before.lsn, to_lsn=after.lsn, agents=found)))
    elif renderer.form == "jsonl":
        put_objects(({"schema_version": 1, **difference} for difference in found), renderer.form)
    elif found:
        put_lines(
            table(
                _HEADER,
                (_row(difference, renderer) for difference in found),
                flexible=("NAME",),
                folded="FIELDS",
            )
        )
    low, high = sorted((before.lsn, after.lsn))
    log = command("log", path, "--from-lsn", low + 1, "--to-lsn", high)
    what = f"{len(found)} differ" if found else "no agent differs"
    say(
        f"{path}: {what} between LSN {before.lsn} and LSN {after.lsn}"
        f"{f'; what happened meanwhile: {log}' if low < high else ''}"
    )
    return NEGATIVE if found else FINE


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


def _row(found: dict[str, JSON], renderer: Renderer) -> tuple[object, ...]:
    agent_id, name = found["agent_id"], found["name"]
    fields = {k: v for k, v in found["fields"].items() if k not in ("agent_id", "name")}
    shown = None if name == agent_id else name
    return found["change"], agent_id, shown, describe_changes(fields, renderer) or None
