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


def test_records_that_no_evidence_is_left_of_are_no_loss() -> None:
    """An open need not find a record that no reader finds, although a copy of its frame is whole:
    with this seed, damage hits all records and all evidence that they were durable."""
    soak(30171)
