"""FleetOutputs: what the commands of a fleet's agents have printed, removed with the agents."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from journal import DurableState
from manager.fleet import Fleet
from manager.outputs import OutputCleanup

_DURABLE_TIMEOUT_S = 5.0


class FleetOutputs:
    """The outputs beside a fleet's journal. Only a manager on a real disk has one."""

    def __init__(self, state: DurableState[Fleet]) -> None:
        self._state = state
        self._cleanup = OutputCleanup(state.journal.path)

    def sweep(self) -> None:
        """Remove the files that commands of removed agents have printed."""
        # Without a disk that takes the wait, the files stay until a later open.
        wait_durable = partial(self._state.wait_durable, timeout_s=_DURABLE_TIMEOUT_S)
        self._cleanup.sweep(self._state.machine.rows, wait_durable)

    def remove(self, agent_ids: Iterable[str] = ()) -> None:
        """Remove what those of the agents have printed that are gone, once that is durable."""
        self._add(agent_ids)
        self._cleanup.remove_durable(self._state.journal.durable_lsn)

    def wait_removed(self, agent_ids: Iterable[str]) -> None:
        """Wait until those of the agents that are gone are durably so, and remove what they have
        printed. Raise FailedError and ClosedError.
        """
        if self._add(agent_ids):
            with suppress(TimeoutError):  # a later removal, the close or an open removes the files
                self._state.wait_durable(timeout_s=_DURABLE_TIMEOUT_S)
            self.remove()

    def _add(self, agent_ids: Iterable[str]) -> bool:
        rows = self._state.machine.rows
        gone = [agent_id for agent_id in agent_ids if agent_id not in rows]
        if gone:
            self._cleanup.add(self._state.journal.last_lsn, gone)
        return bool(gone)
