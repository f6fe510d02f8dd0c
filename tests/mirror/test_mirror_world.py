"""The fence in a whole world: writers and a follower over a network that loses, delays and
reorders."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal._mirror.memory_store import MemoryStore
from tests.mirror.world import SequenceStore, run


@pytest.mark.parametrize("make_store", [MemoryStore, SequenceStore])
@given(data=st.data())
def test_nothing_acknowledged_is_lost(
    make_store: Callable[[], MemoryStore], data: st.DataObject
) -> None:
    """Whatever is lost, late, paused, rolled up and trimmed, each claim that stands follows all
    that was acknowledged, and every reader finds it."""
    run(lambda most: data.draw(st.integers(0, most)), make_store(), steps=40)
