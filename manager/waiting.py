"""Waiting: the calls that wait for an agent's end, for a child's result or for a free place."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Container

from journal import DurableState
from manager import clock
from manager.agent import ENDED, Row, get
from manager.arguments import remaining_s
from manager.errors import UnknownAgentError
from manager.fleet import Fleet
from manager.waking import PLACE, Key, Waiter


class Waiting:
    """The waits of a watch, which wakes their waiters."""

    _state: DurableState[Fleet]

    @abstractmethod
    def _add_waiter(self, key: Key, waiter: Waiter) -> None: ...

    @abstractmethod
    def _outcome(self, waiter: Waiter) -> Row: ...

    @abstractmethod
    def _leave(self, waiter: Waiter) -> None: ...

    # --- waiting for an end ---

    def wait_ended(self, ref: str, timeout_s: float | None) -> Row:
        until_s = None if timeout_s is None else clock.monotonic() + timeout_s
        waiter = Waiter()
        try:
            row = self._enlist(ref, waiter)
            if get.status(row) in ENDED:
                self._state.wait_durable(get.lsn(row), timeout_s=remaining_s(until_s))
                return row
            left_s = remaining_s(until_s)
            if not waiter.lock.acquire(timeout=-1 if left_s is None else left_s):
                raise TimeoutError(
                    f"agent {get.agent_id(row)} (name {get.name(row)!r}) has not ended, or its "
                    f"end is not durable, within {timeout_s} s"
                )
            return self._outcome(waiter)
        finally:
            self._leave(waiter)

    async def ended(self, ref: str) -> Row:
        import asyncio

        future = asyncio.get_running_loop().create_future()
        waiter = Waiter(future)
        try:
            row = self._enlist(ref, waiter)
            if get.status(row) in ENDED:
                await self._state.durable(get.lsn(row))
                return row
            await future
            return self._outcome(waiter)
        finally:
            self._leave(waiter)

    # --- waiting for results of children ---

    def wait_inbox(self, parent: str, timeout_s: float | None) -> bool:
        """Block until a child of an agent ends and that is durable. Return False at once if the
        agent has neither a live child nor a result to take."""
        waiter = Waiter()
        try:
            if (is_due := self._enlist_for_inbox(parent, waiter, ())) is not None:
                return is_due
            if not waiter.lock.acquire(timeout=-1 if timeout_s is None else timeout_s):
                raise TimeoutError(f"no child of agent {parent!r} has ended in time")
            self._outcome(waiter)
            return True
        finally:
            self._leave(waiter)

    async def inbox(self, parent: str, known: Container[str]) -> bool:
        """Await what `wait_inbox` waits for. Results of the agents `known` do not count."""
        import asyncio

        future = asyncio.get_running_loop().create_future()
        waiter = Waiter(future)
        try:
            if (is_due := self._enlist_for_inbox(parent, waiter, known)) is not None:
                return is_due
            await future
            self._outcome(waiter)
            return True
        finally:
            self._leave(waiter)

    def _enlist_for_inbox(self, parent: str, waiter: Waiter, known: Container[str]) -> bool | None:
        """Return None if the next end of a child will wake the waiter. Otherwise return whether
        there is a result to take."""
        parent_id = self._state.read(lambda fleet: get.agent_id(fleet.find(parent)))
        self._add_waiter((parent_id,), waiter)
        # Read the family after that: a child may have ended before the feed began.
        untaken, is_live = self._state.read(
            lambda fleet: (fleet.family.untaken(parent_id), fleet.family.has_live_child(parent_id))
        )
        if any(agent_id not in known for agent_id in untaken):
            return True
        return None if is_live else False

    # --- waiting for a free place ---

    def wait_capacity(self, timeout_s: float | None, has_capacity: Callable[[], bool]) -> None:
        """Block until an agent stops running and that is durable, unless there is room already."""
        waiter = Waiter()
        try:
            self._add_waiter(PLACE, waiter)
            if has_capacity():  # a place was freed before the feed began
                return
            if not waiter.lock.acquire(timeout=-1 if timeout_s is None else timeout_s):
                raise TimeoutError("no agent has stopped running in time")
            self._outcome(waiter)
        finally:
            self._leave(waiter)

    async def capacity(self, has_capacity: Callable[[], bool]) -> None:
        """Await what `wait_capacity` waits for."""
        import asyncio

        future = asyncio.get_running_loop().create_future()
        waiter = Waiter(future)
        try:
            self._add_waiter(PLACE, waiter)
            if not has_capacity():
                await future
                self._outcome(waiter)
        finally:
            self._leave(waiter)

    def _enlist(self, ref: str, waiter: Waiter) -> Row:
        """Return the agent's row. If the agent has not ended, its end will wake the waiter."""
        row = self._state.read(lambda fleet: fleet.find(ref))
        if get.status(row) in ENDED:
            return row
        agent_id = get.agent_id(row)
        self._add_waiter(agent_id, waiter)
        # Read the row again: the agent may have ended before the feed began.
        current = self._state.read(lambda fleet: fleet.rows.get(agent_id))
        if current is None:
            raise UnknownAgentError(f"agent {agent_id} has ended and was removed meanwhile")
        return current
