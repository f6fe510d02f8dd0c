"""diff: the agents, and of them the fields, that differ between two moments."""

from __future__ import annotations

from collections.abc import Iterator

from journal_inspect.commands.changes import changed_fields, told
from journal_inspect.commands.fleets import Moment, open_fleet
from journal_inspect.exits import FINE, NEGATIVE
from journal_inspect.rendering.look import Look
from journal_inspect.rendering.objects import JSON, dumps, put_objects, versioned
from journal_inspect.rendering.text import command, put_lines, say, table
from manager import Agent, FleetView

_HEADER = ("CHANGE", "AGENT", "NAME", "FIELDS")


def show_diff(path: str, look: Look, from_at: Moment, to_at: Moment) -> int:
    """1 if there is a difference."""
    before, after = open_fleet(path, look, from_at), open_fleet(path, look, to_at)
    found = list(_differences(before, after, look))
    if look.form == "json":
        print(dumps(versioned(from_lsn=before.lsn, to_lsn=after.lsn, agents=found)))
    elif look.form == "jsonl":
        put_objects(({"schema_version": 1, **it} for it in found), look.form)
    elif found:
        put_lines(
            table(_HEADER, (_row(it, look) for it in found), flexible=("NAME",), folded="FIELDS")
        )
    low, high = sorted((before.lsn, after.lsn))
    log = command("log", path, "--from-lsn", low + 1, "--to-lsn", high)
    what = f"{len(found)} differ" if found else "no agent differs"
    say(
        f"{path}: {what} between LSN {before.lsn} and LSN {after.lsn}"
        f"{f'; what happened meanwhile: {log}' if low < high else ''}"
    )
    return NEGATIVE if found else FINE


def _differences(before: FleetView, after: FleetView, look: Look) -> Iterator[dict[str, JSON]]:
    old = {agent.agent_id: agent for agent in before.agents(include_archived=True)}
    new = {agent.agent_id: agent for agent in after.agents(include_archived=True)}
    for agent_id in old | new:
        was, now = old.get(agent_id), new.get(agent_id)
        fields = changed_fields(was, now, look)
        if fields or (was is None) != (now is None):
            yield {
                "agent_id": agent_id,
                "name": _name(now or was, look),
                "change": "added" if was is None else "removed" if now is None else "changed",
                "fields": {} if now is None else fields,
            }


def _name(agent: Agent | None, look: Look) -> JSON:
    return look.plain({"name": agent.name})["name"] if agent else None


def _row(found: dict[str, JSON], look: Look) -> tuple[object, ...]:
    agent_id, name = found["agent_id"], found["name"]
    fields = {k: v for k, v in found["fields"].items() if k not in ("agent_id", "name")}
    shown = None if name == agent_id else name
    return found["change"], agent_id, shown, told(fields, look) or None
