"""Table: agents in columns that fit the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from _journal_console import text
from _journal_console.text import cut, one_line, width

from manager.agent import Agent

_HEAD = ("AGENT", "STATUS", "SECONDS", "NAME", "PROMPT", "REASON")
_FLEXIBLE = ("NAME", "PROMPT", "REASON")
_OPTIONAL = ("REASON", "PROMPT", "NAME")  # in the order in which they are left out
_CELL_WIDTH = 48
_FOLLOWED_WIDTHS = (18, 16, 7, 16, 32, 0)


def table(agents: Iterable[Agent]) -> Iterator[str]:
    """Yield the lines of a table of agents. On a terminal, they fit its width."""
    now_ms = time.time() * 1000
    rows = (_cells(agent, now_ms) for agent in agents)
    return text.table(_HEAD, rows, flexible=_FLEXIBLE, optional=_OPTIONAL)


def follow_line(agent: Agent) -> str:
    """Return a table row of fixed column widths, because the rows that will follow are unknown. On
    a terminal, it is cut to its width."""
    cells = zip(_cells(agent, time.time() * 1000), _FOLLOWED_WIDTHS, strict=True)
    line = "  ".join(f"{cell}{' ' * (size - width(cell))}" for cell, size in cells).rstrip()
    return cut(line, text.terminal_width())


def cell(value: str) -> str:
    """Return `value` in one line, escaped, and cut to the width of a table's cell."""
    return cut(one_line(value), _CELL_WIDTH)


def _cells(agent: Agent, now_ms: float) -> tuple[str, ...]:
    end_ms = agent.ended_at_ms or (now_ms if agent.status == "running" else agent.updated_at_ms)
    seconds = "-" if agent.started_at_ms is None else f"{(end_ms - agent.started_at_ms) / 1000:.1f}"
    name = "-" if agent.name == agent.agent_id else agent.name
    shown = (name, agent.prompt, agent.reason or "-")
    return (agent.agent_id, agent.status, seconds, *map(cell, shown))
