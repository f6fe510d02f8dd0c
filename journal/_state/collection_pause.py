"""CollectionPause: puts off collections of older objects while a state is rebuilt.

Loading makes many containers and frees few. So one collection after the other would become due, and
visit everything that was loaded before: two fifths of an open with 300,000 dicts. During the pause,
only new containers are visited, and at its end those that have become older since.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

from journal._disk.process import call_in_forked_children
from journal._state.early_collection import HAS_GENERATIONS

T = TypeVar("T")
_NEVER = 1 << 30
_before = gc.get_threshold()  # before the pause that began last


def without_full_collections(build: Callable[[], T]) -> T:
    """Return `build()`. Meanwhile, collections visit new containers only, in all threads.

    If the program has disabled the collector, it stays so.
    """
    global _before
    thresholds = gc.get_threshold()
    is_paused = thresholds[1] == _NEVER  # by another thread's open
    if is_paused or not (HAS_GENERATIONS and thresholds[0] and gc.isenabled()):
        return build()
    try:
        _before = thresholds
        gc.set_threshold(thresholds[0], _NEVER, _NEVER)
        built = build()
        gc.collect(1)
        return built
    finally:
        gc.set_threshold(*thresholds)


def _end_in_child() -> None:
    """End the pause in a child that another thread has forked meanwhile."""
    if gc.get_threshold()[1] == _NEVER:
        gc.set_threshold(*_before)


call_in_forked_children(_end_in_child)
