"""`python tools/proof model`: checks that the recovery rule keeps its promises in the model.

The rule keeps them in every state that the model reaches, and breaks one if any of its clauses is
dropped. The bounds are small, so that this takes seconds. Longer searches are run by hand.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
from proof import model
from proof.recovery_model import Durability, Mode, Model, Weakening

from tests.tiers import slow_unless

pytestmark = pytest.mark.usefixtures("few_to_collect")
ROOT = Path(__file__).resolve().parents[2]
TOGETHER = "commits that were in flight together are lost, without evidence"
# Two records are too few to break a promise with these.
NEEDS_3_RECORDS = {
    Weakening.FRAMES_AFTER_MARK,
    Weakening.NO_NEW_EPOCH,
    Weakening.DROP_BELOW_NEWEST,
}
LONG_SEARCHES = {
    Weakening.DENSE_FROM_OLDER_CHECKPOINT,
    Weakening.DROP_BEFORE_PUBLISHED,
    Weakening.DROP_BELOW_NEWEST,
}


@pytest.mark.parametrize(
    ("durability", "mode"),
    slow_unless(
        lambda durability, mode: (durability, mode) != ("os", "damage"),
        product(get_args(Durability), get_args(Mode)),
    ),
)
def test_the_rule_keeps_its_promises(durability: Durability, mode: Mode) -> None:
    """P1 to P6 hold after each crash of each state, and damage has every outcome that P4 allows."""
    result = model.explore(Model(durability, mode, records=2))
    assert (result.broken, result.trace) == (None, [])
    assert result.states > 3000
    assert result.crashes > 2 * result.states
    allowed = {"open refuses", "nothing is lost", "one commit is lost, without evidence"}
    allowed |= {"unsynced commits are lost, without evidence" if durability == "os" else TOGETHER}
    assert set(result.damage) == (allowed if mode == "damage" else set())


@pytest.mark.parametrize(
    "weakening",
    slow_unless(lambda weakening: weakening not in LONG_SEARCHES, Weakening),
    ids=lambda weakening: weakening.name.lower(),
)
def test_every_clause_is_needed(weakening: Weakening) -> None:
    """Without any one of its clauses, the rule breaks a promise, and the steps to that state are
    returned."""
    records = 3 if weakening in NEEDS_3_RECORDS else 2
    result = model.explore(Model(weakening.durability, weakening.mode, weakening, records=records))
    assert result.broken is not None
    assert re.match("P[1-6]: ", result.broken)
    assert result.trace[0] == "an empty directory"
    assert [line for line in result.trace if line.startswith(("KILL", "POWER CUT"))]


def test_the_trace_is_the_shortest() -> None:
    """The trace is the shortest one: a commit that is acknowledged before its sync is lost by the
    first power cut after it."""
    weakening = Weakening.ACKNOWLEDGE_BEFORE_SYNC
    result = model.explore(Model("disk", "crash", weakening))
    assert result.broken == "P2: open yields up to LSN 0 of 1 acknowledged"
    assert [re.split(r" {2,}", line)[0] for line in result.trace[4:]] == [
        "open: state the application",
        "give segment 1 of epoch 1 its name",
        "sync the segment's name",
        "write a frame of 1",
        "POWER CUT",
        "open: sync the directory",
        "open: sync the last segment",
    ]


@pytest.mark.slow
def test_each_bound_limits_the_search() -> None:
    """With any smaller bound, fewer states are reached."""
    base = Model(records=2)
    smaller = [
        replace(base, records=1),
        replace(base, epochs=1),
        replace(base, checkpoints=1),
        replace(base, frames=1),
        replace(base, syncs=1),
    ]
    states = model.explore(base).states
    assert [each for each in smaller if model.explore(each).states >= states] == []
    base = Model(mode="damage", records=2, epochs=1)
    states = model.explore(base).states
    assert model.explore(replace(base, neighbors=1)).states < states


@pytest.mark.parametrize(("syncs", "records"), [(1, 2), pytest.param(3, 3, marks=pytest.mark.slow)])
def test_only_commits_in_flight_together_are_lost_without_evidence(
    syncs: int, records: int
) -> None:
    """P4: If only one sync is in flight at a time, damage without evidence loses one commit. If
    three are, it may lose several, and all of them were in flight together."""
    bounds = Model(mode="damage", records=records, epochs=1, checkpoints=1, syncs=syncs)
    result = model.explore(bounds)
    assert result.broken is None
    assert result.damage["one commit is lost, without evidence"]
    assert (TOGETHER in result.damage) == (syncs > 1)


@pytest.mark.slow
def test_damage_below_the_checkpoint_is_passed_over() -> None:
    """P4, P5: An open passes over one to three damaged neighbors that a checkpoint covers, and a
    crash after it loses nothing. The older rule refused all of these states."""
    passed_over = []
    for neighbors in (1, 3):
        base = Model(mode="damage", records=3, epochs=1, checkpoints=1, neighbors=neighbors)
        result = model.explore(base)
        assert (result.broken, result.trace) == (None, [])
        passed_over.append(result.passed_over)
    assert 100 < passed_over[0] < passed_over[1]


def test_a_frame_that_straddles_the_checkpoint_is_not_passed_over() -> None:
    """P1: A checkpoint in the middle of a frame does not cover that frame, so damage to it would
    lose the rest."""
    weakening = Weakening.PASS_STRADDLING_FRAME
    result = model.explore(Model("disk", "damage", weakening, records=2))
    assert result.broken == "P1: open yields records (0, -1), but (0, 1) were appended"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", str(ROOT / "tools" / "proof"), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_command_prints_what_is_proved() -> None:
    """The command prints how many states were searched, and what that proves within which
    bounds."""
    done = run("model", "--records", "1", "--durability", "disk", "--mode", "crash")
    assert done.returncode == 0, done.stderr
    searched, _, proved = done.stdout.partition("\n\n")
    assert re.fullmatch(
        r"disk, crash: [\d,]+ states, [\d,]+ crashes, [\d.]+ s: all promises hold", searched
    )
    bounds = "(records 1, epochs 2, checkpoints 2, frames 2, syncs 2, neighbors 3)"
    assert (
        proved == f"Proved of the model, within the bounds {bounds}:\n\n{model.PROVED['crash']}\n"
    )


def test_the_command_exits_with_1_if_a_promise_breaks() -> None:
    """The command prints the broken promise, and the numbered steps of the shortest way to it."""
    done = run("model", "--records", "2", "--weaken", "split_batch")
    assert done.returncode == 1
    assert "P3: open yields up to LSN 1, but batches are ((0, 1),)" in done.stdout
    assert re.search(
        r"^   7  write a frame of 1 and a frame of 1 +1-1\[", done.stdout, re.MULTILINE
    )


def test_wrong_arguments_are_refused() -> None:
    """An unknown program, an unknown weakening, and a bound that allows no step are refused."""
    assert run("no_such_proof").returncode == 2
    assert run("model", "--weaken", "no_such_weakening").returncode == 2
    assert run("model", "--records", "0").returncode == 2
