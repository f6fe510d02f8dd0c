"""The README's example: a harness that finishes although its process is killed again and again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from manager import read_fleet
from manager.view import FleetView
from tests.project.test_readme import SNIPPETS
from tests.support import TIMEOUT_S

(EXAMPLE,) = [snippet for snippet in SNIPPETS if "asyncio" in snippet]
PARTS = [f"part {number}" for number in range(8)]


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-W", "error", "-c", EXAMPLE],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(folder: Path, lines: int) -> FleetView:
    """Kill the example with SIGKILL after it has printed `lines` lines. Return the fleet on
    disk."""
    with start(folder) as child:
        assert child.stdout
        for _ in range(lines):
            assert child.stdout.readline()
        child.kill()
    return read_fleet(folder / ".subagents")


def steps(fleet: FleetView) -> dict[str, int]:
    return {agent.name: agent.steps_taken for agent in fleet.agents(include_archived=True)}


def finished(folder: Path) -> str:
    """Run the example to its end. Return its output."""
    with start(folder) as child:
        out, err = child.communicate(timeout=TIMEOUT_S)
        assert (child.returncode, err) == (0, "")
    return out


@pytest.mark.parametrize("lines", [(1,), (9, 30), (12, 20, 25, 3), (45,)])
def test_the_example_survives_sigkill(tmp_path: Path, lines: tuple[int, ...]) -> None:
    """P2: Each run continues from what the last one had made durable, until all parts are
    completed."""
    before: dict[str, int] = {}
    for count in lines:
        fleet = killed(tmp_path, count)
        after = steps(fleet)
        assert all(after[name] >= taken for name, taken in before.items())
        assert not fleet.agents(status="running")
        before = after
    out = finished(tmp_path)
    for name, taken in before.items():
        status = fleet.get(name).status
        if name != "lead":  # the lead runs again before the first change is read
            assert f"{name} {status} {taken}\n" in out
    fleet = read_fleet(tmp_path / ".subagents")
    assert steps(fleet) == dict.fromkeys(PARTS, 5) | {"lead": 0}
    agents = fleet.agents(status="completed", include_archived=True)
    assert {agent.name for agent in agents} == {"lead", *PARTS}
    assert {agent.parent_id for agent in agents} == {None, fleet.get("lead").agent_id}
    report = "\n".join(f"{name} has {{'done': 4}}" for name in PARTS)
    assert fleet.get("lead").result == report
    assert report in out
    assert report in finished(tmp_path)  # nothing is left to do
    assert read_fleet(tmp_path / ".subagents").agents(include_archived=True) == agents


def test_the_example_is_short() -> None:
    """The example has at most thirty lines of code."""
    lines = EXAMPLE.splitlines()
    assert len([line for line in lines if line]) <= 30
    assert max(map(len, lines)) <= 100
