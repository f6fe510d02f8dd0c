"""`python tools/proof crashsim`: a long exploration from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from proof import crashsim
from proof.ledger import Ledger

from journal._format import frame
from journal.testing import Bounds, explore

ROOT = Path(__file__).resolve().parents[2]
FEW = Bounds(outcomes_max=16, sequels=0)
SMALL = ("--steps", "8", "--outcomes-max", "16", "--sequels", "0")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", str(ROOT / "tools" / "proof"), "crashsim", *SMALL, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_crashsim_reports_how_much_it_explored() -> None:
    """The same seeds give the same figures, in one process or in several."""
    results = []
    for processes in ("1", "2"):
        done = run("--steps", "5", "--seeds", "2", "--json", "--processes", processes)
        assert done.returncode == 0, done.stderr
        figures = json.loads(done.stdout)
        assert figures.pop("seconds") > 0
        results.append(figures)
    assert results[0] == results[1]
    assert (results[0]["seeds"], results[0]["failure"]) == (2, None)
    assert results[0]["states"] > results[0]["images"] > results[0]["moments"] > 50


def test_crashsim_stops_at_its_bounds() -> None:
    """The command stops at its bound of states or of seconds, at the end of a seed."""
    for limit in (("--states", "10"), ("--seconds", "0.01")):
        done = run("--steps", "1", *limit)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("1 seeds, ")


@pytest.mark.slow
def test_no_report_is_printed_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line is not printed twice, however often the command reports."""
    monkeypatch.setattr(crashsim, "REPORT_EVERY_S", 0.0)
    assert crashsim.main([*SMALL, "--steps", "1", "--seeds", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["1 seeds", "2 seeds", "3 seeds"]


@pytest.mark.parametrize("steps", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_same_seed_is_the_same_workload(steps: int) -> None:
    """A seed always gives the same workload, and another seed another one."""
    plans = [crashsim.Plan.of(seed, 30) for seed in (7, 7, 8)]
    assert plans[0] == plans[1]
    assert plans[0].steps != plans[2].steps
    one, other = (
        explore(Ledger, crashsim.Plan.of(7, steps).run, options=plans[0].options, bounds=FEW)
        for _ in range(2)
    )
    assert one == other


def test_every_kind_of_step_is_taken() -> None:
    """A hundred seeds contain all steps, both durabilities, and segments and frames of every
    size."""
    plans = [crashsim.Plan.of(seed, 30) for seed in range(100)]
    assert {step for plan in plans for step in plan.steps} == set(crashsim.STEPS)
    assert len({plan.options for plan in plans}) == 2 * 4 * 3
    assert {plan.write_bytes_max for plan in plans} == {None, 50, 350}


def test_a_failure_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failure ends the run. The command prints the failure and its seed, and exits with 1."""
    monkeypatch.setattr(frame, "checksum", lambda data, start=0: 0)
    assert crashsim.main([*SMALL, "--seeds", "9"]) == 1
    output = capsys.readouterr().out
    assert "Plan(seed=1, " in output
    assert "Operations on the disk before it:" in output
    explored = crashsim.explored(1, 8, Bounds(outcomes_max=16))
    assert explored.failure is not None
    assert explored.failure in output
