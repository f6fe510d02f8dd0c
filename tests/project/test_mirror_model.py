"""`python tools/proof mirror`: checks that the mirror's protocol keeps its promises in the model.

The protocol keeps them in every state that the model reaches, and breaks one if any of its clauses
is dropped. The bounds are small, so that this takes seconds. Longer searches are run by hand, two
of them with the profile `thorough`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from proof import mirror
from proof.fork_states import Forgetting, ForkModel
from proof.mirror_states import Kind, Model, Weakening

from tests.tiers import is_thorough

THOROUGH = pytest.mark.skipif(not is_thorough(), reason="the profile `thorough` searches it")
SMALL = Model(writers=2, numbers=3, blobs=1)
# Elsewhere, one blob at a time is enough for a counter-example.
WITH_TWO_BLOBS = {Weakening.OTHER_AFTER_SILENCE, Weakening.TRIM_TAKES_BASES}


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.slow
def test_the_protocol_keeps_its_promises(kind: Kind) -> None:
    """No acknowledged entry is lost, and no reader leaves the log, in any state of the model."""
    result = mirror.explore(replace(SMALL, kind=kind))
    assert (result.broken, result.trace) == (None, [])
    assert result.states > 10_000


SLOW = dict.fromkeys((Weakening.NO_CHAIN, Weakening.OTHER_AFTER_SILENCE), pytest.mark.slow)


@pytest.mark.parametrize(
    "weakening",
    [pytest.param(each, id=each.name.lower(), marks=SLOW.get(each, ())) for each in Weakening],
)
def test_every_clause_is_needed(weakening: Weakening) -> None:
    """Without any one of its clauses, the protocol breaks a promise, and the steps to that state
    are returned."""
    blobs = 2 if weakening in WITH_TWO_BLOBS else 1
    result = mirror.explore(Model(weakening=weakening, blobs=blobs))
    assert result.broken is not None
    assert result.trace[0] == "an empty store"


@THOROUGH
def test_no_directory_that_comes_back_loses_records() -> None:
    """No fork replaces records of the mirror, and each record of a fork is known to have been in
    the mirror or not, in any state of the model."""
    result = mirror.explore_forks(ForkModel(changes=5, damages=0))
    assert (result.broken, result.trace) == (None, [])
    assert result.states > 100_000


def test_damage_that_the_mirror_can_fix_changes_nothing_else() -> None:
    """A directory with a damaged record that the mirror has keeps its other records in the state,
    and hides none of the mirror's, in any state of a smaller model."""
    result = mirror.explore_forks(ForkModel(changes=4))
    assert (result.broken, result.trace) == (None, [])
    assert result.states > 50_000


OF_DAMAGE = (Forgetting.DAMAGE_DIFFERS, Forgetting.CUT_FIXED)
SLOW_FORKS = {Forgetting.UNCLAIMED_UNNOTED: pytest.mark.slow, Forgetting.PART_STATED: THOROUGH}


@pytest.mark.parametrize(
    "weakening",
    [
        pytest.param(each, id=each.name.lower(), marks=SLOW_FORKS.get(each, ()))
        for each in Forgetting
    ],
)
def test_every_clause_of_the_comparison_is_needed(weakening: Forgetting) -> None:
    """Without any one of its clauses, a comparison accepts a fork, or takes a record for one that
    the mirror had or never had, and is wrong."""
    damages = 1 if weakening in OF_DAMAGE else 0
    result = mirror.explore_forks(ForkModel(weakening, damages=damages))
    assert result.broken is not None
    assert result.trace[0] == "an empty mirror and new directories"


@pytest.mark.slow
def test_a_stream_needs_no_second_list() -> None:
    """A number of a stream is never free again, so a claim that was put there stands."""
    result = mirror.explore(replace(SMALL, kind="stream", weakening=Weakening.NO_SECOND_LIST))
    assert result.broken is None


@pytest.mark.slow
def test_each_bound_limits_the_search() -> None:
    """With any smaller bound, fewer states are reached."""
    tiny = replace(SMALL, numbers=2)
    states = mirror.explore(tiny).states
    smaller = [replace(tiny, writers=1), replace(tiny, numbers=1), replace(tiny, blobs=0)]
    assert [each for each in smaller if mirror.explore(each).states >= states] == []


def test_the_command_reports_what_it_searched(capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints the number of states. It exits with 1, and prints the steps, if a promise
    breaks."""
    bounds = ["--writers", "1", "--numbers", "3", "--changes", "3"]
    assert mirror.main(bounds) == 0
    assert capsys.readouterr().out.count("all promises hold") == 3
    assert mirror.main(["--weaken", "trim_before_blob"]) == 1
    assert "   1  writer 0 lists the blobs\n" in capsys.readouterr().out
    assert mirror.main(["--weaken", "shown_only"]) == 1
    assert "   1  directory 0 claims epoch 1\n" in capsys.readouterr().out
