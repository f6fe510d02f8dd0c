"""Removal: the methods of a manager that remove ended agents, and cancel dead ones."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from functools import partial

from journal import DurableState
from manager import clock
from manager.agent import LIVE, Agent, Row, get
from manager.arguments import seconds
from manager.cleanup import (
    Heartbeats,
    below,
    candidates,
    ended_before_ms,
    slices,
    still_due,
)
from manager.fleet import Fleet
from manager.fleet_outputs import FleetOutputs
from manager.limits import Limits
from manager.retention import removed
from manager.updates import Updates
from manager.values import text


class Removal:
    """The methods of a manager that remove agents."""

    _state: DurableState[Fleet]
    _updates: Updates
    _beats: Heartbeats
    _limits: Limits
    _outputs: FleetOutputs | None

    def touch(self, ref: str) -> None:
        """Record a sign of life of a running agent, for `cleanup`. Any update counts as one too.

        This is not journaled, and has no effect on an agent that is not running.
        """
        ref = text("ref", ref)
        row = self._state.read(lambda fleet: fleet.find(ref))
        if get.status(row) == "running":
            self._beats.beat(get.agent_id(row))

    def cleanup(self, max_age_s: float) -> tuple[Agent, ...]:
        """Remove agents that ended at least `max_age_s` seconds ago, and cancel dead ones.

        Results that were not taken are removed, too; see `Limits.keep_ended_s` for what the manager
        removes by itself. A running agent is considered dead after `heartbeat_timeout_s` without an
        update or a `touch`. A parent stays as long as one of its children. Return the removed
        agents as they last were, and the cancelled ones as they are now. The fleet is searched
        outside the lock; each hold of the lock, and each batch, changes at most 64 agents. Source:
        `Limits`.
        """
        max_age_s = seconds("max_age_s", max_age_s, low=0)
        at_ms = clock.now_ms()
        self._beats.forget_removed(self._state.machine.rows)
        is_silent = self._beats.silence_check()
        rows = candidates(self._rows(), ended_before_ms(max_age_s, at_ms), is_silent)
        reason = f"no sign of life for {self._limits.heartbeat_timeout_s:g} s"
        cleaned: list[Row] = []
        for chunk in slices(rows):
            decide = partial(still_due, rows=chunk, is_silent=is_silent, at_ms=at_ms, reason=reason)
            cleaned += self._updates.update_many(decide, urgent=True)
        self._updates.forget(cleaned)
        if self._outputs is not None:
            self._outputs.remove(map(get.agent_id, cleaned))
        return tuple(map(self._agent, cleaned))

    def prune(
        self, ref: str | None = None, *, ended_for_s: float | None = None
    ) -> tuple[Agent, ...]:
        """Remove an ended agent and all agents below it, or all that ended long enough ago.

        With `ended_for_s` in place of a `ref`, this removes all agents that ended at least that
        many seconds ago and have no child that stays. Unlike `cleanup`, this cancels nothing.
        Results that were not taken are removed, too. Return the removed agents as they last were,
        children before their parents. The fleet is searched outside the lock; each hold of the
        lock, and each batch, removes at most 64 agents.

        Raises TransitionError if the agent, or an agent below it, has not ended.
        """
        if (ref is None) == (ended_for_s is None):
            raise ValueError("a ref and ended_for_s exclude each other; give one of them")
        if ref is None:
            age_s = seconds("ended_for_s", ended_for_s, low=0)
            before_ms = ended_before_ms(age_s, clock.now_ms())
            due = candidates(self._rows(), before_ms, lambda row: False)
            gone = removed(self._updates, due)
        else:
            gone = self._removed_below(text("ref", ref))
        if self._outputs is not None:
            self._outputs.remove(map(get.agent_id, gone))
        return tuple(map(self._agent, gone))

    def _removed_below(self, ref: str) -> list[Row]:
        agent_id = get.agent_id(self._state.read(lambda fleet: fleet.find(ref)))
        gone: list[Row] = []
        while due := below(self._rows(), agent_id):  # again if a child was spawned meanwhile
            if live := [row for row in due if get.status(row) in LIVE]:
                self._state.machine.refuse_verb(live[-1], "prune", "removed")
            gone += removed(self._updates, due)
        return gone

    def _remove_outputs(self) -> None:
        """Remove the outputs of agents whose removal is durable."""
        if self._outputs is not None:
            self._outputs.remove()

    @abstractmethod
    def _rows(self) -> Iterable[Row]: ...

    @abstractmethod
    def _agent(self, row: Row) -> Agent: ...
