"""show: show all fields of an agent."""

from __future__ import annotations

from collections.abc import Iterator

from _journal_console.exits import FINE
from _journal_console.text import escaped, fact_lines, painted, put_lines, wrapped

from journal_inspect.commands.agents import agent_object
from journal_inspect.commands.fleets import Moment, get_agent, open_fleet
from journal_inspect.rendering.messages import command, say
from journal_inspect.rendering.objects import JSON, dumps
from journal_inspect.rendering.renderer import Renderer

_LONG = ("prompt", "reason", "result")


def show_agent(path: str, renderer: Renderer, ref: str, at: Moment | None) -> int:
    fleet = open_fleet(path, renderer, at)
    agent = get_agent(path, fleet, ref, at)
    fields = agent_object(agent, renderer)
    children = fleet.children(agent.agent_id)
    fields["children"] = [child.agent_id for child in children]
    if renderer.form != "text":
        print(dumps(fields))
    else:
        put_lines(_lines(fields, renderer))
        if children:
            print()
            put_lines(f"{child.agent_id}  {painted(child.status)}" for child in children)
    say(
        f"{path}: as of LSN {fleet.lsn}; see how the agent changed: "
        f"{command('history', path, agent.agent_id)}"
    )
    return FINE


def _lines(fields: dict[str, JSON], renderer: Renderer) -> Iterator[str]:
    width = max(map(len, fields))
    for name, value in fields.items():
        if name == "schema_version":
            continue
        if name.endswith("_at_ms"):
            value = renderer.time_ms(value)
        if name in _LONG and isinstance(value, str) and "\n" in value:
            yield name
            for line in value.split("\n"):
                yield from (f"  | {part}" for part in wrapped(escaped(line), indent=4))
        else:
            text = value if value is None or isinstance(value, str) else dumps(value)
            yield from fact_lines([(name, text)], name_width=width)
