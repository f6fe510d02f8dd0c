"""Retention: drops agents that ended long ago, or that are too many, without being called.

A spawn that finds a drop due starts a thread, which searches a snapshot of the fleet outside the
lock, removes what is due in slices, and ends. So a manager that spawns nothing runs no thread.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from journal import JournalError
from manager import clock
from manager.agent import ENDED, Row, get
from manager.cleanup import slices, still_due
from manager.fleet import Fleet
from manager.fleet_outputs import FleetOutputs
from manager.limits import Limits
from manager.updates import Updates

if TYPE_CHECKING:
    from journal import DurableState

_PERIOD_S = 60.0  # the longest time between two searches while agents are spawned
_SLACK = 16  # for a while, a sixteenth of `keep_ended_max` more may be kept


class Retention:
    """The retention of one manager's ended agents. Any thread may call it."""

    outputs: FleetOutputs | None = None
    """The output of the agents' commands, or None if the manager is not on a real disk."""

    def __init__(self, state: DurableState[Fleet], updates: Updates, limits: Limits) -> None:
        self._state = state
        self._fleet = state.machine
        self._updates = updates
        self._limits = limits
        self._thread: threading.Thread | None = None
        self._next_s = 0.0 if limits.keep_ended_s else math.inf
        self._next_count: float = limits.keep_ended_max or math.inf

    def check(self) -> None:
        """Start a thread that drops agents if that is due. This waits for nothing."""
        if len(self._fleet.rows) <= self._next_count and clock.monotonic() < self._next_s:
            return  # nearly always, and in a tenth of the time that counting takes
        ended = _ended(self._fleet)
        is_due = ended > self._next_count or (ended and clock.monotonic() >= self._next_s)
        if not is_due or (self._thread is not None and self._thread.is_alive()):
            return
        thread = threading.Thread(target=self._run, name="subagents-retention", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not str(error).startswith("can't"):  # a signal handler has raised it
                raise
            return  # No thread can be started. The next spawn tries again.
        self._thread = thread  # two calls at once may start two threads, which does no harm

    def run(self) -> int:
        """Drop all agents that are due now, and return their number.

        This waits until the disk has the removals, and then removes what the agents' commands have
        printed.
        """
        limits = self._limits
        rows, ended = self._state.read(lambda fleet: (fleet.rows.freeze(), _ended(fleet)))
        dropped = removed(self._updates, expired(rows, limits, clock.now_ms()))
        if limits.keep_ended_s is not None:
            self._next_s = clock.monotonic() + min(_PERIOD_S, limits.keep_ended_s / 10)
        if limits.keep_ended_max is not None:
            kept_max, kept = limits.keep_ended_max, ended - len(dropped)
            self._next_count = max(kept, kept_max) + kept_max // _SLACK
        if self.outputs is not None:
            self.outputs.wait_removed(map(get.agent_id, dropped))
        return len(dropped)

    def _run(self) -> None:
        try:
            self.run()
        except JournalError:
            # The manager is closed or has failed, or the disk is full. The next spawn tries again.
            return


def removed(updates: Updates, due: Sequence[Row]) -> list[Row]:
    """Remove the ended agents in `due`, except those that have changed or have children.

    The lock is held for one slice at a time. Return the rows of the removed ones.
    """
    decide = partial(still_due, is_silent=lambda row: False, at_ms=0, reason="")
    gone = [
        row for chunk in slices(due) for row in updates.update_many(partial(decide, rows=chunk))
    ]
    updates.forget(gone)
    return gone


def expired(rows: Iterable[Row], limits: Limits, at_ms: int) -> list[Row]:
    """Return the rows of the agents that `limits` no longer keeps, children before their parents.

    An agent is kept while one of its children is, so a live descendant keeps all its ancestors. It
    is also kept while its parent may still take its result: until the parent has ended and
    `keep_ended_s` have passed since then.
    """
    by_id = {get.agent_id(row): row for row in rows}
    children = Counter(map(get.parent_id, by_id.values()))
    ended = [row for row in by_id.values() if get.status(row) in ENDED]
    keep_s, keep_max = limits.keep_ended_s, limits.keep_ended_max
    before_ms = float("-inf") if keep_s is None else at_ms - keep_s * 1000
    excess = 0 if keep_max is None else len(ended) - keep_max
    due: list[Row] = []
    parents: dict[str, Row] = {}  # due, but for their children

    def drop(row: Row) -> None:
        due.append(row)
        parent_id = get.parent_id(row)
        while parent_id is not None:
            children[parent_id] -= 1
            if children[parent_id] or parent_id not in parents:
                return
            parent = parents.pop(parent_id)
            due.append(parent)
            parent_id = get.parent_id(parent)

    for row in sorted(ended, key=_ended_at_ms):
        if _ended_at_ms(row) > before_ms and len(due) >= excess:
            break
        parent = by_id.get(get.parent_id(row) or "")
        if parent is not None and get.taken_by(row) is None:
            has_parent_ended = get.status(parent) in ENDED
            if not has_parent_ended or (keep_s is not None and _ended_at_ms(parent) > before_ms):
                continue
        if children[get.agent_id(row)]:
            parents[get.agent_id(row)] = row
        else:
            drop(row)
    return due


def _ended(fleet: Fleet) -> int:
    return sum(map(fleet.counts.__getitem__, ENDED))


def _ended_at_ms(row: Row) -> int:
    return get.ended_at_ms(row) or 0
