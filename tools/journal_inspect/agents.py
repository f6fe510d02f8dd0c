"""agents: the fleet of a manager's journal, as an open would find it."""

from __future__ import annotations

from collections import Counter

from journal import FormatVersionError, JournalError
from journal_inspect.exits import FINE, NEGATIVE, RefusedError
from journal_inspect.objects import Format, as_object, put_objects
from journal_inspect.text import escaped, local_time, put_lines, say, table
from manager import Agent, FleetView, read_fleet

_HEADER = ("AGENT", "NAME", "STATUS", "PARENT", "STEPS", "TOKENS", "UPDATED", "WHAT")
_WHAT_WIDTH = 60


def show_agents(path: str, form: Format) -> int:
    fleet = _fleet(path)
    agents = fleet.agents(include_archived=True)
    if form != "text":
        put_objects(map(as_object, agents), form)
    elif agents:
        put_lines(table(_HEADER, map(_row, agents)))
    if not agents:
        say(f"{path}: no agents")
        return NEGATIVE
    counts = Counter(agent.status for agent in agents)
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    say(f"{path}: {told}; as of LSN {fleet.lsn}")
    return FINE


def _fleet(path: str) -> FleetView:
    try:
        return read_fleet(path)
    except FormatVersionError as error:
        raise _refused(path, str(error)) from error
    except JournalError:
        raise
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        # Records of another program that happen to look like a manager's.
        raise _refused(path, f"its records make no fleet: {error!r}") from error


def _refused(path: str, why: str) -> RefusedError:
    return RefusedError(
        f"{path}: no journal of a manager that this version knows: {why}; "
        f"what is in it: journal-inspect log {path}"
    )


def _row(agent: Agent) -> tuple[object, ...]:
    # Escapes are longer than what they stand for: cut what is shown.
    what = escaped(agent.reason or agent.result or agent.prompt)
    return (
        agent.agent_id,
        None if agent.name == agent.agent_id else agent.name,
        agent.status,
        agent.parent_id,
        agent.steps_taken,
        agent.tokens_used,
        local_time(agent.updated_at_ms * 1_000_000),
        what if len(what) <= _WHAT_WIDTH else f"{what[: _WHAT_WIDTH - 3]}...",
    )
