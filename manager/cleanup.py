"""Cleanup: which agents may go. Found in a snapshot, outside the lock; checked again under it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence

from manager import records
from manager.agent import ENDED, Row, get
from manager.fleet import Fleet
from manager.limits import HOLD_AGENTS_MAX
from manager.records import Record

IsSilent = Callable[[Row], bool]


class Heartbeats:
    """When each running agent gave its last sign of life, on a clock that nobody sets.

    Memory of this process only: all that run were started in it. An entry left of one that has
    stopped says nothing. Each step is one operation of a dict, atomic in itself.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._at_s: dict[str, float] = {}

    def beat(self, agent_id: str) -> None:
        self._at_s[agent_id] = time.monotonic()

    def forget(self, agent_id: str) -> None:
        self._at_s.pop(agent_id, None)

    def forget_removed(self, agent_ids: Container[str]) -> None:
        """All but `agent_ids`."""
        for agent_id in list(self._at_s):
            if agent_id not in agent_ids:
                self.forget(agent_id)

    def silence(self) -> IsSilent:
        """What tells of an agent's row whether there was no sign of life for too long by now."""
        now_s = time.monotonic()

        def is_silent(row: Row) -> bool:
            # One that is not there has just begun to run: its time counts from now.
            return now_s - self._at_s.setdefault(get.agent_id(row), now_s) >= self.timeout_s

        return is_silent


def candidates(rows: Iterable[Row], ended_before_ms: float, is_silent: IsSilent) -> list[Row]:
    """The running ones that are silent, then those that ended long enough ago.

    Of the latter none that a child still needs; children come before their parents.
    """
    rows = list(rows)
    due = [row for row in rows if get.status(row) == "running" and is_silent(row)]
    children = Counter(get.parent_id(row) for row in rows)
    for row in sorted(rows, key=get.spawn_depth, reverse=True):
        ended_at_ms = get.ended_at_ms(row)
        is_old = ended_at_ms is not None and ended_at_ms <= ended_before_ms
        if is_old and not children[get.agent_id(row)]:
            children[get.parent_id(row)] -= 1
            due.append(row)
    return due


def slices(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for begin in range(0, len(rows), HOLD_AGENTS_MAX):
        yield rows[begin : begin + HOLD_AGENTS_MAX]


def still_due(
    fleet: Fleet, rows: Iterable[Row], is_silent: IsSilent, at_ms: int, reason: str
) -> list[tuple[Row | None, Record]]:
    """Under the lock: what is to be done to those of `rows` that may still go."""
    changes: list[tuple[Row | None, Record]] = []
    gone: dict[str | None, int] = {}  # children that this slice removes, by parent
    for row in rows:
        agent_id = get.agent_id(row)
        now = fleet.rows.get(agent_id)
        if now is None:
            continue
        if get.status(now) == "running":
            if is_silent(row):
                changes.append((now, records.cancel(agent_id, at_ms, reason)))
            continue
        # It may have been removed since, imported again, and live.
        is_same = get.status(now) in ENDED and get.ended_at_ms(now) == get.ended_at_ms(row)
        if is_same and fleet.family.children(agent_id) == gone.get(agent_id, 0):
            gone[get.parent_id(now)] = gone.get(get.parent_id(now), 0) + 1
            changes.append((now, records.remove(agent_id)))
    return changes
