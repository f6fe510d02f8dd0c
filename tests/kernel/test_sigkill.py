"""A real process, killed dozens of times in the midst of its work. See tests/soak."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.soak.soak_sigkill import Soak

KILLS = 40


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_to_sigkill(tmp_path: Path) -> None:
    """P1, P2, P3, P5, P6: after each kill the state opens, has all that was acknowledged, of each
    writer the records in order, and of each batch all or nothing. In both durabilities."""
    seed = random.SystemRandom().getrandbits(32)
    report = Soak(tmp_path / "journal", seed).run(KILLS)
    print(report)
    assert report.kills == KILLS
    assert report.recovered >= report.acknowledged > KILLS, "it did get to work"
    assert report.epochs > KILLS / 2
