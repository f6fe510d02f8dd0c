"""Collections of garbage that run before a hold of the owner's lock, and not in one."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from journal._state.early_collection import EarlyCollection
from journal._state.owner_lock import OwnerLock

HOLDS = 5000


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """Give the collector the settings of a new process."""
    before, was_enabled = gc.get_threshold(), gc.isenabled()
    gc.set_threshold(700, 10, 10)
    gc.enable()
    yield
    gc.set_threshold(*before)
    if not was_enabled:
        gc.disable()


@pytest.mark.parametrize("made", [1, 4, 10])
def test_no_collection_begins_inside_a_hold(made: int) -> None:
    """P7: The lock is not held while a collection runs, although the containers that make it due
    are made under the lock."""
    lock, kept = OwnerLock(), list[Any]()
    inside, outside = 0, 0

    def note(phase: str, _: dict[str, int]) -> None:
        nonlocal inside, outside
        inside += phase == "start" and lock._lock.locked()
        outside += phase == "start" and not lock._lock.locked()

    def keep(_: None) -> None:
        kept.extend({number} for number in range(made))

    gc.callbacks.append(note)
    try:
        for _ in range(HOLDS):
            lock.run(keep, None)
    finally:
        gc.callbacks.remove(note)
    # The first may be inside, because no earlier check shows how many containers a hold makes.
    assert inside <= 1
    assert outside >= HOLDS * made // 700


@pytest.mark.parametrize("change", [gc.disable, lambda: gc.set_threshold(0)])
def test_a_collector_that_is_switched_off_stays_off(change: Any) -> None:
    """A check lets nothing be collected that the program has told the collector to leave."""
    change()
    collections = sum(each["collections"] for each in gc.get_stats())
    early, kept = EarlyCollection(), list[Any]()
    for _ in range(100):
        kept += [[], [], [], []]
        early.check()
    assert sum(each["collections"] for each in gc.get_stats()) == collections
