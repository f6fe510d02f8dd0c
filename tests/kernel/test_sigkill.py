"""A real process, killed dozens of times during its work. See tests/soak."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.soak.soak_sigkill import Soak

KILLS = 40


@pytest.mark.slow
def test_a_killed_process_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """P1, P2, P3, P5, P6: After each kill, the state opens with everything that was acknowledged.

    The records of each writer are in order, and each batch is complete or absent, in both
    durabilities.
    """
    seed = random.SystemRandom().getrandbits(32)
    report = Soak(tmp_path / "journal", seed).run(KILLS)
    print(report)
    assert report.kills == KILLS
    assert report.recovered >= report.acknowledged > KILLS, "the process has worked"
    assert report.epochs > KILLS / 2
