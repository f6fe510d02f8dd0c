"""Output: prints the agents and the messages of `subagents`.

Control characters in texts from elsewhere (names, prompts, output of commands) are escaped, because
a terminal would obey them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

import click
from _journal_console import release_stdout, text
from _journal_console.exits import FINE, READER_GONE
from _journal_console.refs import AmbiguousPrefixError, by_prefix
from _journal_console.text import escaped

from manager._cli.signs import Sign, worker_fields
from manager._run.facts import exit_of
from manager.again import attempt_of
from manager.agent import Agent
from manager.errors import AmbiguousNameError, UnknownAgentError
from manager.view import FleetView

PROGRAM = "subagents"
_BLOCKS = ("prompt", "reason", "result")


def print_lines(lines: Iterable[str], *, each_at_once: bool = False) -> int:
    """Print `lines`. Return the exit code, which says whether the reader closed the pipe."""
    try:
        for line in lines:
            print(line, flush=each_at_once)
        sys.stdout.flush()
    except BrokenPipeError:
        release_stdout()
        return READER_GONE
    return FINE


def say(message: str) -> None:
    """Print a message to stderr."""
    text.say(PROGRAM, message)


def show_warnings() -> None:
    """Print logged warnings to stderr from now to the end of the command."""
    shown = text.showing_log_messages(PROGRAM, "journal", "manager")
    click.get_current_context().with_resource(shown)


def _moment(at_ms: int) -> str:
    from datetime import UTC, datetime

    with suppress(ValueError, OverflowError, OSError):  # imported times may have any value
        return f" ({datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()})"
    return ""


def description(agent: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that show all fields of an agent in the form of `as_json`."""
    for name, value in agent.items():
        if value is None or name == "schema_version":
            continue
        if name in _BLOCKS:
            lines = [escaped(line) for line in value.removesuffix("\n").split("\n")]
            yield from [f"{name}: {lines[0]}"] if len(lines) == 1 else [f"{name}:"]
            yield from (f"  {line}" for line in lines if len(lines) > 1)
        elif name.endswith("_at_ms"):
            yield f"{name}: {value}{_moment(value)}"
        else:
            yield f"{name}: {escaped(value) if isinstance(value, str) else json.dumps(value)}"


def find_agent(fleet: FleetView, ref: str) -> Agent:
    """Return the agent of this id or name, or the only one whose id begins with `ref`."""
    try:
        return fleet.get(ref)
    except UnknownAgentError as error:
        try:
            ids = (agent.agent_id for agent in fleet.agents(include_archived=True))
            agent_id = by_prefix(ids, ref)
        except AmbiguousPrefixError as several:
            raise AmbiguousNameError(str(several)) from error
        if agent_id is None:
            raise
        return fleet.get(agent_id)


def as_json(agent: Agent, signs: Mapping[str, Sign] = {}) -> dict[str, Any]:
    """Return the agent's fields as a JSON object, with the exit of its command and its worker.

    `signs` are those of the workers that run agents.
    """
    exit = exit_of(agent)
    known = {f.name: getattr(agent, f.name) for f in fields(agent)}
    known |= {"attempt": attempt_of(agent), "exit_code": exit.code, "signal": exit.signal}
    return {"schema_version": 1} | known | worker_fields(agent, signs)
