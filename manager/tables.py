"""FleetTables: the tables beside a manager's agents."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from journal import DurableState, Tables
from manager.fleet import Fleet


class FleetTables(Tables):
    """The tables beside the agents of a manager. Closing them closes the manager."""

    # A weak reference: a manager that is dropped without being closed ends at once.
    _manager: Callable[[], Any] = staticmethod(lambda: None)

    @classmethod
    def of(cls, manager: Any, state: DurableState[Fleet]) -> FleetTables:
        """Return the tables of a manager's state."""
        state.read(Fleet.begin_tables)
        tables = cls.in_state(state, "tables")
        tables._manager = weakref.ref(manager)
        return tables

    def close(self, *, timeout_s: float | None = None) -> None:
        """Close the manager; see SubAgentManager.close."""
        self._owner().close(timeout_s=timeout_s)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._owner().__exit__(kind, error, traceback)

    def _owner(self) -> Any:
        """Return the manager, or these tables as their base class if it is gone."""
        return self._manager() or super()
