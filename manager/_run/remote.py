"""Remote run: the tasks of a run whose commands run on workers elsewhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Container, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from signal import Signals

from manager._control.errors import RequestError
from manager._control.runners import PAUSED, Runners
from manager._remote.desk import Hooks
from manager._remote.dispatcher import Dispatcher, open_dispatcher
from manager._remote.messages import Lease
from manager._remote.supply import is_resumable
from manager._run.admission import tries_of
from manager._run.joblog import JobLog
from manager._run.options import RunOptions
from manager._run.report import RunReport
from manager._run.schedule import entry_of, pause_s, schedule_of
from manager._run.signals import StopSignals
from manager.again import again_as, refusal
from manager.agent import ENDED, Agent
from manager.changes import Changes
from manager.errors import TransitionError
from manager.layouts import Record
from manager.leasing import STATUS, Leasing, Outcome
from manager.manager import SubAgentManager
from manager.queue import queue_of

_LOOKED_AT = 256  # tasks that a worker is offered at a time
_READ_S_MAX = 10.0


class TaskSupply:
    """The tasks of a run that may start now. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready: dict[str, dict[str, None]] = {}  # of each queue, in order
        self._ours: dict[str, str] = {}  # the queue of each agent that was offered
        self._is_open = True
        self._is_held = False

    def offer(self, agent: Agent) -> None:
        """Let a worker run a task."""
        with self._lock:
            self._ours[agent.agent_id] = queue_of(agent.metadata)
            if agent.status != "running":
                self._enter(agent.agent_id)

    def hold(self, is_held: bool) -> None:
        """Let no tasks start for now, or let them start again."""
        with self._lock:
            self._is_held = is_held

    def close(self) -> None:
        """Let no more tasks start."""
        with self._lock:
            self._is_open = False

    def note(self, agent: Agent) -> None:
        """Take note of an agent's new state. One that has lost its worker may start again."""
        with self._lock:
            if agent.agent_id in self._ours and is_resumable(agent):
                self._enter(agent.agent_id)

    def drop(self, agent_id: str) -> None:
        """Leave out an agent that can't start until it changes again."""
        with self._lock:
            self._ready[self._ours[agent_id]].pop(agent_id, None)

    def candidates(self, types: Collection[str], queues: Collection[str]) -> Iterator[str]:
        """Yield the ids of tasks of these queues that may start, in order."""
        for queue in queues:
            with self._lock:
                may_start = self._is_open and not self._is_held
                ready = self._ready.get(queue, {}) if may_start else {}
                first = [*islice(ready, _LOOKED_AT)]
            yield from first

    def _enter(self, agent_id: str) -> None:
        self._ready.setdefault(self._ours[agent_id], {})[agent_id] = None


