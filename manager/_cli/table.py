"""Table: agents in columns that fit the terminal."""

from __future__ import annotations

import os
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator

from manager._run.plain import plain
from manager.agent import Agent

_HEAD = ("AGENT", "STATUS", "SECONDS", "NAME", "PROMPT", "REASON")
_FLEXIBLE = ("NAME", "PROMPT", "REASON")  # the last one is the first to be left out
_CELL_WIDTH = 48
_CELL_WIDTH_MIN = 8
_FOLLOWED_WIDTHS = (18, 16, 7, 16, 32, 0)


def table(agents: Iterable[Agent]) -> Iterator[str]:
    """Yield the lines of a table of agents. On a terminal, they fit its width."""
    now_ms = time.time() * 1000
    rows = [_HEAD, *(_cells(agent, now_ms) for agent in agents)]
    natural = {
        name: max(map(width, column))
        for name, column in zip(_HEAD, zip(*rows, strict=True), strict=True)
    }
    widths = _fitted(natural, _terminal_width())
    for row in rows:
        cells = zip(_HEAD, row, strict=True)
        yield "  ".join(
            padded(cut(cell, widths[name]), widths[name]) for name, cell in cells if name in widths
        ).rstrip()


def follow_line(agent: Agent) -> str:
    """Return a table row of fixed column widths, because the rows that will follow are unknown. On
    a terminal, it is cut to its width."""
    cells = zip(_cells(agent, time.time() * 1000), _FOLLOWED_WIDTHS, strict=True)
    line = "  ".join(padded(cell, size) for cell, size in cells).rstrip()
    available = _terminal_width()
    return line if available is None else cut(line, available)


def cell(text: str) -> str:
    """Return `text` in one line, escaped, and cut to the width of a table's cell.

    Of several lines, the first one is shown, with dots.
    """
    line, newline, _ = text.strip().partition("\n")
    return cut(f"{plain(line)}{'...' if newline else ''}", _CELL_WIDTH)


def width(text: str) -> int:
    """Return the number of columns that `text`, which is printable, takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(map(_width_of, text))


def cut(text: str, size: int) -> str:
    """Return `text`, cut to `size` columns, with dots if it is longer."""
    if width(text) <= size:
        return text
    end, columns = 0, 0
    while (columns := columns + _width_of(text[end])) <= size - 3:
        end += 1
    return f"{text[:end]}..."[:size]


def padded(text: str, size: int) -> str:
    """Return `text` with spaces up to `size` columns."""
    return text + " " * (size - width(text))


def _width_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0  # an accent on the character before it
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cells(agent: Agent, now_ms: float) -> tuple[str, ...]:
    end_ms = agent.ended_at_ms or (now_ms if agent.status == "running" else agent.updated_at_ms)
    seconds = "" if agent.started_at_ms is None else f"{(end_ms - agent.started_at_ms) / 1000:.1f}"
    name = "" if agent.name == agent.agent_id else agent.name
    reason = "; ".join((agent.reason or "").splitlines())
    return (cell(agent.agent_id), agent.status, seconds, *map(cell, (name, agent.prompt, reason)))


def _fitted(widths: dict[str, int], available: int | None) -> dict[str, int]:
    """Return the widths of the columns that are shown, so that they fit in `available` columns.

    The widest of the flexible columns are cut first. If that is not enough, the last are left out.
    """
    fitted = dict(widths)
    while available is not None and (len(fitted) - 1) * 2 + sum(fitted.values()) > available:
        flexible = [name for name in _FLEXIBLE if name in fitted]
        wide = [name for name in flexible if fitted[name] > _CELL_WIDTH_MIN]
        if wide:
            fitted[max(wide, key=fitted.__getitem__)] -= 1
        elif flexible:
            del fitted[flexible[-1]]
            fitted |= {name: widths[name] for name in flexible[:-1]}  # there is more room now
        else:
            break
    return fitted


def _terminal_width() -> int | None:
    """Return the columns of stdout, or None if it is not a terminal."""
    if not sys.stdout.isatty():
        return None
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):
        return None
