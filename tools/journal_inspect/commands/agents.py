"""agents: show the agents of a manager's journal, or those that match a filter."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from _journal_console.exits import FINE, NEGATIVE
from _journal_console.text import one_line, put_lines, table

from journal_inspect.commands.fleets import Moment, get_agent, open_fleet
from journal_inspect.rendering.messages import command, say
from journal_inspect.rendering.objects import JSON, as_object, put_objects
from journal_inspect.rendering.renderer import REDACTED, Renderer
from manager import Agent

_HEADER = ("AGENT", "NAME", "STATUS", "PARENT", "STEPS", "TOKENS", "UPDATED", "WHAT")
_OPTIONAL = ("STEPS", "TOKENS", "PARENT", "UPDATED")
_WHAT_WIDTH = 60
_ROOT = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A filter of agents. Every given condition must hold, but any of several statuses or names.

    Names may contain `*` and `?`.
    """

    statuses: Collection[str] = ()
    names: Collection[str] = ()
    parent: str | None = None
    grep: re.Pattern[str] | None = None

    def fits(self, agent: Agent, parent_id: str | None, redacted: Collection[str]) -> bool:
        if self.statuses and agent.status not in self.statuses:
            return False
        if self.names and not any(
            fnmatchcase(name, pattern)
            for pattern in self.names
            for name in (agent.name, agent.agent_id)
        ):
            return False
        if self.parent is not None and agent.parent_id != parent_id:
            return False
        if self.grep is None:
            return True
        # A match in a redacted field would reveal its value.
        fields = {field for field in ("prompt", "reason", "result") if field not in redacted}
        return any(self.grep.search(getattr(agent, field) or "") for field in fields)


def show_agents(
    path: str, renderer: Renderer, at: Moment | None, wanted: Filter, *, tree: bool
) -> int:
    fleet = open_fleet(path, renderer, at)
    parent_id = None
    if wanted.parent not in (None, _ROOT):
        parent_id = get_agent(path, fleet, str(wanted.parent), at).agent_id
    all_agents = fleet.agents(include_archived=True)
    agents = [agent for agent in all_agents if wanted.fits(agent, parent_id, renderer.redacted)]
    if renderer.form != "text":
        put_objects((agent_object(agent, renderer) for agent in agents), renderer.form)
    elif tree:
        put_lines(_tree(agents, all_agents, renderer))
    elif agents:
        rows = (_row(agent, renderer) for agent in agents)
        put_lines(table(_HEADER, rows, flexible=("WHAT", "NAME"), optional=_OPTIONAL))
    if not agents:
        missing = _describe_none(wanted, all_agents)
        say(f"{path}: {missing}, as of LSN {fleet.lsn}; see its records: {command('log', path)}")
        return NEGATIVE
    counts = Counter(agent.status for agent in agents)
    summary = ", ".join(f"{count} {status}" for status, count in counts.items())
    show_command = command("show", path, "AGENT")
    say(f"{path}: {summary}, as of LSN {fleet.lsn}; to see all of one agent: {show_command}")
    return FINE


def _describe_none(wanted: Filter, all_agents: Collection[Agent]) -> str:
    """Describe why no agent is shown."""
    if not all_agents:
        return "the journal has no agents"
    if wanted != Filter(statuses=wanted.statuses):
        return "no agent matches"
    cut_off = sum(agent.status == "interrupted" for agent in all_agents)
    others = f" ({cut_off} are interrupted)" * ("running" in wanted.statuses and cut_off > 0)
    return f"no agent is {' or '.join(wanted.statuses)}{others}"


def agent_object(agent: Agent, renderer: Renderer) -> JSON:
    return as_object(agent) if not renderer.redacted else renderer.plain(as_object(agent))


def _row(agent: Agent, renderer: Renderer, indent: str = "") -> tuple[object, ...]:
    return (
        indent + agent.agent_id,
        None if agent.name == agent.agent_id else _shown("name", agent.name, renderer),
        agent.status,
        agent.parent_id,
        agent.steps_taken,
        agent.tokens_used,
        renderer.time_ms(agent.updated_at_ms),
        _what(agent, renderer),
    )


def _what(agent: Agent, renderer: Renderer) -> str:
    field = "reason" if agent.reason else "result" if agent.result else "prompt"
    # Escapes are longer than their characters, so cut after escaping.
    text = one_line(_shown(field, getattr(agent, field), renderer))
    return text if len(text) <= _WHAT_WIDTH else f"{text[: _WHAT_WIDTH - 3]}..."


def _shown(field: str, value: str, renderer: Renderer) -> str:
    return REDACTED if field in renderer.redacted else value


def _tree(
    wanted: Collection[Agent], all_agents: Iterable[Agent], renderer: Renderer
) -> Iterator[str]:
    """Return the wanted agents as a tree, with all their ancestors."""
    agents = {agent.agent_id: agent for agent in all_agents}
    shown_ids: set[str] = set()
    for agent in wanted:
        above: str | None = agent.agent_id
        while above is not None and above not in shown_ids:
            shown_ids.add(above)
            above = agents[above].parent_id if above in agents else None
    children: dict[str | None, list[Agent]] = {}
    for agent in agents.values():
        if agent.agent_id in shown_ids:
            parent = agent.parent_id if agent.parent_id in agents else None
            children.setdefault(parent, []).append(agent)

    rows: list[tuple[object, ...]] = []
    stack = [(agent, "", "") for agent in reversed(children.get(None, []))]
    while stack:
        agent, branch, indent = stack.pop()
        rows.append(_row(agent, renderer, branch))
        own_children = children.get(agent.agent_id, [])
        for child in reversed(own_children):
            is_last = child is own_children[-1]
            twig, space = ("`- ", "   ") if is_last else ("|- ", "|  ")
            stack.append((child, indent + twig, indent + space))
    optional = ("PARENT", *(name for name in _OPTIONAL if name != "PARENT"))  # the tree shows it
    return table(_HEADER, rows, flexible=("WHAT", "NAME"), optional=optional)
