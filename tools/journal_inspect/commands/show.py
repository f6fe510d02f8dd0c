"""show: all that there is to know of one agent."""

from __future__ import annotations

from collections.abc import Iterator

from journal_inspect.commands.agents import agent_object
from journal_inspect.commands.fleets import Moment, get_agent, open_fleet
from journal_inspect.exits import FINE
from journal_inspect.rendering.look import Look
from journal_inspect.rendering.objects import JSON, dumps
from journal_inspect.rendering.text import (
    command,
    escaped,
    fact_lines,
    painted,
    put_lines,
    say,
    wrapped,
)

_LONG = ("prompt", "reason", "result")


def show_agent(path: str, look: Look, ref: str, at: Moment | None) -> int:
    fleet = open_fleet(path, look, at)
    agent = get_agent(path, fleet, ref, at)
    shown = agent_object(agent, look)
    below = [it for it in fleet.agents(include_archived=True) if it.parent_id == agent.agent_id]
    shown["children"] = [it.agent_id for it in below]
    if look.form != "text":
        print(dumps(shown))
    else:
        put_lines(_lines(shown, look))
        if below:
            print()
            put_lines(f"{it.agent_id}  {painted(it.status)}" for it in below)
    say(
        f"{path}: as of LSN {fleet.lsn}; how it came to this: "
        f"{command('history', path, agent.agent_id)}"
    )
    return FINE


def _lines(shown: dict[str, JSON], look: Look) -> Iterator[str]:
    width = max(map(len, shown))
    for name, value in shown.items():
        if name == "schema_version":
            continue
        if name.endswith("_at_ms"):
            value = look.time_ms(value)
        if name in _LONG and isinstance(value, str) and "\n" in value:
            yield name
            for line in value.split("\n"):
                yield from (f"  | {part}" for part in wrapped(escaped(line), indent=4))
        else:
            told = value if value is None or isinstance(value, str) else dumps(value)
            yield from fact_lines([(name, told)], name_width=width)
