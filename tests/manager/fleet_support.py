"""A manager on a fleet in memory, and everything that a fleet contains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgpack

from journal import DurableState
from journal._format.record import bare
from manager import Limits, SubAgentManager
from manager.agent import EXTRA_FIELDS, FIELDS, ROW_FIELDS, Row
from manager.fleet import Fleet
from manager.layouts import Record

# Without retention, whose thread would look at the fleet at any time.
ROOMY = Limits(
    max_running=10**6,
    max_admitted=10**6,
    max_depth=100,
    keep_ended_s=None,
    keep_ended_max=None,
)


def values_of(row: Row) -> tuple[Any, ...]:
    """Return the values of `manager.agent.FIELDS` in a row."""
    values = dict(zip(ROW_FIELDS, row, strict=True))
    values |= zip(EXTRA_FIELDS, values.pop("extras"), strict=True)
    return tuple(values[name] for name in FIELDS)


class MemoryState:
    """A stand-in for `DurableState` without lock and disk. It packs records as the log does."""

    def __init__(self) -> None:
        self.machine = Fleet()
        self.log: list[Record] = []
        self.around: Callable[..., Any] = lambda work, *args: work(*args)

    def update(
        self, decide: Callable[[Fleet], Record | None], *, urgent: bool = False
    ) -> int | None:
        record = bare(self.around(decide, self.machine))
        if record is None:
            return None
        lsn = self._append(record)
        self.around(self.machine.apply, lsn, record)
        return lsn

    def update_batch(
        self, decide: Callable[[Fleet], list[Record]], *, urgent: bool = False
    ) -> int | None:
        def apply_all(first_lsn: int, records: list[Record]) -> None:
            for lsn, record in enumerate(records, first_lsn):
                self.machine.apply(lsn, record)

        batch = [bare(record) for record in self.around(decide, self.machine)]
        if not batch:
            return None
        lsn = [self._append(record) for record in batch][-1]
        self.around(apply_all, lsn + 1 - len(batch), batch)
        return lsn

    def check(self) -> None:
        """Do nothing, as a state in memory never fails."""

    def _append(self, record: Record) -> int:
        packed = msgpack.packb(record, strict_types=True)
        self.log.append(msgpack.unpackb(packed, strict_map_key=False))
        return len(self.log)

    def read(self, look: Callable[[Fleet], Any]) -> Any:
        return self.around(look, self.machine)


def manager_in_memory() -> tuple[SubAgentManager, MemoryState]:
    state = MemoryState()
    return SubAgentManager(cast("DurableState[Fleet]", state), ROOMY), state


def contents(fleet: Fleet) -> tuple[object, ...]:
    """Return everything in a fleet, including its private indexes."""
    family = fleet.family._children, fleet.family._branches, fleet.family._untaken
    names = fleet.by_name._live, fleet.by_name._ended, fleet.by_name._newest, fleet.sources._seen
    return list(fleet.rows.freeze()), fleet.counts, names, family
