"""Table: agents in columns that fit the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from _journal_console import text
from _journal_console.text import cut, one_line, width

from manager._cli.signs import Sign, worker_fields
from manager.agent import Agent

_HEAD = ("AGENT", "STATUS", "SECONDS", "NAME", "PROMPT", "REASON")
_WORKER_HEAD = ("WORKER", "MACHINE", "HEARD")  # those of workers, if there are any
_WORKER_AT = 3  # the place of these columns
_FLEXIBLE = ("WORKER", "MACHINE", "NAME", "PROMPT", "REASON")
_OPTIONAL = ("MACHINE", "REASON", "PROMPT", "NAME")  # in the order in which they are left out
_CELL_WIDTH = 48
_FOLLOWED_WIDTHS = (18, 16, 7, 16, 32, 0)


def table(agents: Iterable[Agent], signs: Mapping[str, Sign] = {}) -> Iterator[str]:
    """Yield the lines of a table of agents. On a terminal, they fit its width.

    It names the workers of agents that run, or ran last, on workers elsewhere. If there are `signs`
    of the workers that run agents, it names their machines and the times of their last signs.
    """
    now_ms, agents = time.time() * 1000, [*agents]
    head: Sequence[str] = _HEAD
    rows: list[Sequence[str]] = [_cells(agent, now_ms) for agent in agents]
    if any(agent.lease for agent in agents):
        columns = _WORKER_HEAD if signs else _WORKER_HEAD[:1]
        head = (*head[:_WORKER_AT], *columns, *head[_WORKER_AT:])
        rows = [
            (*row[:_WORKER_AT], *_worker_cells(agent, signs)[: len(columns)], *row[_WORKER_AT:])
            for row, agent in zip(rows, agents, strict=True)
        ]
    return text.table(head, rows, flexible=_FLEXIBLE, optional=_OPTIONAL)


def _worker_cells(agent: Agent, signs: Mapping[str, Sign]) -> tuple[str, ...]:
    known = worker_fields(agent, signs)
    silent_s = known["worker_silent_s"]
    heard = "-" if silent_s is None else f"{silent_s:.1f} s ago"
    return cell(known["worker"] or "-"), cell(known["machine"] or "-"), heard


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
    seconds = "-"
    if agent.started_at_ms is not None:  # maybe before the clock was set back
        seconds = f"{max(end_ms - agent.started_at_ms, 0) / 1000:.1f}"
    name = "-" if agent.name == agent.agent_id else agent.name
    shown = (name, agent.prompt, agent.reason or "-")
    return (agent.agent_id, agent.status, seconds, *map(cell, shown))
