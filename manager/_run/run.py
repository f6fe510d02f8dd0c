"""Run: the tasks of a run in its event loop, from their starts to their ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from dataclasses import replace
from signal import Signals

from manager._control.errors import RequestError
from manager._control.runners import PAUSED, Runners
from manager._run.admission import tries_of
from manager._run.execution import Executor, Stop
from manager._run.joblog import JobLog
from manager._run.options import RunOptions
from manager._run.report import RunReport
from manager._run.schedule import entry_of, pause_s, schedule_of
from manager._run.signals import StopSignals
from manager.again import again_as, refusal
from manager.agent import ENDED, Agent
from manager.errors import TransitionError, UnknownAgentError
from manager.manager import SubAgentManager
from manager.result import AgentResult

OnChange = Callable[[RunReport], None]
_AWAITED_S = 1.0  # the time for which a stopped run waits for the disk before it says so


class Run:
    """A run of commands in one event loop."""

    types: Container[str] = ()  # new agents come only from files of tasks

    def __init__(
        self,
        manager: SubAgentManager,
        executor: Executor,
        report: RunReport,
        log: JobLog,
        options: RunOptions,
        on_change: OnChange,
    ) -> None:
        self._manager = manager
        self._executor = executor
        self._report = report
        self._log = log
        self._options = options
        self._on_change = on_change
        self._schedule = schedule_of(report.agents.values())
        self._runners = Runners()
        self._running = 0
        self._commands = 0  # commands that run
        self._retrying = 0  # tasks that are run again after a pause, or on request
        self._paused: set[str] = set()  # agents that wait for a request to resume them
        self._begins: dict[str, asyncio.Event] = {}  # of agents that a request has resumed
        self._stops: dict[str, Stop] = {}  # of the commands that run, by the id of the agent
        self._stop: Stop
        self._work: asyncio.Task[None]
        self._changed: asyncio.Event  # set when a task may be startable, or the run may be over

    async def run_all(self, signals: StopSignals, serve: Callable[[Runners], object]) -> None:
        """Run all tasks until nothing is left that may run. `serve` begins to take requests of
        other processes."""
        loop = asyncio.get_running_loop()
        self._stop, self._changed = Stop(), asyncio.Event()

        def deliver(number: Signals) -> None:
            loop.call_soon_threadsafe(self._on_signal, number)

        with signals.delivered_to(deliver):
            async with self._runners.running(self):
                serve(self._runners)
                self._on_change(self._report)
                self._work = asyncio.create_task(self._run_tasks())
                watch = asyncio.create_task(self._watch_stop())
                try:
                    await self._work
                except asyncio.CancelledError:
                    if not self._report.unrecorded:
                        raise
                    signals.has_given_up = True
                    return
                finally:
                    watch.cancel()
                for begun in self._begins.values():
                    begun.set()
        blocked = self._schedule.blocked
        for agent in blocked:  # a request may have ended it
            self._report.put(self._current(agent))
        self._report.blocked = tuple(
            agent.name
            for agent in blocked
            if self._report.agents[agent.agent_id].status not in ENDED
        )

    async def _run_tasks(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                await self._start_all(group)
        except BaseExceptionGroup as errors:
            first = errors.exceptions[0]  # it cancelled the other tasks
            raise first from first.__cause__

    async def _start_all(self, group: asyncio.TaskGroup) -> None:
        while True:
            while self._may_start and (agent := self._schedule.take()) is not None:
                self._running += 1
                group.create_task(self._run_agent(agent))
            is_idle = not self._running and not self._retrying
            if is_idle and not self._paused and not self._schedule.is_ready:
                return
            if self._is_over and not self._running:
                return
            if self._report.is_waiting != is_idle:
                self._report.is_waiting = is_idle
                self._on_change(self._report)
            self._changed.clear()
            await self._changed.wait()

    @property
    def _may_start(self) -> bool:
        """True if a task that is ready may be started now."""
        has_place = self._running < self._options.jobs
        return has_place and not self._is_over and not self._runners.is_held

    @property
    def _is_over(self) -> bool:
        """True if no more tasks are started."""
        return bool(self._stop.reason) or self._report.halted_by is not None

    def _on_signal(self, number: Signals) -> None:
        if self._stop_all(f"stopped by {number.name}"):
            self._report.signal = number
            self._on_change(self._report)
        elif self._report.awaited:
            self._report.signal = self._report.signal or number
            self._report.unrecorded = self._running
            self._work.cancel()
        self._changed.set()

    async def _watch_stop(self) -> None:
        """Report that the run was stopped, and waits only for the disk, which may be full."""
        await asyncio.wait((self._stop.requested,))
        was_waiting = is_waiting = False
        while not (was_waiting and is_waiting):
            await asyncio.sleep(_AWAITED_S)
            was_waiting, is_waiting = is_waiting, bool(self._running and not self._commands)
        self._report.awaited = self._running
        self._on_change(self._report)

    def _stop_all(self, reason: str) -> bool:
        for stop in self._stops.values():
            stop.request(reason)
        return self._stop.request(reason)

    def has(self, agent: Agent) -> bool:
        """Return whether this is the newest agent of a task of this run."""
        return agent.agent_id in self._report.agents

    def wake(self) -> None:
        """Stop the commands whose agents a request has ended, and start what may start now."""
        for agent_id, stop in self._stops.items():
            agent = self._manager.find(agent_id)
            if agent is None or agent.status != "running":
                stop.request("cancelled")
        for agent_id in [*self._paused]:
            agent = self._current(self._report.agents[agent_id])
            if agent.status in ENDED:
                self._paused.discard(agent_id)
                self._report.put(agent)
        self._changed.set()

    async def pause(self, agent_id: str) -> Agent:
        """Stop the agent's command, which makes the agent interrupted."""
        stop = self._stops.get(agent_id)
        if stop is None:
            self._manager.interrupt(agent_id, PAUSED)  # raises an error if it does not run
        else:
            if not stop.reason:
                stop.request(PAUSED)
            await stop.settled.wait()
        agent = self._manager.get(agent_id)
        await self._manager.durable(agent.lsn)
        return agent

    async def resume(self, agent_id: str) -> Agent:
        """Run a paused task again, as soon as there is a place. If there is one, wait for that."""
        agent = self._manager.get(agent_id)
        if agent.status != "interrupted":
            raise RequestError(f"agent {agent.name} is {agent.status}, and not interrupted")
        if agent_id in self._paused:
            self._paused.discard(agent_id)
            begun = self._begins[agent_id] = asyncio.Event()
            self._schedule.add(entry_of(agent))
            self._changed.set()
            if self._may_start:
                await begun.wait()
        return self._manager.get(agent_id)

    async def retry(self, agent_id: str) -> Agent:
        """Queue another agent for a task that has ended and not completed, once the command of the
        cancelled agent has been stopped: it may work on the same files."""
        self._retrying += 1  # the run goes on meanwhile
        try:
            await self._manager.room()
            agent = self._retriable(agent_id)
            while (stop := self._stops.get(agent_id)) is not None:
                await stop.settled.wait()
                await self._manager.room()
                agent = self._retriable(agent_id)
            following = self._manager.spawn(**again_as(agent))
            self._report.replace(agent, following)
            self._schedule.add(entry_of(following))
        finally:
            self._retrying -= 1
            self._changed.set()
        await self._manager.durable(following.lsn)
        self._on_change(self._report)
        return following

    def _retriable(self, agent_id: str) -> Agent:
        """Return an agent that may be retried. Raises RequestError if it may not."""
        agent = self._manager.get(agent_id)
        if not self.has(agent):
            raise RequestError(f"agent {agent.name} has a newer attempt already")
        if problem := refusal(agent, agent):
            raise RequestError(problem)
        return agent

    async def _run_agent(self, agent: Agent) -> None:
        await self._run_command(agent)
        self._running -= 1
        self._changed.set()

    async def _run_command(self, agent: Agent) -> None:
        manager, ref = self._manager, agent.agent_id

        def begin() -> Agent:
            if agent.status == "interrupted":
                begun = manager.resume(ref, checkpoint={})  # the facts of its last start are over
            else:
                begun = manager.start(ref)
            self._stops[ref] = Stop()  # at once, because requests look for it
            return begun

        running = await self._journal(agent, begin)
        if (begun := self._begins.pop(ref, None)) is not None:
            begun.set()
        if running.status == "running":
            stop = self._stops[ref]
            self.wake()  # a request may have come since
            if self._stop.reason:
                stop.request(self._stop.reason)
            if self._stop.hurry.done():
                stop.request("")
            self._commands += 1
            try:
                result = await self._executor.run(running, stop)
            finally:
                self._commands -= 1
            tries = tries_of(agent) + 1
            if result.status == "failed" and tries <= self._options.retries:
                await self._retry(agent, result, tries)
            else:
                end = await self._journal(agent, lambda: manager.update_from_result(ref, result))
                self._note_end(end)
            del self._stops[ref]
            stop.settled.set()

    async def _retry(self, agent: Agent, result: AgentResult, tries: int) -> None:
        """Journal the end of an agent together with the agent of the next try, so that a kill
        during the pause forgets neither.
        """
        await self._manager.room()
        try:
            with self._manager.transaction() as transaction:
                transaction.update_from_result(agent.agent_id, result)
                next_id = transaction.spawn(**again_as(agent, tries=tries))
        except (TransitionError, UnknownAgentError):
            await self._journal(agent, lambda: self._current(agent))
            return
        await self._manager.durable(transaction.lsn)
        self._log.add((self._manager.get(agent.agent_id),))
        following = self._manager.get(next_id)
        self._report.replace(agent, following)
        self._retrying += 1
        asyncio.get_running_loop().call_later(pause_s(tries), self._end_pause, following)
        self._on_change(self._report)

    def _end_pause(self, agent: Agent) -> None:
        self._retrying -= 1
        self._schedule.add(entry_of(agent))
        self._changed.set()

    def _note_end(self, agent: Agent) -> None:
        if agent.status == "completed":
            self._schedule.complete(agent.metadata["task"])
        elif agent.status == "interrupted" and not self._is_over:
            self._paused.add(agent.agent_id)
        elif agent.status == "failed" and self._options.halt != "never" and not self._is_over:
            self._report.halted_by = agent
            if self._options.halt == "now":
                self._stop_all(f"stopped because {agent.name} failed")
                self._report.is_halted_now = True

    def _current(self, agent: Agent) -> Agent:
        """Return the agent as it is now. One that was removed had been cancelled before."""
        return self._manager.find(agent.agent_id) or replace(agent, status="cancelled")

    async def _journal(self, agent: Agent, change: Callable[[], Agent]) -> Agent:
        """Change an agent, unless a request of another process has ended it before."""
        await self._manager.room()
        try:
            agent = change()
        except (TransitionError, UnknownAgentError):
            agent = self._current(agent)
        await self._manager.durable(agent.lsn)
        if self.has(agent):  # no retry has replaced it
            self._report.put(agent)
            self._report.ended_now += agent.status in ENDED
        self._log.add((agent,))
        self._on_change(self._report)
        return agent
