"""Output: how `subagents` shows agents, and what it says beside them.

What others wrote (names, prompts, output of commands) is shown with its control characters escaped:
a terminal would obey them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import fields
from functools import partial
from typing import Any

import click
from _journal_console import release_stdout

from manager.agent import Agent

_CELL_CHARS = 48
_BLOCKS = ("prompt", "reason", "result")


def print_lines(lines: Iterable[str], *, each_at_once: bool = False) -> int:
    """The exit code: of who read the output and has gone, the one that shells have for it."""
    try:
        for line in lines:
            print(line, flush=each_at_once)
        sys.stdout.flush()
    except BrokenPipeError:
        release_stdout()
        return 141  # 128 + SIGPIPE
    return 0


def say(message: str) -> None:
    with suppress(BrokenPipeError):
        click.echo(f"subagents: {plain(message)}", err=True)


def say_what_is_logged() -> None:
    """From here to the end of the command, on stderr as it then is: a live bar may stand there."""
    import logging  # takes a twentieth of a listing, which logs nothing

    class Messages(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with suppress(OSError):  # who logs has better to do than to fail for want of a reader
                print(f"{record.name}: {plain(record.getMessage())}", file=sys.stderr)

    messages, loggers = Messages(logging.WARNING), map(logging.getLogger, ("journal", "manager"))
    for logger in loggers:
        logger.addHandler(messages)
        click.get_current_context().call_on_close(partial(logger.removeHandler, messages))


def _moment(at_ms: int) -> str:
    from datetime import UTC, datetime

    with suppress(ValueError, OverflowError, OSError):  # what was imported may lie anywhere
        return f" ({datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()})"
    return ""


def plain(text: str) -> str:
    """`text` in one line, with what a terminal would not print as it stands escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cell(text: str) -> str:
    line = plain(text.strip().partition("\n")[0])
    return line if len(line) <= _CELL_CHARS else f"{line[: _CELL_CHARS - 3]}..."


def table(agents: list[Agent]) -> Iterator[str]:
    head = ("AGENT", "STATUS", "SECONDS", "NAME", "PROMPT", "REASON")
    rows: list[tuple[str, ...]] = [head]
    rows += map(_cells, agents)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield "  ".join(cell.ljust(width) for cell, width in cells).rstrip()


def _cells(agent: Agent) -> tuple[str, ...]:
    ended = agent.ended_at_ms or agent.updated_at_ms
    took = "" if agent.started_at_ms is None else f"{(ended - agent.started_at_ms) / 1000:.1f}"
    name = "" if agent.name == agent.agent_id else agent.name
    reason = "; ".join((agent.reason or "").splitlines())
    short_repr = map(cell, (name, agent.prompt, reason))
    return (cell(agent.agent_id), agent.status, took, *short_repr)


def follow_line(agent: Agent) -> str:
    """What comes later can't widen what is printed: these are the usual widths."""
    cells = zip(_cells(agent), (18, 16, 7, 16, 32, 0), strict=True)
    return "  ".join(cell.ljust(width) for cell, width in cells).rstrip()


def description(agent: dict[str, Any]) -> Iterator[str]:

    for name, value in agent.items():
        if value is None or name == "schema_version":
            continue
        if name in _BLOCKS:
            lines = [plain(line) for line in value.removesuffix("\n").split("\n")]
            yield from [f"{name}: {lines[0]}"] if len(lines) == 1 else [f"{name}:"]
            yield from (f"  {line}" for line in lines if len(lines) > 1)
        elif name.endswith("_at_ms"):
            yield f"{name}: {value}{_moment(value)}"
        else:
            yield f"{name}: {plain(value) if isinstance(value, str) else json.dumps(value)}"


def as_json(agent: Agent) -> dict[str, Any]:
    return {"schema_version": 1} | {f.name: getattr(agent, f.name) for f in fields(agent)}
