"""Delivery: the results of children, until their parent has taken them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from journal import DurableState
from manager import clock, records
from manager.agent import JSON, LIVE, Agent, Row, get
from manager.arguments import optional_seconds, remaining_s
from manager.fleet import Fleet
from manager.updates import Updates
from manager.values import text
from manager.watch import Watch


class Delivery:
    """The methods of a manager that deliver the results of children to their parents."""

    _state: DurableState[Fleet]
    _updates: Updates
    _watch: Watch

    def inbox(self, parent: str) -> list[Agent]:
        """Return the children of an agent that have ended and were not taken yet, in the order of
        their ends.

        Their ends may not be durable yet; `wait_inbox` and `results` wait for that. Children of
        every final status are delivered.
        """
        return [self._agent(row) for row in self._inbox(text("parent", parent))]

    def wait_inbox(self, parent: str, *, timeout_s: float | None = None) -> list[Agent]:
        """Block until the inbox of an agent is not empty and durable, and return it.

        Return an empty list at once if the agent has neither a result to take nor a live child.
        Raises TimeoutError after `timeout_s` seconds (None: no limit), FailedError, and
        ClosedError.
        """
        parent, timeout_s = text("parent", parent), optional_seconds("timeout_s", timeout_s)
        self._warn_in_event_loop("wait_inbox", "results(...)", timeout_s)
        until_s = None if timeout_s is None else clock.monotonic() + timeout_s
        while True:
            if rows := self._inbox(parent):
                self._state.wait_durable(_last_lsn(rows), timeout_s=remaining_s(until_s))
                return [self._agent(row) for row in rows]
            if not self._watch.wait_inbox(parent, remaining_s(until_s)):
                return []

    async def results(self, parent: str) -> AsyncIterator[Agent]:
        """Yield each child of an agent that has ended and was not taken yet, once it is durable.

        Each child is yielded once. The iterator ends when the agent has no live child and all
        results have been yielded. Use `asyncio.timeout` for a time limit.
        """
        parent = text("parent", parent)
        yielded: set[str] = set()
        while True:
            rows = [row for row in self._inbox(parent) if get.agent_id(row) not in yielded]
            if rows:
                await self._state.durable(_last_lsn(rows))
            for row in rows:
                yielded.add(get.agent_id(row))
                # The row is read without the lock: it may have been taken and removed meanwhile.
                current = self._state.machine.rows.get(get.agent_id(row))
                if current is not None and get.taken_by(current) is None:
                    yield self._agent(current)
            if not rows and not await self._watch.inbox(parent, yielded):
                return

    def take(
        self, ref: str, *, by: str, checkpoint: JSON = None, steps_taken: int | None = None
    ) -> Agent:
        """Record that the agent `by` has taken the result of an agent that has ended.

        With a `checkpoint`, the taker's progress is stored in the same batch, so a crash neither
        loses the result nor delivers it twice: the taker's checkpoint contains its use of the
        result if and only if the result is taken. The taker must be running then. Without one, take
        after you have acted on the result: a crash in between delivers it again.

        Return the agent that was taken. Raises AlreadyTakenError, which names the taker, for a
        second taker, and TransitionError if the agent has not ended.
        """
        ref, by, at_ms = text("ref", ref), text("by", by), clock.now_ms()
        progress = None
        records.check_steps(checkpoint, steps_taken)
        if checkpoint is not None:
            progress = records.checkpoint(at_ms, checkpoint, steps_taken or 0)
        return self._agent(self._updates.take(ref, by, records.take(at_ms), progress))

    def _inbox(self, parent: str) -> list[Row]:
        def untaken(fleet: Fleet) -> list[str]:
            return fleet.family.untaken(get.agent_id(fleet.find(parent)))

        # A row is read without the lock, and may be gone: it was taken and removed.
        found = map(self._state.machine.rows.get, self._state.read(untaken))
        rows = [row for row in found if row is not None and get.taken_by(row) is None]
        ended = [row for row in rows if get.status(row) not in LIVE]
        return sorted(ended, key=lambda row: (get.ended_at_ms(row) or 0, get.lsn(row)))

    @abstractmethod
    def _agent(self, row: Row) -> Agent: ...

    if TYPE_CHECKING:

        def _warn_in_event_loop(self, *arguments: Any) -> None: ...


def _last_lsn(rows: list[Row]) -> int:
    return max(map(get.lsn, rows))
