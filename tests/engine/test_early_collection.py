"""Collections of garbage that run before a hold of the owner's lock, and not in one."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from journal._state import early_collection
from journal._state.early_collection import _CHECKS_MAX, EarlyCollection
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


@pytest.mark.skipif("t" in sys.abiflags, reason="all containers would be visited")
def test_new_rows_are_collected_although_as_many_are_freed() -> None:
    """P7: Updates that replace rows make no collection due. Without one, new rows would pile up,
    and the first collection would visit all of them at once."""
    early, rows = EarlyCollection(), [((number,),) for number in range(20_000)]
    gc.collect()
    early.check()
    for number in range(len(rows)):
        rows[number] = ((-number,),)
        early.check()
    new = sum(gc.is_tracked(row) for row in rows)
    assert new <= 2 * _CHECKS_MAX


@pytest.mark.skipif("t" in sys.abiflags, reason="all containers would be visited")
def test_collections_of_the_program_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """No collection is added where the program's own ones visit the new rows."""
    calls: list[int] = []
    monkeypatch.setattr(early_collection, "collect", calls.append)
    early = EarlyCollection()
    for number in range(10 * _CHECKS_MAX):
        if number % _CHECKS_MAX == 0:
            gc.collect(0)
        early.check()
    assert not calls
