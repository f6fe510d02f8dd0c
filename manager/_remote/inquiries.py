"""Inquiries: the requests of a manager to its workers about the output of their commands.

A worker may be gone, answer late, or answer anything. Each request has a time limit and each answer
a bound, and a failure is reported only to the caller.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import Collection, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from journal import JournalError
from manager._control.errors import RequestError
from manager._remote import messages, subjects
from manager._remote.desk import Desk
from manager._remote.link import Link, UnansweredError
from manager._remote.messages import Body, MessageError
from manager._remote.pieces import POSITION_MAX, Piece
from manager._remote.shelf import READS_MAX
from manager.layouts import Record
from manager.values import text, texts, whole
from manager.waking import call_in_loop

T = TypeVar("T")
ANSWER_S = 3.0
"""The time for which the answer of a worker is awaited, in seconds."""

_NAMESAKES_MAX = 16  # workers of the same name that are asked for the files of one that has gone
_TOLD_MAX = 32  # workers that are asked at a time to remove files
_TOLD_AGENTS_MAX = 1000  # agents that one message names
_FORGOTTEN_MAX = 100_000  # removed agents that wait; the files of further ones are kept
_HEARD_S = 120.0  # a worker that has been silent for longer has gone
_READ_S = 1.0  # a client that follows asks more often
_GATHER_S = 10.0  # a worker with free places asks more often
_CALL_S = _GATHER_S + 3 * ANSWER_S + 1
_log = logging.getLogger("manager")


class Inquiries:
    """The requests to the workers of one desk. Make it in the event loop of the dispatcher."""

    def __init__(
        self,
        link: Link,
        fleet: str,
        desk: Desk,
    ) -> None:
        self._link = link
        self._fleet = fleet
        self._desk = desk
        self._loop = asyncio.get_running_loop()
        self._opened_s = self._loop.time()
        self._asking = 0
        self._asked_s = float("-inf")
        self._forgotten: dict[str, str] = {}  # the workers of removed agents that wait
        self._forgotten_lsn = 0
        self._forgetting: asyncio.Task[None] | None = None
        self._is_over = False

    @property
    def is_read(self) -> bool:
        """True if another process has asked for output in the last second."""
        return self._loop.time() - self._asked_s < _READ_S

    def end(self) -> None:
        """Remove no more files."""
        self._is_over = True
        if self._forgetting is not None:
            self._forgetting.cancel()

    async def output(
        self,
        *,
        worker: str,
        agent_id: str,
        start: int,
        stream: str,
        position: int,
        at: str | None = None,
    ) -> dict[str, Any]:
        """Return a piece of what a command has printed; see `manager.elsewhere.Workers`."""
        messages.worker_id(*text("worker", worker).rpartition(".")[::2])
        if at is not None and messages.name_of(text("at", at)) != messages.name_of(worker):
            raise ValueError(f"{at!r:.200} is not a namesake of worker {worker}")
        if stream not in ("out", "err") or max(position, start) >= POSITION_MAX:
            raise ValueError("not a position in a stream")
        body = {
            "agent_id": text("agent_id", agent_id),
            "start": whole("start", start),
            "stream": stream,
            "position": whole("position", position),
        }
        return await self._in_loop(self._output(worker, at or worker, body))

    async def signs(self, workers: list[str]) -> list[tuple[str, str, float]]:
        """Return signs of life; see `manager.elsewhere.Workers`."""
        return await self._in_loop(self._signs(texts("workers", workers)))

    def check_spawn(self, record: Record) -> None:
        """Raise ValueError for an agent that is too large; see `manager.elsewhere.Workers`."""
        self._desk.check_spawn(record)

    def forget(self, workers: Mapping[str, str], lsn: int) -> None:
        """Remove the output of removed agents; see `manager.elsewhere.Workers`."""
        call_in_loop(self._loop, partial(self._note, workers, lsn))

    # --- in the dispatcher's event loop ---

    async def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of `work`, which runs in the dispatcher's event loop."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the loop has been closed
            work.close()
            raise _ended() from None
        awaited = asyncio.wrap_future(future)
        try:
            await asyncio.wait((awaited,), timeout=_CALL_S)
        finally:
            future.cancel()
        if awaited.cancelled() or not awaited.done():
            raise _ended()
        return awaited.result()

    async def _signs(self, workers: Collection[str]) -> list[tuple[str, str, float]]:
        known = [self._desk.roster[worker] for worker in workers if worker in self._desk.roster]
        now_s = self._desk.clock_s()
        return [(each.worker, each.machine, now_s - each.seen_s) for each in known]

    async def _output(self, worker: str, at: str, body: Body) -> dict[str, Any]:
        if self._asking >= READS_MAX:
            raise RequestError(f"{READS_MAX} others read output already; try again later")
        self._asking += 1
        self._asked_s = self._loop.time()
        try:
            return await self._found(worker, at, body)
        finally:
            self._asking -= 1
            self._asked_s = self._loop.time()

    async def _found(self, worker: str, at: str, body: Body) -> dict[str, Any]:
        """Return a piece of the worker, or of one that was started in its directory later.

        A dispatcher that was just opened waits until all workers have asked for agents.
        """
        while True:
            problems: list[str] = []
            if (reply := await self._try_to_find(worker, at, body, problems)) is not None:
                return reply
            if problems or self._loop.time() > self._opened_s + _GATHER_S:
                break
            await asyncio.sleep(_GATHER_S / 20)
        if not self._link.is_connected:
            problems = ["the servers can't be reached from here"]
        why = problems[-1] if problems else "it has gone, or can't be reached"
        raise RequestError(
            f"worker {worker} has the output, but did not return it: {why}; to see its end: "
            "subagents show"
        )

    async def _try_to_find(
        self, worker: str, at: str, body: Body, problems: list[str]
    ) -> dict[str, Any] | None:
        """Return a reply, or None and append what is known of the problem."""
        nothing: Piece | None = None
        for asked in dict.fromkeys((at, worker)):
            piece = await self._piece(asked, body, problems)
            if piece is not None and piece.is_known:
                return _reply(asked, piece)
            nothing = piece if asked == worker else None
        if nothing is not None:  # its command has printed nothing, or its files were removed
            return _reply(worker, nothing)
        others = self._namesakes(worker, at)
        pieces = await asyncio.gather(*(self._piece(other, body, []) for other in others))
        for other, piece in zip(others, pieces, strict=True):
            if piece is not None and piece.is_known:
                return _reply(other, piece)
        return None

    def _namesakes(self, worker: str, at: str) -> list[str]:
        """Return the workers with the same name, the one that was heard last first."""
        name = messages.name_of(worker)
        known = [
            each for each in self._desk.roster.values() if messages.name_of(each.worker) == name
        ]
        known.sort(key=lambda each: each.seen_s, reverse=True)
        others = (each.worker for each in known if each.worker not in (worker, at))
        return [*islice(others, _NAMESAKES_MAX)]

    async def _piece(self, worker: str, body: Body, problems: list[str]) -> Piece | None:
        """Return a worker's piece, or None and append the problem, if it is a known one."""
        try:
            answer = await self._ask(worker, "output", body)
            if "error" in answer:
                problems.append(messages.text(answer["error"], "error")[:200])
                return None
            return Piece.of(answer, body["position"])
        except UnansweredError:
            return None
        except MessageError as error:
            problems.append(f"its answer is malformed: {error}")
            return None

    async def _ask(self, worker: str, verb: str, body: Body) -> Body:
        subject = subjects.to_worker(self._fleet, worker, verb)
        data = messages.pack(self._desk.stamped(body))
        answer = messages.unpack(await self._link.ask(subject, data, ANSWER_S))
        messages.common_version(answer)
        return answer

    # --- removals ---

    def _note(self, workers: Mapping[str, str], lsn: int) -> None:
        if self._is_over:
            return
        if len(self._forgotten) >= _FORGOTTEN_MAX:
            _log.warning(
                "workers keep the output of %d removed agents: over %d removals already wait for "
                "the disk, the mirror or slow workers",
                len(workers),
                _FORGOTTEN_MAX,
            )
            return
        self._forgotten.update(workers)
        self._forgotten_lsn = max(self._forgotten_lsn, lsn)
        if self._forgetting is None:
            self._forgetting = self._loop.create_task(self._forget_all())

    async def _forget_all(self) -> None:
        try:
            while self._forgotten:
                workers, lsn = self._forgotten, self._forgotten_lsn
                self._forgotten = {}
                await self._desk.settle(lsn)
                # An earlier start of an agent may have run on any of the workers.
                since_s = self._desk.clock_s() - _HEARD_S
                heard = (w.worker for w in self._desk.roster.values() if w.seen_s >= since_s)
                await self._tell({*workers.values(), *heard}, [*workers])
        except JournalError as error:
            self._forgotten.clear()
            _log.warning("workers keep the output of removed agents: %s", error)
        finally:
            self._forgetting = None

    async def _tell(self, workers: Collection[str], agent_ids: list[str]) -> None:
        for begin in range(0, len(agent_ids), _TOLD_AGENTS_MAX):
            body = {"agent_ids": agent_ids[begin : begin + _TOLD_AGENTS_MAX]}
            left = iter(workers)
            while told := [*islice(left, _TOLD_MAX)]:
                await asyncio.gather(*(self._remove(worker, body) for worker in told))

    async def _remove(self, worker: str, body: Body) -> None:
        with suppress(UnansweredError, MessageError):
            await self._ask(worker, "forget", body)


def _reply(worker: str, piece: Piece) -> dict[str, Any]:
    data = b64encode(piece.data).decode()
    return {"at": worker, "position": piece.position, "data": data}


def _ended() -> RequestError:
    return RequestError("the connection to the workers has just ended, or is busy; try again")
