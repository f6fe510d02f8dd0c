"""StatePart: one part of a state, with the changes and reads of a DurableState of that part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from journal._format.record import PackedRecord, Record, pack
from journal._state.durable_state import DurableState
from journal._state.state_machine import StateMachine

M = TypeVar("M", bound=StateMachine)
T = TypeVar("T")


class HasParts(StateMachine, Protocol):
    """A state machine whose parts are state machines, such as a Composite."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parts."""

    def __getitem__(self, name: str) -> Any:
        """Return the machine of a part."""

    def part(self, name: str, record: Record) -> Record:
        """Return the record of the whole state that applies `record` to a part."""

    def own_record(self, name: str, record: Record) -> Record | None:
        """Return the part's own record in one of the whole state; None if it is another part's."""

    def own_item(self, name: str, item: Any) -> Any | None:
        """Do for an item of a checkpoint what `own_record` does for a record."""


class Companion(NamedTuple):
    """A record of another part, or a function of its machine that returns one or None."""

    part: str
    record: PackedRecord | Callable[[Any], Record | None]  # packed: already of the whole state
    urgent: bool


class StatePart(Generic[M]):
    """One part of a state, for code that knows only that part.

    A function that `update` calls returns a record that `pack` made.
    """

    def __init__(self, state: DurableState[Any], name: str, machine: M) -> None:
        self.whole = state
        self.name = name
        self.machine = machine
        around_bytes = len(self.pack(0)._packed) - 1  # of the whole state's record, around a part's
        self._bytes_max = state._bytes_max - around_bytes

    @property
    def parts(self) -> HasParts:
        """The machine of the whole state."""
        parts: HasParts = self.whole.machine
        return parts

    def pack(self, record: Record) -> PackedRecord:
        """Pack a record of this part as one of the whole state. Needs no lock."""
        return pack(self.parts.part(self.name, record))

    def own_record(self, record: Record) -> Record | None:
        """Return this part's own record in one of the whole state, or None."""
        return self.parts.own_record(self.name, record)

    def own_item(self, item: Any) -> Any | None:
        """Return this part's own item in one of the whole state, or None."""
        return self.parts.own_item(self.name, item)

    def update(self, decide: Callable[[M], Record | None], *, urgent: bool = False) -> int | None:
        """Apply a record of this part; see DurableState.update."""
        return self.whole.update(lambda _: decide(self.machine), urgent=urgent)

    def update_with(
        self, decide: Callable[[M], Record | None], companions: list[Companion]
    ) -> int | None:
        """Do what `update` does, with records of other parts after its own, in one batch.

        `decide` is called first, and may add to `companions`.
        """

        def decide_all(parts: HasParts) -> list[Record]:
            records = [decide(self.machine)]
            for name, record, _ in companions:
                if callable(record):
                    own = record(parts[name])
                    records.append(None if own is None else parts.part(name, own))
                else:
                    records.append(record)
            return [record for record in records if record is not None]

        urgent = any(companion.urgent for companion in companions)
        return self.whole.update_batch(decide_all, urgent=urgent)

    def _before_freeze(self, prepare: Callable[[StatePart[M]], None]) -> None:
        """See DurableState._before_freeze."""
        kind, name, machine = type(self), self.name, self.machine
        self.whole._before_freeze(lambda state: prepare(kind(state, name, machine)), name)

    def read(self, query: Callable[[M], T]) -> T:
        """Call `query` with this part's machine; see DurableState.read."""
        return self.whole.read(lambda _: query(self.machine))


def whole_of(state: DurableState[Any] | StatePart[Any]) -> DurableState[Any]:
    """Return the state of which `state` is a part, or `state` itself if it is a whole one."""
    return state.whole if isinstance(state, StatePart) else state
