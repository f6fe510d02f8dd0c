"""EarlyCollection: lets a collection of garbage that is almost due run before a hold, not in one.

CPython collects when the containers that were made exceed those that were freed by a threshold
(`gc.get_threshold`). So a hold that makes one container may run a full collection, which visits all
containers of the program, and finalizers of foreign code. Here the missing containers are made
between two holds, and freed at once. No setting of the collector is changed.

If updates free as many containers as they make, no collection becomes due for a long time. The
first one then visits all new rows at once: 20,000 of a million rows take 40 ms, and all other
threads wait. So new containers are collected after fifty checks without a collection.
"""

from __future__ import annotations

import sys
from gc import collect, get_count, get_stats, get_threshold, isenabled

# A hold makes some containers that stay: a row, a chunk, the parts of a decoded record.
_MARGIN_MIN = 64
_LATE = 3 / 4  # of the threshold; from here on, a collection may be started early
_CHECKS_MAX = 50  # without a collection; OwnerLock checks before one hold in 16
HAS_GENERATIONS = "t" not in sys.abiflags  # a free-threaded CPython visits all containers


class EarlyCollection:
    """Watches how fast containers are made from one check to the next."""

    __slots__ = ("_checks", "_collections", "_count")

    def __init__(self) -> None:
        self._count = self._checks = self._collections = 0

    def check(self) -> None:
        """Let a collection run now if one may be due before the next check. Hold no lock."""
        count, threshold = get_count()[0], get_threshold()[0]
        made, self._count = count - self._count, count
        self._checks += 1
        if self._checks >= _CHECKS_MAX:
            self._checks = 0
            if threshold and isenabled() and HAS_GENERATIONS:
                self._collect_new()
        if count > threshold * _LATE and isenabled():
            missing = threshold - count
            if missing < max(2 * made, _MARGIN_MIN):
                # Sets, because CPython keeps freed lists and dicts, whose reuse does not count.
                [set() for _ in range(missing + 1)]

    def _collect_new(self) -> None:
        """Collect the new containers, if no collection has done that since the last call."""
        collections = sum(generation["collections"] for generation in get_stats())
        if collections == self._collections:
            collect(0)  # a tuple of new tuples is left to the next collection of the old ones
            collect(1)
            collections += 2
        self._collections = collections
