"""TablesPart: the part of a shared state that has tables."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any

from journal._format.record import Record
from journal._state.durable_state import DurableState
from journal._state.state_part import Companion, StatePart
from journal._tables.machine import TablesMachine
from journal._waits import refuse

Decide = Callable[[TablesMachine], Record | None]


class TablesPart(StatePart[TablesMachine]):
    """The part of a shared state that has tables.

    Anyone who has the state can give it a record of this part. A replay would refuse a wrong one,
    and with it the whole journal, so the machine checks each record that was not made here.
    """

    def __init__(self, state: DurableState[Any], name: str, machine: TablesMachine) -> None:
        super().__init__(state, name, machine)
        machine.is_shared = True

    @classmethod
    def of(cls, state: DurableState[Any], part: str) -> TablesPart:
        """Return the part of a state. Raises TypeError unless `state` is a DurableState, and
        ValueError unless it is a part with tables."""
        if not isinstance(state, DurableState):
            refuse(TypeError, "state must be a DurableState", state)
        names = getattr(state.machine, "names", ())  # of a Composite
        machine = state.machine[part] if part in names else None
        if not isinstance(machine, TablesMachine):
            raise ValueError(
                f"{part!r:.200} is not a part with tables; make one with Tables.machine"
            )
        return cls(state, part, machine)

    def update(self, decide: Decide, *, urgent: bool = False) -> int | None:
        """See DurableState.update."""
        machine = self.machine
        try:
            # The frame of `StatePart.update` would add a tenth to the time of a write.
            return self.whole.update(lambda _: _trusted(machine, decide(machine)), urgent=urgent)
        except BaseException:  # `apply` may not have been called; other threads go on meanwhile
            machine.trusted_thread = 0
            raise

    def update_with(self, decide: Decide, companions: list[Companion]) -> int | None:
        """See StatePart.update_with."""
        try:
            return super().update_with(
                lambda machine: _trusted(machine, decide(machine)), companions
            )
        except BaseException:
            self.machine.trusted_thread = 0
            raise


def _trusted(machine: TablesMachine, record: Record | None) -> Record | None:
    """Return `record`, which the machine then applies unchecked, if it does so in this thread."""
    machine.trusted_thread = 0 if record is None else get_ident()
    return record