class RemoteRun:
    """A run of tasks whose commands run elsewhere. The manager's process starts no command."""

    types: Container[str] = ()  # new agents come only from files of tasks

    def __init__(
        self,
        manager: SubAgentManager,
        report: RunReport,
        log: JobLog,
        options: RunOptions,
        on_change: Callable[[RunReport], None],
    ) -> None:
        self._manager = manager
        self._report = report
        self._log = log
        self._options = options
        self._on_change = on_change
        self._schedule = schedule_of(report.agents.values())
        self._supply = TaskSupply()
        self._leasing = Leasing(manager)
        self._runners = Runners()
        self._dispatcher: Dispatcher
        self._open: set[str] = set()  # tasks that were offered and have not ended
        self._pausing = 0  # tasks that are run again after a pause
        self._lock = threading.Lock()  # guards _retries
        self._retries: dict[str, str] = {}  # the next agent of a task, by the one that failed
        self._error: Exception | None = None
        self._changed: asyncio.Event

    async def run_all(self, signals: StopSignals, serve: Callable[[Runners], object]) -> None:
        """Let workers run all tasks, until nothing is left that may run. `serve` begins to take
        requests of other processes.

        At a signal, the tasks that run go on, and the next run finds them. Raises DispatchError and
        the errors of the journal.
        """
        loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

        def deliver(number: Signals) -> None:
            loop.call_soon_threadsafe(self._on_signal, number)

        changes = self._manager.changes()  # begins before the first worker is heard
        hooks = Hooks(
            supply=self._supply,
            on_result=self._end_and_retry,
            grant={"timeout_s": self._options.timeout_s},
            on_end=lambda: loop.call_soon_threadsafe(self._changed.set),
        )
        self._offer_ready()  # first: a worker may report a task of an earlier run at once
        url, credentials = self._options.on or "", self._options.credentials
        opening = partial(open_dispatcher, url, self._manager, hooks, credentials=credentials)
        self._dispatcher = dispatcher = await asyncio.to_thread(opening)
        following = asyncio.create_task(self._follow(changes))
        try:
            with signals.delivered_to(deliver):
                async with self._runners.running(self):
                    serve(self._runners)
                    self._on_change(self._report)
                    while self._offer_all(dispatcher):
                        await self._changed.wait()
                        self._changed.clear()
                    if self._report.signal is None:
                        await self._let_read()
        finally:
            following.cancel()
            await dispatcher.aclose()
        self._report.blocked = tuple(agent.name for agent in self._schedule.blocked)

    async def _let_read(self) -> None:
        """Wait a while for those who read the output of the last tasks, which ends with the run."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_READ_S_MAX):
                while (workers := self._manager._workers) is not None and workers.is_read:
                    await asyncio.sleep(_READ_S_MAX / 100)
                    if self._report.signal is not None:
                        return

    def _offer_all(self, dispatcher: Dispatcher) -> bool:
        """Offer all tasks that may start. Return False if nothing is left to wait for."""
        if error := self._error or dispatcher.error:
            raise error
        if self._offer_ready():
            dispatcher.wake()
        if self._report.signal is not None:
            return False
        if self._is_over:
            return any(self._report.agents[ref].status == "running" for ref in self._open)
        return bool(self._open or self._pausing)

    def _offer_ready(self) -> bool:
        """Offer all tasks that may start, and return whether there were any."""
        has_offered = False
        while not self._is_over and (agent := self._schedule.take()) is not None:
            now = self._current(agent)
            if now.status in ENDED:  # a request has ended it before it could start
                self._report.put(now)
                continue
            self._open.add(agent.agent_id)
            self._supply.offer(now)
            has_offered = True
        return has_offered

    @property
    def _is_over(self) -> bool:
        """True if no more tasks are started."""
        return self._report.signal is not None or self._report.halted_by is not None

    def has(self, agent: Agent) -> bool:
        """Return whether this is the newest agent of a task of this run."""
        return agent.agent_id in self._report.agents

    def wake(self) -> None:
        """Start nothing while a request holds the tasks, and note tasks that one has removed."""
        self._supply.hold(self._runners.is_held)
        self._dispatcher.wake()
        rows = self._manager._state.machine.rows  # a look-up needs no lock
        for agent_id in [agent_id for agent_id in self._open if agent_id not in rows]:
            self._note(self._current(self._report.agents[agent_id]))
        self._changed.set()

    async def pause(self, agent_id: str) -> Agent:
        """Interrupt a task, so that its worker stops its command."""
        agent = self._manager.interrupt(agent_id, PAUSED)
        await self._manager.durable(agent.lsn)
        return agent

    async def resume(self, agent_id: str) -> Agent:
        """Let a worker run an interrupted task again, as soon as one has a place."""
        agent = self._manager.get(agent_id)
        if agent.status != "interrupted":
            raise RequestError(f"agent {agent.name} is {agent.status}, and not interrupted")
        if agent_id in self._open:
            self._supply.offer(agent)
            self._dispatcher.wake()
        return agent

    async def retry(self, agent_id: str) -> Agent:
        """Queue another agent for a task that has ended and not completed."""
        await self._manager.room()
        agent = self._manager.get(agent_id)
        with self._lock:
            has_next = agent_id in self._retries
        if has_next or not self.has(agent):
            raise RequestError(f"agent {agent.name} has a newer attempt already")
        if problem := refusal(agent, agent):
            raise RequestError(problem)
        following = self._manager.spawn(**again_as(agent))
        self._note(agent)
        self._report.replace(agent, following)
        self._schedule.add(entry_of(following))
        self._changed.set()
        await self._manager.durable(following.lsn)
        return following

    def _current(self, agent: Agent) -> Agent:
        """Return the agent as it is now. One that was removed had been cancelled before."""
        return self._manager.find(agent.agent_id) or replace(agent, status="cancelled")

    def _on_signal(self, number: Signals) -> None:
        self._supply.close()
        self._report.signal = self._report.signal or number
        self._changed.set()

    async def _follow(self, changes: Changes) -> None:
        """Follow the changes of the tasks, once they are durable."""
        try:
            async for agent in changes:
                if agent.agent_id in self._report.agents:
                    await self._manager.durable(agent.lsn)
                    if agent.agent_id in self._report.agents:  # no retry has replaced it meanwhile
                        self._note(agent)
        except Exception as error:
            self._error = error
            self._changed.set()

    def _note(self, agent: Agent) -> None:
        self._report.put(agent)
        if agent.status in ENDED and agent.agent_id in self._open:
            self._open.discard(agent.agent_id)
            self._report.ended_now += 1
            self._log.add((agent,))
            self._note_end(agent)
        if agent.status != "running":  # nothing can start because a task runs
            self._changed.set()
        self._on_change(self._report)

    def _note_end(self, agent: Agent) -> None:
        with self._lock:
            next_id = self._retries.pop(agent.agent_id, None)
        if next_id is not None:
            following = self._manager.get(next_id)
            self._report.replace(agent, following)
            self._pausing += 1
            wait_s = pause_s(tries_of(following))
            asyncio.get_running_loop().call_later(wait_s, self._end_pause, following)
        elif agent.status == "completed":
            self._schedule.complete(agent.metadata["task"])
        elif agent.status == "failed" and self._options.halt != "never" and not self._is_over:
            self._report.halted_by = agent
            self._supply.close()
            if self._options.halt == "now":
                self._report.is_halted_now = True
                self._stop_all(f"stopped because {agent.name} failed")

    def _stop_all(self, reason: str) -> None:
        for agent_id in self._open:
            with suppress(TransitionError):
                self._manager.interrupt(agent_id, reason)

    def _end_pause(self, agent: Agent) -> None:
        self._pausing -= 1
        self._schedule.add(entry_of(agent))
        self._changed.set()

    def _end_and_retry(
        self, lease: Lease, sequence: int, content: Record, worker_name: str
    ) -> tuple[Outcome, int] | None:
        """Journal a failure together with the agent of the next try, in the dispatcher's thread.

        Return None if the result is journaled as others are.
        """
        agent = self._manager.find(lease.agent_id)
        if content[STATUS] != "failed" or agent is None or agent.agent_id not in self._open:
            return None
        tries = tries_of(agent) + 1
        if tries > self._options.retries:
            return None
        with self._lock:
            ended = self._leasing.end_in_transaction(
                self._manager.transaction(),
                lease.agent_id,
                lease.token,
                sequence,
                content,
                worker_name,
                again_as(agent, tries=tries),
            )
            outcome, lsn, next_id = ended
            if next_id is not None:
                self._retries[lease.agent_id] = next_id
        return outcome, lsn
