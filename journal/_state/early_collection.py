"""EarlyCollection: lets a collection of garbage that is almost due run before a hold, not in one.

CPython collects when the containers that were made exceed those that were freed by a threshold
(`gc.get_threshold`). So a hold that makes one container may run a full collection, which visits all
containers of the program, and finalizers of foreign code. Here the missing containers are made
between two holds, and freed at once. No setting of the collector is changed.
"""

from __future__ import annotations

from gc import get_count, get_threshold, isenabled

# A hold makes some containers that stay: a row, a chunk, the parts of a decoded record.
_MARGIN_MIN = 64
_LATE = 3 / 4  # of the threshold; from here on, a collection may be started early


class EarlyCollection:
    """Watches how fast containers are made from one check to the next."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def check(self) -> None:
        """Let a collection run now if one may be due before the next check. Hold no lock."""
        count, threshold = get_count()[0], get_threshold()[0]
        made, self._count = count - self._count, count
        if count > threshold * _LATE and isenabled():
            missing = threshold - count
            if missing < max(2 * made, _MARGIN_MIN):
                # Sets, because CPython keeps freed lists and dicts, whose reuse does not count.
                [set() for _ in range(missing + 1)]
