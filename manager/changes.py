"""Changes: a reader of the changes of all agents. It keeps only each agent's newest row."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from journal import BufferFullError, ClosedError, FailedError
from manager._public import public
from manager.agent import Agent, Row, agent_from_row, get

if TYPE_CHECKING:
    from asyncio import Future

A_TURN = 128  # futures resolved, or changes read, before the event loop may run other tasks


class Feed(Protocol):
    """The source of a reader's rows: the manager's watch."""

    def next_row(self, reader: Changes) -> Row | None: ...
    async def wait_readable(self, reader: Changes) -> None: ...
    def close_reader(self, reader: Changes) -> None: ...


class Idle:
    """The readers that wait for changes in one event loop. `is_called`: the loop was asked to wake
    them."""

    __slots__ = ("futures", "is_called")

    def __init__(self) -> None:
        self.futures: dict[Future[None], None] = {}
        self.is_called = False


@public
class Changes:
    """An async iterator of agents, ordered by LSN, as `SubAgentManager.changes` returns it.

    Several tasks may read it; each change goes to one of them. It ends when `aclose` is called or
    the last reference to it is dropped.
    """

    def __init__(self, watch: Feed, boot_id: str) -> None:
        self._watch = watch
        self._boot_id = boot_id
        self._turns = 0
        self._ref: weakref.ref[Changes] | None = None  # the watch's key for this reader
        self._is_closed = False
        # The rows that are still to be read, by agent. Guarded by the watch's lock.
        self._dirty: OrderedDict[str, Row] = OrderedDict()
        # For a reader with a cursor: the function that stores its position, the LSN of the row
        # yielded last, and the stored position.
        self._store: Callable[[int], object] | None = None
        self._lsn = self._stored_lsn = 0

    def __aiter__(self) -> Changes:
        return self

    async def __anext__(self) -> Agent:
        self._turns += 1
        if self._store is not None and not self._turns % A_TURN:
            self._store_position()
        if not self._turns % A_TURN:  # while there are rows to read, the loop below never waits
            import asyncio

            await asyncio.sleep(0)
        while not self._is_closed:
            row = self._watch.next_row(self)
            if row is not None:
                self._lsn = get.lsn(row)
                return agent_from_row(row, self._boot_id)
            self._store_position()
            await self._watch.wait_readable(self)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the iterator. Waiting tasks get StopAsyncIteration. A second call does nothing."""
        self._is_closed = True
        self._watch.close_reader(self)

    def _store_in(self, store: Callable[[int], object], stored_lsn: int) -> None:
        """Store the position of this reader with `store` from now on."""
        self._store, self._lsn, self._stored_lsn = store, stored_lsn, stored_lsn

    def _store_position(self) -> None:
        """Store the LSN of the last row, which the caller has dealt with."""
        if self._store is not None and self._lsn > self._stored_lsn:
            # The next time stores it, or the row is yielded again.
            with suppress(BufferFullError, ClosedError, FailedError):
                self._store(self._lsn)
                self._stored_lsn = self._lsn

    def _enlist(self, ref: weakref.ref[Changes]) -> None:
        """Keep `ref`, the watch's key for this reader. Its callback runs when this is dropped."""
        self._ref = ref

    def _retire(self) -> weakref.ref[Changes] | None:
        """Return the watch's key for this reader and forget it. Return None on a second call."""
        ref, self._ref = self._ref, None
        return ref

    def _put(self, row: Row) -> None:
        """Store an agent's newest row in place of an older one that was not read yet. A row of one
        field means that the agent was removed.
        """
        agent_id = get.agent_id(row)
        if len(row) == 1:
            self._dirty.pop(agent_id, None)
        else:
            self._dirty[agent_id] = row
            self._dirty.move_to_end(agent_id)

    def _begin_with(self, rows: Iterable[Row]) -> None:
        """Add `rows` from before this reader began. If an agent has two rows, keep the newer."""
        newest = {get.agent_id(row): row for row in rows}
        for agent_id, row in self._dirty.items():
            if agent_id not in newest or get.lsn(newest[agent_id]) < get.lsn(row):
                newest[agent_id] = row
        ordered = sorted(newest.values(), key=get.lsn)
        self._dirty = OrderedDict((get.agent_id(row), row) for row in ordered)
