"""`python tools/proof crashsim`: the long exploration, from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from proof import crashsim

from journal._format import frame
from journal.testing import Bounds, explore
from journal.testing.ledger import Ledger

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
    """The same seeds, in one process or in several, find the same: that is what can be cited."""
    found = []
    for processes in ("1", "2"):
        done = run("--seeds", "3", "--json", "--processes", processes)
        assert done.returncode == 0, done.stderr
        figures = json.loads(done.stdout)
        assert figures.pop("seconds") > 0
        found.append(figures)
    assert found[0] == found[1]
    assert (found[0]["seeds"], found[0]["failure"]) == (3, None)
    assert found[0]["states"] > found[0]["images"] > found[0]["moments"] > 50


def test_crashsim_stops_at_its_bounds() -> None:
    """After so many states, or seconds, at the end of a seed."""
    for limit in (("--states", "10"), ("--seconds", "0.01")):
        done = run(*limit)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("1 seeds, ")


def test_each_report_tells_more_than_the_one_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However often it reports, the last line is not said twice."""
    monkeypatch.setattr(crashsim, "REPORT_EVERY_S", 0.0)
    assert crashsim.main([*SMALL, "--steps", "3", "--seeds", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["1 seeds", "2 seeds", "3 seeds"]


def test_the_same_seed_is_the_same_workload() -> None:
    """What failed is run again by its seed; another one is another."""
    plans = [crashsim.Plan.of(seed, 30) for seed in (7, 7, 8)]
    assert plans[0] == plans[1]
    assert plans[0].steps != plans[2].steps
    one, other = (
        explore(Ledger, crashsim.Plan.of(7, 8).run, options=plans[0].options, bounds=FEW)
        for _ in range(2)
    )
    assert one == other


def test_every_kind_of_step_is_taken() -> None:
    """A hundred seeds have all steps, both durabilities, segments and frames of every size."""
    plans = [crashsim.Plan.of(seed, 30) for seed in range(100)]
    assert {step for plan in plans for step in plan.steps} == set(crashsim.STEPS)
    assert len({plan.options for plan in plans}) == 2 * 4 * 3
    assert {plan.write_bytes_max for plan in plans} == {None, 50, 350}


def test_a_failure_ends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what broke, of which seed, and exits with 1."""
    monkeypatch.setattr(frame, "checksum", lambda data, start=0: 0)
    assert crashsim.main([*SMALL, "--seeds", "9"]) == 1
    said = capsys.readouterr().out
    assert "Plan(seed=1, " in said
    assert "What had been done to the disk:" in said
    found = crashsim.explored(1, 8, Bounds(outcomes_max=16))
    assert found.failure is not None
    assert found.failure in said
