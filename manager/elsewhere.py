"""Elsewhere: the calls that a manager makes to its workers in other processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from manager.layouts import Record


class Workers(Protocol):
    """The workers of a dispatcher. Any thread may call the methods, in any event loop."""

    @property
    def is_read(self) -> bool:
        """True if another process has asked for output in the last second."""

    def check_spawn(self, record: Record) -> None:
        """Raise ValueError if no message can carry the agent of a spawn record to a worker."""

    async def output(
        self,
        *,
        worker: str,
        agent_id: str,
        start: int,
        stream: str,
        position: int,
        at: str | None = None,
    ) -> dict[str, Any]:
        """Return a piece of what a command has printed on a worker, as a reply has it.

        `worker` is that of the agent's lease, and `at` the one that has answered before. `start` is
        the number of the start, and `position` the number of bytes before the piece. Raise
        TypeError or ValueError for wrong arguments, and RequestError.
        """

    async def signs(self, workers: list[str]) -> list[tuple[str, str, float]]:
        """Return the id, the machine and the time since the last sign of life, in seconds, of those
        of these workers that were heard.

        Raises TypeError or ValueError for wrong arguments, and RequestError.
        """

    def forget(self, workers: Mapping[str, str], lsn: int) -> None:
        """Remove the output of removed agents, given with their workers, from all workers that can
        be reached, once the removal of LSN `lsn` can't be lost. This waits for nothing."""
