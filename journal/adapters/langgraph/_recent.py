"""RecentKeys: keys that are remembered for a while, in bounded memory."""

from __future__ import annotations

from collections.abc import Hashable

_KEYS = 5_000  # of each generation; some 3 MB


class RecentKeys:
    """The newest keys, each with a set of notes: at least `_KEYS`, at most twice as many.
    Thread-safe."""

    def __init__(self) -> None:
        self._newer: dict[Hashable, set[tuple[str, Hashable]]] = {}
        self._older: dict[Hashable, set[tuple[str, Hashable]]] = {}

    def add(self, key: Hashable, *notes: tuple[str, Hashable]) -> None:
        """Add a key, or notes to it."""
        newer = self._newer
        if key not in newer and len(newer) >= _KEYS:
            self._older, self._newer = newer, {key: set(notes)}
        newer.setdefault(key, set()).update(notes)

    def notes(self, key: Hashable) -> set[tuple[str, Hashable]]:
        return self._newer.get(key, set()) | self._older.get(key, set())

    def __contains__(self, key: Hashable) -> bool:
        return key in self._newer or key in self._older
