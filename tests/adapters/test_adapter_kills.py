"""A real process that uses all adapters in one journal, killed while it works. See tests/soak."""

from __future__ import annotations

import random

import pytest

from tests.installed import import_package

KILLS = 4


@pytest.mark.slow
def test_killed_adapters_lose_nothing_acknowledged() -> None:
    """P1, P2, P3: after each kill, the stores return everything that was acknowledged, and each
    checkpoint, turn, conversation and task is whole."""
    for package in ("langgraph", "agents", "pydantic_ai", "a2a"):
        import_package(package)
    from tests.soak.soak_adapters import soak

    seed = random.SystemRandom().getrandbits(32)
    print(seed)
    assert soak(KILLS, seed) > KILLS, "the process has worked"
