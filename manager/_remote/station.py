"""Station: asks a manager for agents, runs them, and reports their progress and results."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

from manager import clock, records
from manager._remote import messages
from manager._remote.context import RemoteContext
from manager._remote.courier import Courier
from manager._remote.messages import Body, Lease, MessageError
from manager._remote.outbox import Outbox
from manager._remote.reports import RESULT_FIELDS
from manager._remote.spool import Spool
from manager.errors import DispatchError
from manager.result import AgentResult
from manager.values import json_value, optional_text, tail
from manager.worker_checks import not_awaitable

ORPHAN_S = 600.0
"""The default time without any answer, in seconds, after which a worker stops its agents."""

_log = logging.getLogger("manager")
_WAIT_S = 5.0  # the time for which one request waits for agents
_PAUSE_S = 0.5
_WAITING_MAX = 1000  # results that wait to be recorded
_WITHDRAW_S = 1.0  # the wait for the end of the request for agents
_HAND_BACK_S = 15.0  # for the last reports of a worker that ends

_HANDED_BACK = AgentResult(None, status="interrupted", reason=records.HANDED_BACK)

Runner = Callable[[RemoteContext], Awaitable[AgentResult | str | None]]


class _Run:
    """An agent that runs here, or whose last report was not recorded yet."""

    def __init__(self, journal_id: str, lease: Lease, context: RemoteContext | None) -> None:
        self.journal_id = journal_id
        self.lease = lease
        self.context = context  # None: only its result is left, from an earlier process
        self.outbox: Outbox
        self.task: asyncio.Task[None] | None = None
        self.is_running = True


class Station:
    """A worker, which has slots for agents of some types and queues. Use it in one event loop."""

    def __init__(
        self,
        runners: Mapping[str, Runner],
        queues: Sequence[str],
        slots: int,
        *,
        orphan_s: float = ORPHAN_S,
        spool: Spool | None = None,
        clock_s: Callable[[], float] = clock.monotonic,
    ) -> None:
        self._runners = runners
        self._queues = [*queues]
        self._slots = slots
        self._orphan_s = orphan_s
        self._spool = spool
        self._clock_s = clock_s
        self._all: dict[str, dict[Lease, _Run]] = {}  # by the journal
        self._changed = asyncio.Event()
        self._came = asyncio.Event()
        self._has_mistake = asyncio.Event()
        self._mistake: TypeError | None = None  # of a runner that returned nothing to await
        self._number = 0
        self._courier: Courier

    @property
    def is_free(self) -> bool:
        """True if no agent runs here. Then the station may work for another journal. Reports that
        wait for this one are sent once a manager of it answers again."""
        return not self._running()

    @property
    def _runs(self) -> dict[Lease, _Run]:
        """The runs of the journal that the station works for."""
        return self._all.setdefault(self._courier.journal_id, {})

    async def run(self, courier: Courier) -> None:
        """Work until the task is cancelled. Then agents that run are handed back.

        Raises DispatchError if the manager speaks another version of the protocol, and TypeError
        after a runner has returned nothing that can be awaited. Its agent fails.
        """
        self._courier = courier
        self._report_kept()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._fetch())
                group.create_task(self._confirm_all())
                group.create_task(self._beat())
                group.create_task(self._end_at_mistake())
        except BaseExceptionGroup as errors:
            first = errors.exceptions[0]  # it cancelled the other tasks
            raise first from first.__cause__
        finally:
            await self._hand_back()

    async def _end_at_mistake(self) -> None:
        await self._has_mistake.wait()
        assert self._mistake is not None
        raise self._mistake

    def stop(self, message: Body) -> set[Lease]:
        """Stop the agents whose leases a manager names, and return these. Raises MessageError."""
        over = {Lease.of(item) for item in messages.items(message.get("stop"), "stop")}
        for lease in over & self._runs.keys():
            self._runs[lease].outbox.end()
        return over

    # --- agents come ---

    async def _fetch(self) -> None:
        while True:
            if (free := self._free()) <= 0:
                self._changed.clear()
                await self._changed.wait()
            else:
                answer = await self._ask(free, _WAIT_S)
                if answer is None or not self._accept(answer, free):
                    await asyncio.sleep(_PAUSE_S)

    async def _ask(self, slots: int, wait_s: float) -> Body | None:
        """Ask for up to `slots` agents, and return the answer. This ends an earlier request."""
        self._number += 1
        body = {
            "number": self._number,
            "types": [*self._runners],
            "queues": self._queues,
            "slots": slots,
            "wait_s": wait_s,
            "held": self._held(),
            "running": self._running(),
        }
        return await self._courier.try_to_ask("next", body, wait_s + self._courier.answer_s)

    def _accept(self, answer: Body, free: int) -> bool:
        """Take the agents in an answer. Return False if one of them can't be run here."""
        try:
            grants = messages.items(answer.get("grants"), "grants")
            for grant in grants[:free]:
                agent, lease = messages.agent_of(grant.get("agent")), Lease.of(grant.get("lease"))
                if agent.agent_type not in self._runners:
                    raise MessageError(f"an agent of the unknown type {agent.agent_type!r:.80}")
                if lease not in self._runs:
                    options = grant.get("options")
                    context = RemoteContext(agent, options if type(options) is dict else {})
                    self._take(_Run(self._courier.journal_id, lease, context))
        except (MessageError, AttributeError) as error:
            _log.warning("an answer of the manager is malformed: %s", error)
            return False
        return True

    def _take(self, run: _Run, *, sequence: int = 0) -> None:
        run.outbox = Outbox(
            self._courier,
            run.journal_id,
            run.lease,
            lambda: self._note_over(run),
            sequence=sequence,
        )
        if run.context is not None:
            run.context._outbox = run.outbox
        self._all.setdefault(run.journal_id, {})[run.lease] = run
        self._came.set()

    def _forget(self, run: _Run) -> None:
        self._all[run.journal_id].pop(run.lease, None)
        self._changed.set()

    def _report_kept(self) -> None:
        """Report the results that an earlier process of this worker has left."""
        for journal_id, lease, sequence, body in self._spool or ():
            run = _Run(journal_id, lease, None)
            self._take(run, sequence=sequence - 1)
            run.task = asyncio.create_task(self._post(run, body))

    async def _confirm_all(self) -> None:
        """Start the agents that come, while the next ones are asked for."""
        while True:
            await self._came.wait()
            self._came.clear()
            while not await self._confirm():
                await asyncio.sleep(_PAUSE_S)

    async def _confirm(self) -> bool:
        """Start the agents that have come. Return False if the manager does not answer.

        The manager hears first that they have come: it knows then that an agent whose lease was
        never confirmed has not begun.
        """
        come = [run for run in self._runs.values() if run.task is None]
        if not come:
            return True
        held = {"held": [run.lease.message for run in come]}
        answer = await self._courier.try_to_ask("beat", held, self._courier.answer_s)
        if answer is None:
            return False
        try:
            self.stop(answer)
        except MessageError as error:
            _log.warning("an answer of the manager is malformed: %s", error)
            return False
        for run in come:
            if not run.outbox.is_over and run.task is None:  # nothing has handed it back
                run.task = asyncio.create_task(self._work(run))
        return True

    # --- agents run ---

    async def _work(self, run: _Run) -> None:
        await self._report(run, await self._result(run))

    async def _report(self, run: _Run, result: AgentResult) -> None:
        await self._post(run, _result_body(result, run.outbox.body_bytes_max))

    async def _post(self, run: _Run, body: Body) -> None:
        run.is_running = False
        answered = run.outbox.post("result", body)
        self._changed.set()  # after the report: it frees the place that the next request takes
        if self._spool is not None:
            self._spool.put(run.journal_id, run.lease, run.outbox.sequence, body)
        with suppress(asyncio.CancelledError):
            await answered
            if self._spool is not None:
                self._spool.drop(run.journal_id, run.lease)
            run.outbox.end()  # what a thread of the runner still reports would wait forever
            self._forget(run)

    async def _result(self, run: _Run) -> AgentResult:
        assert run.context is not None
        if self._mistake is not None:
            return _HANDED_BACK  # it was confirmed together with the agent of the mistake
        agent_type = run.context.agent.agent_type
        try:
            returned: Any = self._runners[agent_type](run.context)
            if (mistake := not_awaitable(agent_type, returned)) is not None:
                self._mistake = mistake
                self._has_mistake.set()
                return _failure(mistake)
            result = await returned
            return result if isinstance(result, AgentResult) else AgentResult(result)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                return _failure(error)  # the runner raised it by itself
            while task.cancelling():
                task.uncancel()
            return _HANDED_BACK
        except (GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # whatever else a runner raises makes its agent fail
            return _failure(error)

    def _note_over(self, run: _Run) -> None:
        """Let an agent whose lease is over stop. Its slot is free once it has returned."""
        if run.context is not None:
            run.context.cancelled.set()
        if run.task is None or not run.is_running:
            self._forget(run)

    def _free(self) -> int:
        """Return the number of agents that may come: 0 or less while too many results wait, and
        after a mistake."""
        if self._mistake is not None:
            return 0
        return min(self._slots - self._running(), self._slots + _WAITING_MAX - len(self._runs))

    def _running(self) -> int:
        return sum(run.is_running for run in self._runs.values())

    def _held(self) -> list[list[Any]]:
        return [run.lease.message for run in self._runs.values()]

    # --- signs of life ---

    async def _beat(self) -> None:
        courier = self._courier
        while True:
            courier.lease_changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(courier.lease_s / 3):
                    await courier.lease_changed.wait()  # a shorter lease may end before that
            leases = [run.lease for run in self._runs.values() if not run.outbox.is_over]
            if not leases:
                courier.answered_s = max(courier.answered_s, self._clock_s() - self._orphan_s)
                continue
            held = [lease.message for lease in leases]
            answer = await courier.try_to_ask("beat", {"held": held}, courier.answer_s)
            if answer is not None:
                with suppress(MessageError):
                    self.stop(answer)
            elif self._running() and self._clock_s() - courier.answered_s > self._orphan_s:
                _log.error("no answer for %g s; the agents are stopped", self._orphan_s)
                self._cancel_all()

    def _cancel_all(self) -> None:
        for run in self._runs.values():
            if run.task is not None and run.is_running:
                run.task.cancel()
        self._hand_back_come()

    def _hand_back_come(self) -> None:
        """Hand back the agents that have come, and have not begun."""
        for run in self._runs.values():
            if run.task is None:
                run.task = asyncio.create_task(self._report(run, _HANDED_BACK))

    async def _hand_back(self) -> None:
        """Let the manager give all agents to others, if it answers soon."""
        self._cancel_all()
        try:
            with suppress(DispatchError, TimeoutError):
                async with asyncio.timeout(_WITHDRAW_S):
                    await self._withdraw()
            tasks = [run.task for run in self._runs.values() if run.task is not None]
            if tasks:
                await asyncio.wait(tasks, timeout=_HAND_BACK_S)
        finally:  # also if the worker is cancelled again, because it shall not wait
            for run in chain.from_iterable(runs.values() for runs in self._all.values()):
                run.outbox.close()
                if run.task is not None:
                    run.task.cancel()

    async def _withdraw(self) -> None:
        """End the request that waits for agents, which could come back here. Those that were in its
        answer, which nobody has read, are named again in this one."""
        answer = await self._ask(0, 0)
        if answer is not None and self._accept(answer, self._slots):
            self._hand_back_come()


def _result_body(result: AgentResult, bytes_max: int) -> Body:
    """Return a result as a report has it. One that no message can carry becomes a failure."""
    try:
        body: Body = {name: getattr(result, name) for name in RESULT_FIELDS}
        for name in ("checkpoint", "needs_input"):
            body[name] = json_value(name, body[name])
        for name in ("result", "reason"):
            known = optional_text(name, body[name])
            body[name] = None if known is None else tail(name, known, bytes_max // 4)
        size = len(messages.pack(body))
        if size > bytes_max:
            raise ValueError(f"the result has {size} bytes, more than the servers carry")
    except (TypeError, ValueError) as error:
        failure = _failure(error)
        return {name: getattr(failure, name) for name in RESULT_FIELDS}
    return body


def _failure(error: BaseException) -> AgentResult:
    text = "".join(traceback.format_exception_only(error)).strip()
    text = text.encode(errors="replace").decode()
    return AgentResult(None, status="failed", reason=text[-4096:])
