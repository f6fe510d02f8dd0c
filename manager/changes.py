"""Changes: one reader of the changes of all agents, which keeps each agent's newest row."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from manager._public import public
from manager.agent import Agent, Row, agent_from_row, get

if TYPE_CHECKING:
    from asyncio import Future

A_TURN = 128  # futures resolved, or changes read, before the loop gets to run something else


class Feed(Protocol):
    """The source of a reader's rows: the manager's watch."""

    def next_row(self, reader: Changes) -> Row | None: ...
    async def wait_readable(self, reader: Changes) -> None: ...
    def close_reader(self, reader: Changes) -> None: ...


class Idle:
    """The readers of one loop that wait for changes; `is_called`: that loop will wake them."""

    __slots__ = ("futures", "is_called")

    def __init__(self) -> None:
        self.futures: dict[Future[None], None] = {}
        self.is_called = False


@public
class Changes:
    """An async iterator of Agents, ordered by LSN; made by `SubAgentManager.changes`.

    Several tasks may read it; each change goes to one of them. Dropping it, or `aclose`, ends it.
    """

    def __init__(self, watch: Feed, boot_id: str) -> None:
        self._watch = watch
        self._boot_id = boot_id
        self._turns = 0
        self._ref: weakref.ref[Changes] | None = None  # what the watch knows it by
        self._is_closed = False
        # What is still to be read, by agent; guarded by the watch's lock.
        self._dirty: OrderedDict[str, Row] = OrderedDict()

    def __aiter__(self) -> Changes:
        return self

    async def __anext__(self) -> Agent:
        self._turns += 1
        if not self._turns % A_TURN:  # while there is always more, nothing here would wait
            import asyncio

            await asyncio.sleep(0)
        while not self._is_closed:
            row = self._watch.next_row(self)
            if row is not None:
                return agent_from_row(row, self._boot_id)
            await self._watch.wait_readable(self)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End it: a waiting task gets StopAsyncIteration. Does nothing the second time."""
        self._is_closed = True
        self._watch.close_reader(self)

    def _enlist(self, ref: weakref.ref[Changes]) -> None:
        """Keep `ref`, by which the watch knows this reader and learns that it was dropped."""
        self._ref = ref

    def _retire(self) -> weakref.ref[Changes] | None:
        """Give up that reference, and return it; None the second time."""
        ref, self._ref = self._ref, None
        return ref

    def _put(self, row: Row) -> None:
        """Take in an agent's newest row in place of an older one not yet shown."""
        agent_id = get.agent_id(row)
        if len(row) == 1:
            self._dirty.pop(agent_id, None)
        else:
            self._dirty[agent_id] = row
            self._dirty.move_to_end(agent_id)

    def _begin_with(self, rows: Iterable[Row]) -> None:
        """Add the rows from before this reader began. Of two rows of an agent keep the newer."""
        newest = {get.agent_id(row): row for row in rows}
        for agent_id, row in self._dirty.items():
            if agent_id not in newest or get.lsn(newest[agent_id]) < get.lsn(row):
                newest[agent_id] = row
        ordered = sorted(newest.values(), key=get.lsn)
        self._dirty = OrderedDict((get.agent_id(row), row) for row in ordered)
