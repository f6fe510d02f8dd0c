"""Process: the process that uses a simulated disk."""

from __future__ import annotations

from journal.testing.arguments import check_whole


class Process:
    """A process that uses the disk. It may be set to crash after a number of mutations."""

    def __init__(self) -> None:
        self.has_crashed = False
        self._crash_at: int | None = None

    def crash_after(self, count: int, done: int) -> None:
        """Crash once the disk has done `count` mutations after the `done` ones. Raises TypeError or
        ValueError for a number that it can't reach."""
        check_whole("count", count)
        self._crash_at = done + count

    def reach(self, mutations: int) -> None:
        """Note that a mutation is about to follow `mutations` others."""
        if self._crash_at is not None and mutations >= self._crash_at:
            self.has_crashed = True
