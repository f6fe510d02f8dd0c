"""Random damage, kills, forks and roll-backs of directories that share a mirror."""

from __future__ import annotations

import pytest

from tests.soak.soak_fixed import soak
from tests.tiers import sample, slow_but_every


@pytest.mark.parametrize("seed", slow_but_every(5, sample(2, range(60))))
def test_no_damage_hides_records(seed: int) -> None:
    """After each open, everything that could be read before is in the state or in a directory that
    was put aside, and everything that the mirror has is in the state."""
    soak(seed)
