"""`python tools/proof leases`: checks that the workers' protocol keeps its promises in the model.

The bounds here are small. By hand, larger ones are searched.
"""

from __future__ import annotations

from typing import get_args

import pytest
from proof import leases
from proof.leases_model import Kind, Model, Weakening

from tests.tiers import slow_unless

SMALL = Model(records=3)
# The kind of failover in which a clause is needed soonest.
NEEDED_IN: dict[Weakening, Kind] = dict.fromkeys(Weakening, "mirror")
QUICK = (Weakening.UNSETTLED_START, Weakening.UNSETTLED_STOP, Weakening.BEGIN_UNCONFIRMED)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_the_protocol_keeps_its_promises(kind: Kind) -> None:
    """No state within the bounds breaks a promise, whatever is lost, doubled and late."""
    result = leases.explore(Model(kind, workers=1, records=2))
    assert (result.broken, result.trace) == (None, [])
    assert result.states > 1000


@pytest.mark.slow
def test_the_protocol_keeps_its_promises_with_a_longer_log() -> None:
    """The same holds for a log in which a lease ends, and its LSNs are given again."""
    assert leases.explore(SMALL).broken is None


@pytest.mark.parametrize("weakening", slow_unless(lambda each: each in QUICK, Weakening))
def test_no_clause_can_be_left_out(weakening: Weakening) -> None:
    """Without any of its clauses, the protocol breaks a promise, and the search finds out how."""
    result = leases.explore(SMALL._replace(kind=NEEDED_IN[weakening], weakening=weakening))
    assert result.broken
    assert result.trace[0] == "a queued agent"


def test_the_command_prints_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    """The command exits with 1 and prints the steps if a promise breaks, and otherwise with 0."""
    small = ["--records", "2", "--workers", "1", "--leases", "1", "--kind", "mirror"]
    assert leases.main(small) == 0
    assert "all promises hold" in capsys.readouterr().out
    assert leases.main([*small, "--weaken", "begin_unconfirmed"]) == 1
    assert "its agent had begun" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        leases.main(["--records", "0"])
