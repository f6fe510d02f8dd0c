"""Every door to a fleet, and what each of them has to say of one that no manager wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from journal_inspect.commands.cli import cli

from journal import FormatVersionError
from manager import SubAgentManager, follow_fleet, read_fleet, read_history
from tests.crash.fleet_forge import BASE_LSN, agent_id, forged, write
from tests.crash.hostile_support import watchdog

# What does not end never does; a loaded machine may take this long for what does.
TIME_S = 10
A = agent_id("a")

# --- the doors ---

Door = Callable[[Path], str]


def inspected(*args: str) -> Door:
    """Return a door that is a verb of journal-inspect, and has to exit with 4."""

    def ask(workspace: Path) -> str:
        verb, *rest = args
        result = CliRunner().invoke(cli, [verb, str(workspace / ".subagents"), *rest])
        assert isinstance(result.exception, SystemExit | None), result.exception
        assert result.exit_code == 4, result.output
        return result.stderr

    return ask


def raised(call: Callable[[Path], object]) -> Door:
    """Return a door that is a call, and has to raise FormatVersionError."""

    def ask(workspace: Path) -> str:
        with pytest.raises(FormatVersionError) as caught:
            call(workspace)
        return str(caught.value)

    return ask


def state(workspace: Path) -> Path:
    return workspace / ".subagents"


DOORS: dict[str, Door] = {
    "open": raised(lambda it: SubAgentManager.open(it).close()),
    "read_fleet": raised(lambda it: read_fleet(state(it))),
    "read_fleet(at)": raised(lambda it: read_fleet(state(it), at=1 << 40)),
    "read_history": raised(lambda it: read_history(state(it), A)),
    "follow_fleet": raised(lambda it: list(islice(follow_fleet(state(it)), 99))),
    "agents": inspected("agents"),
    "agents --tree": inspected("agents", "--tree"),
    "show": inspected("show", A),
    "history": inspected("history", A),
    "diff": inspected("diff", str(BASE_LSN), "9"),
}
# These show bytes, not a fleet. They say nothing of it, and end.
INDIFFERENT = ("info", "verify", "log", "stats", "checkpoint", "report")


def check_refused(
    tmp_path: Path, items: Sequence[Any] | None, records: Sequence[Any], *told: str
) -> None:
    """Each door says all of `told`, and neither changes anything nor shows Python's own words."""
    files = forged(items, records)
    directory = write(tmp_path, files)
    for name, door in DOORS.items():
        with watchdog(TIME_S):
            message = door(tmp_path)
        assert all(words in message for words in told), (name, message)
        assert "version that wrote it" in message, (name, message)
        assert len(message) < 1000
    for verb in INDIFFERENT:
        with watchdog(TIME_S):
            output = [] if verb != "report" else ["--output", str(tmp_path / "report.html")]
            result = CliRunner().invoke(cli, [verb, str(directory), *output])
        assert result.exit_code in (0, 1), (verb, result.output)
    found = {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "LOCK"}
    assert found == files
