"""Cleanup: finds agents to remove or cancel. It searches a snapshot outside the lock, and checks
each agent again under the lock."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence

from manager import clock, records
from manager.agent import ENDED, Row, get
from manager.fleet import Fleet
from manager.layouts import Record
from manager.limits import HOLD_AGENTS_MAX

IsSilent = Callable[[Row], bool]


class Heartbeats:
    """The time of each running agent's last sign of life, by the monotonic clock.

    The times are kept in memory only: an agent that runs on from an earlier process, on a worker,
    gets its whole time again. The entry of an agent that no longer runs has no meaning. No lock is
    needed: each step is a single operation of a dict, which is atomic.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._at_s: dict[str, float] = {}

    def beat(self, agent_id: str) -> None:
        self._at_s[agent_id] = clock.monotonic()

    def forget(self, agent_id: str) -> None:
        self._at_s.pop(agent_id, None)

    def forget_removed(self, agent_ids: Container[str]) -> None:
        """Forget every agent that is not in `agent_ids`."""
        for agent_id in list(self._at_s):
            if agent_id not in agent_ids:
                self.forget(agent_id)

    def silence_check(self) -> IsSilent:
        """Return a function that checks whether a row's agent has been silent for `timeout_s`, as
        of now.
        """
        now_s = clock.monotonic()

        def is_silent(row: Row) -> bool:
            # The time of an agent without an entry counts from now: it has just begun to run, or a
            # worker runs it since before this process.
            return now_s - self._at_s.setdefault(get.agent_id(row), now_s) >= self.timeout_s

        return is_silent


def ended_before_ms(age_s: float, at_ms: int) -> float:
    """Return the last time at which an agent ended at least `age_s` seconds before `at_ms`.

    With 0, that is any time: if the clock was set back, the end of an agent may be in the future.
    """
    return at_ms - age_s * 1000 if age_s else math.inf


def candidates(rows: Iterable[Row], ended_before_ms: float, is_silent: IsSilent) -> list[Row]:
    """Return the rows of silent running agents, followed by those of agents that ended at or before
    `ended_before_ms`.

    An ended agent is left out while it has a child that stays. Children come before their parents.
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


def below(rows: Iterable[Row], agent_id: str) -> list[Row]:
    """Return the rows of all descendants of an agent, children before their parents, and its own.
    The list is empty if there is no such agent."""
    found: list[Row] = []
    children: dict[str | None, list[Row]] = {}
    for row in rows:
        children.setdefault(get.parent_id(row), []).append(row)
        if get.agent_id(row) == agent_id:
            found.append(row)
    for row in found:
        found += children.get(get.agent_id(row), ())
    return found[::-1]


def slices(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for begin in range(0, len(rows), HOLD_AGENTS_MAX):
        yield rows[begin : begin + HOLD_AGENTS_MAX]


def still_due(
    fleet: Fleet, rows: Iterable[Row], is_silent: IsSilent, at_ms: int, reason: str
) -> list[tuple[Row | None, Record]]:
    """Return the changes for those of `rows` that are still due. Called under the lock."""
    changes: list[tuple[Row | None, Record]] = []
    removed: dict[str | None, int] = {}  # children that this slice removes, by parent
    for row in rows:
        agent_id = get.agent_id(row)
        current = fleet.rows.get(agent_id)
        if current is None:
            continue
        if get.status(current) == "running":
            if is_silent(row):
                changes.append((current, records.cancel(agent_id, at_ms, reason)))
            continue
        # The agent may have been removed and imported again since, and may be live now.
        is_same = get.status(current) in ENDED and get.ended_at_ms(current) == get.ended_at_ms(row)
        if is_same and fleet.family.children(agent_id) == removed.get(agent_id, 0):
            removed[get.parent_id(current)] = removed.get(get.parent_id(current), 0) + 1
            changes.append((current, records.remove(agent_id)))
    return changes
