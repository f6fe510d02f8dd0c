"""A real process that delivers results, killed again and again."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from manager import read_fleet
from tests.support import bounded
from tests.tiers import sample

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("delivery_child.py")


def killed(folder: Path, lines: int, parts: int) -> tuple[bool, set[str]]:
    """Run the child until it has printed `lines` lines, and kill it. Return whether it had ended,
    and the names that it called durably taken."""
    command = [sys.executable, str(CHILD), str(parts)]
    with (
        subprocess.Popen(
            command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
        ) as process,
        bounded(process),
    ):
        assert process.stdout
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()
        durable = {line.split(" ", 1)[1].strip() for line in said if line.startswith("durable")}
        return process.wait() == 0, durable


SLOW = [pytest.param(25, seed, marks=pytest.mark.slow) for seed in sample(2, range(4))]


@pytest.mark.parametrize(("kills", "seed"), [(3, 0), *SLOW])
def test_no_kill_loses_or_doubles_a_result(tmp_path: Path, kills: int, seed: int) -> None:
    """P2: However often the process is killed between a result, its taking and the next durable
    step, the lead's checkpoint has each taken result once, and keeps what was durably taken."""
    parts = kills * 2
    dice = random.Random(seed)
    durable: set[str] = set()
    for _ in range(kills):
        has_ended, more = killed(tmp_path, dice.randrange(1, 12), parts)
        durable |= more
        agents = {
            agent.name: agent
            for agent in read_fleet(tmp_path / ".subagents").agents(include_archived=True)
        }
        took = agents["lead"].checkpoint or [] if "lead" in agents else []
        assert len({*took}) == len(took)
        assert durable <= {*took} == {a.name for a in agents.values() if a.taken_by is not None}
        if has_ended:
            break
    ended, more = killed(tmp_path, 10**4, parts)
    assert ended
    lead = read_fleet(tmp_path / ".subagents").get("lead")
    assert sorted((lead.result or "").replace("part ", "").split()) == sorted(
        str(number) for number in range(parts)
    )
