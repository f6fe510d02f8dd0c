"""Bulk replay: applies the records of a log to a fleet that nothing else uses, in less time.

Most records only count tokens, or replace a checkpoint. The fleet makes a new row for each of them,
because other threads may read its rows meanwhile. Here, the rows of these agents are lists that are
changed in place: replay takes 0.6 of the time. The fleet itself applies the records of all other
kinds, and each record that it may refuse.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

from manager.agent import Row
from manager.columns import (
    AGENT_ID,
    CHECKPOINT,
    LSN,
    PARENT_ID,
    STATUS,
    STEPS_TAKEN,
    TOKENS_USED,
    UPDATED_AT_MS,
)
from manager.fleet import Fleet
from manager.layouts import Record
from manager.steps import SOURCES
from manager.values import INT_MAX

_FIELDS = 5  # of a record of usage, and of one of a checkpoint
_STATUSES = SOURCES["checkpoint"]


class BulkReplay:
    """A replay of records, in their order, after which `finish` must be called."""

    def __init__(self, fleet: Fleet, refuse: Callable[[int, Exception], Exception]) -> None:
        """Prepare to apply records to `fleet`. `refuse` returns the error to raise for the LSN of a
        record that the fleet refuses, and the fleet's error."""
        self._fleet = fleet
        self._refuse = refuse
        # The rows that are lists. A row that the fleet replaces is no longer one of them.
        self._open: dict[str, list[Any]] = {}
        self._replaced: deque[Row] = deque()
        self._has_begun = False  # whether the fleet has checked its items and the first record
        fleet.feed_to(self._replaced)

    def apply(self, first_lsn: int, records: Iterable[Record]) -> None:
        """Apply the records from `first_lsn` on."""
        find = self._open.get
        for lsn, record in enumerate(records, first_lsn):
            if type(record) is list and len(record) == _FIELDS and type(record[1]) is str:
                kind, agent_id, at_ms, first, second = record
                if kind == "checkpoint":
                    row = find(agent_id) or self._opened(agent_id)
                    if row is not None and row[STATUS] in _STATUSES:
                        row[CHECKPOINT], row[STEPS_TAKEN] = first, second
                        row[UPDATED_AT_MS], row[LSN] = at_ms, lsn
                        continue
                elif (
                    kind == "usage"
                    and type(at_ms) is type(first) is type(second) is int
                    and at_ms >= 0 <= first
                    and second >= 0
                ):
                    row = find(agent_id) or self._opened(agent_id)
                    if row is not None:
                        row[UPDATED_AT_MS], row[LSN] = at_ms, lsn
                        used = row[TOKENS_USED] + first + second
                        if row[PARENT_ID] is None and used < INT_MAX:
                            row[TOKENS_USED] = used
                        elif tokens := first + second:
                            self._count(row, lsn, tokens)
                        continue
            self._apply_one(lsn, record)

    def finish(self) -> None:
        """Make tuples of the rows that are lists."""
        self._fleet.stop_feeding()
        for row in self._open.values():
            self._fleet.replace(tuple(row))
        self._open.clear()

    def _apply_one(self, lsn: int, record: Record) -> None:
        try:
            self._fleet.apply(lsn, record)
        except Exception as error:
            raise self._refuse(lsn, error) from error
        self._has_begun = True
        while self._replaced:
            self._open.pop(self._replaced.popleft()[AGENT_ID], None)

    def _opened(self, agent_id: str) -> list[Any] | None:
        """Return the agent's row, which is a list from now on. Return None if there is none, or
        before the fleet has checked the first record."""
        rows = self._fleet.rows
        row = rows.get(agent_id)
        if row is None or not self._has_begun:
            return None
        opened = self._open[agent_id] = list(row)
        rows[agent_id] = cast("Row", opened)
        return opened

    def _count(self, row: list[Any], lsn: int, tokens: int) -> None:
        """Count tokens for an agent and its ancestors, as the fleet does."""
        before = row[TOKENS_USED]
        used = before + tokens
        row[TOKENS_USED] = used = used if used < INT_MAX else INT_MAX
        added, parent_id = used - before, row[PARENT_ID]
        while parent_id is not None and added:
            parent = self._open.get(parent_id) or self._opened(parent_id)
            assert parent is not None  # the fleet has checked that each parent exists
            used = parent[TOKENS_USED] + added
            parent[TOKENS_USED] = used if used < INT_MAX else INT_MAX
            parent[LSN] = lsn
            parent_id = parent[PARENT_ID]
