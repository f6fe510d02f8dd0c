"""Every call and command that opens a fleet, and how each must refuse one that no manager wrote."""

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

# A call that hangs never ends; any other may take this long on a loaded machine.
TIME_S = 10
A = agent_id("a")

# --- the openers ---

Opener = Callable[[Path], str]


def inspected(*args: str) -> Opener:
    """Return an opener that runs a verb of journal-inspect and expects exit code 4."""

    def run(workspace: Path) -> str:
        verb, *rest = args
        result = CliRunner().invoke(cli, [verb, str(workspace / ".subagents"), *rest])
        assert isinstance(result.exception, SystemExit | None), result.exception
        assert result.exit_code == 4, result.output
        return result.stderr

    return run


def raised(call: Callable[[Path], object]) -> Opener:
    """Return an opener that runs a call and expects FormatVersionError."""

    def run(workspace: Path) -> str:
        with pytest.raises(FormatVersionError) as caught:
            call(workspace)
        return str(caught.value)

    return run


def state(workspace: Path) -> Path:
    return workspace / ".subagents"


OPENERS: dict[str, Opener] = {
    "open": raised(lambda workspace: SubAgentManager.open(workspace).close()),
    "read_fleet": raised(lambda workspace: read_fleet(state(workspace))),
    "read_fleet(at)": raised(lambda workspace: read_fleet(state(workspace), at=1 << 40)),
    "read_history": raised(lambda workspace: read_history(state(workspace), A)),
    "follow_fleet": raised(lambda workspace: list(islice(follow_fleet(state(workspace)), 99))),
    "agents": inspected("agents"),
    "agents --tree": inspected("agents", "--tree"),
    "show": inspected("show", A),
    "history": inspected("history", A),
    "diff": inspected("diff", str(BASE_LSN), "13"),
}
# These verbs show bytes, not a fleet. They must end, without a word about the fleet.
INDIFFERENT = ("info", "verify", "log", "stats", "checkpoint", "report")


def check_refused(
    tmp_path: Path, items: Sequence[Any] | None, records: Sequence[Any], *expected: str
) -> None:
    """Check that each opener's message contains all of `expected`, and that nothing is changed."""
    files = forged(items, records)
    directory = write(tmp_path, files)
    for name, opener in OPENERS.items():
        with watchdog(TIME_S):
            message = opener(tmp_path)
        assert all(part in message for part in expected), (name, message)
        assert "version that wrote it" in message, (name, message)
        assert len(message) < 1000
    for verb in INDIFFERENT:
        with watchdog(TIME_S):
            output = [] if verb != "report" else ["--output", str(tmp_path / "report.html")]
            result = CliRunner().invoke(cli, [verb, str(directory), *output])
        assert result.exit_code in (0, 1), (verb, result.output)
    left_files = {
        path.name: path.read_bytes() for path in directory.iterdir() if path.name != "LOCK"
    }
    assert left_files == files
