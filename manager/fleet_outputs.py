"""FleetOutputs: the outputs of the commands of a fleet's agents, removed with the agents."""

from __future__ import annotations

from collections.abc import Iterable

from journal import ClosedError, DurableState, FailedError
from manager import clock
from manager.fleet import Fleet
from manager.outputs import OutputCleanup

_DURABLE_TIMEOUT_S = 5.0


class FleetOutputs:
    """The outputs beside a fleet's journal. Only a manager on a real disk has one."""

    def __init__(self, state: DurableState[Fleet]) -> None:
        self._state = state
        self._cleanup = OutputCleanup(state.journal.path)

    def sweep(self) -> None:
        """Remove the output files of removed agents."""
        self._cleanup.sweep(self._state.machine.rows, self._wait_durable)

    def remove(self, agent_ids: Iterable[str] = ()) -> None:
        """Remove the outputs of those agents that are gone, once their removal is durable."""
        self._add(agent_ids)
        self._cleanup.remove_durable(self._state.journal.durable_lsn)

    def wait_removed(self, agent_ids: Iterable[str]) -> None:
        """Wait until the removals of those agents are durable, and remove their outputs."""
        if self._add(agent_ids):
            self._wait_durable()  # otherwise a later removal, the close or an open does the rest
            self.remove()

    def _wait_durable(self) -> bool:
        """Wait a while until all removals are durable, and return whether they are."""
        until_s = clock.monotonic() + _DURABLE_TIMEOUT_S
        try:
            self._state.wait_durable(timeout_s=_DURABLE_TIMEOUT_S)
        except TimeoutError:
            if clock.monotonic() < until_s:  # a signal handler has raised it
                raise
            return False
        except (FailedError, ClosedError):
            return False
        return True

    def _add(self, agent_ids: Iterable[str]) -> bool:
        rows = self._state.machine.rows
        gone = [agent_id for agent_id in agent_ids if agent_id not in rows]
        if gone:
            self._cleanup.add(self._state.journal.last_lsn, gone)
        return bool(gone)
