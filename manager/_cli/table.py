"""Table: agents in columns that fit the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from _journal_console import text
from _journal_console.text import cut, one_line, width

from manager.agent import Agent

_HEAD = ("AGENT", "STATUS", "SECONDS", "NAME", "PROMPT", "REASON")
_WORKER_AT = 3  # the place of the column of workers, if there is one
_FLEXIBLE = ("NAME", "PROMPT", "REASON")
_OPTIONAL = ("REASON", "PROMPT", "NAME")  # in the order in which they are left out
_CELL_WIDTH = 48
_FOLLOWED_WIDTHS = (18, 16, 7, 16, 32, 0)


def table(agents: Iterable[Agent]) -> Iterator[str]:
    """Yield the lines of a table of agents. On a terminal, they fit its width.

    It names the workers of agents that run, or ran last, on workers elsewhere.
    """
    now_ms, agents = time.time() * 1000, [*agents]
    head: Sequence[str] = _HEAD
    rows: list[Sequence[str]] = [_cells(agent, now_ms) for agent in agents]
    if any(agent.lease for agent in agents):
        workers = (agent.lease["worker"] if agent.lease else "-" for agent in agents)
        head = _with_worker(head, "WORKER")
        rows = [_with_worker(row, cell(name)) for row, name in zip(rows, workers, strict=True)]
    return text.table(head, rows, flexible=_FLEXIBLE, optional=_OPTIONAL)


def _with_worker(row: Sequence[str], worker: str) -> Sequence[str]:
    return (*row[:_WORKER_AT], worker, *row[_WORKER_AT:])


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
