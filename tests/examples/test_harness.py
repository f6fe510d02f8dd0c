"""The example of a harness: it finishes although its process is killed again and again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from journal.docs.examples.harness import PARTS, RUNNING_MAX, STEPS
from manager import read_fleet
from manager.view import FleetView
from tests.examples.examples_support import started
from tests.support import TIMEOUT_S


def steps(printed: str) -> list[tuple[str, int]]:
    """Return the steps that the program called done."""
    found = re.findall(r"^(part \d+): step (\d) is done$", printed, re.MULTILINE)
    return [(name, int(step)) for name, step in found]


def killed(folder: Path, lines: int) -> tuple[FleetView, list[tuple[str, int]]]:
    """Kill the program with SIGKILL after it has printed `lines` lines. Return the fleet on disk,
    and the steps that the program called done."""
    with started("harness.py", folder) as process:
        assert process.stdout
        printed = "".join(process.stdout.readline() for _ in range(lines))
        process.kill()
        printed += process.stdout.read()
    return read_fleet(folder / ".subagents"), steps(printed)


def finished(folder: Path) -> str:
    """Run the program to its end. Return its output."""
    with started("harness.py", folder) as process:
        out, err = process.communicate(timeout=TIMEOUT_S)
        assert (process.returncode, err) == (0, "")
    return out


@pytest.mark.parametrize(
    "kills",
    [
        (40, 12, 35),
        *(pytest.param(kills, marks=pytest.mark.slow) for kills in ((1,), (1, 20, 3, 17), (99,))),
    ],
)
def test_the_harness_survives_sigkill(tmp_path: Path, kills: tuple[int, ...]) -> None:
    """P2: Each run continues from what the last one made durable, and repeats no step that it
    called done, until all agents are completed."""
    said: list[tuple[str, int]] = []
    for count in kills:
        fleet, more = killed(tmp_path, count)
        said += more
        taken = {agent.name: agent.steps_taken for agent in fleet.agents(include_archived=True)}
        assert all(taken[name] > step for name, step in said)
        assert not fleet.agents(status="running")
    out = finished(tmp_path)
    said += steps(out)
    assert len({*said}) == len(said)
    fleet = read_fleet(tmp_path / ".subagents")
    agents = {agent.name: agent for agent in fleet.agents(include_archived=True)}
    assert agents.keys() == {"lead", *PARTS}
    assert {agent.status for agent in agents.values()} == {"completed"}
    assert all(agents[name].steps_taken == STEPS for name in PARTS)
    assert {agents[name].parent_id for name in PARTS} == {agents["lead"].agent_id}
    report = "\n".join(f"{name} has {{'done': {STEPS - 1}}}" for name in PARTS)
    assert agents["lead"].result == report
    assert out.endswith(f"{report}\n")
    assert finished(tmp_path) == f"{report}\n"  # nothing is left to do


def test_the_harness_runs_all_steps_once(tmp_path: Path) -> None:
    """A run that nobody kills takes each step of each of the twenty agents once."""
    assert (len(PARTS), RUNNING_MAX) == (20, 8)
    out = finished(tmp_path)
    assert sorted(steps(out)) == sorted((name, step) for name in PARTS for step in range(STEPS))
