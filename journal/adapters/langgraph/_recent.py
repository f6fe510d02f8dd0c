"""RecentKeys: keys that are remembered for a while, in bounded memory."""

from __future__ import annotations

from collections.abc import Hashable

_KEYS = 5_000  # of each generation; some 1 MB


class RecentKeys:
    """The last `_KEYS` keys that were added, at least, and at most twice as many. Thread-safe."""

    def __init__(self) -> None:
        self._newer: set[Hashable] = set()
        self._older: set[Hashable] = set()

    def add(self, key: Hashable) -> None:
        """Add a key."""
        newer = self._newer
        if len(newer) >= _KEYS:
            self._older, self._newer = newer, {key}
        newer.add(key)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._newer or key in self._older
