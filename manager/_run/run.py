"""Run: the tasks of a run in its event loop, from their starts to their ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from signal import Signals

from manager._run.admission import again_as, tries_of
from manager._run.execution import Executor, Stop
from manager._run.joblog import JobLog
from manager._run.options import RunOptions
from manager._run.report import RunReport
from manager._run.schedule import schedule_of
from manager._run.signals import StopSignals
from manager.agent import ENDED, Agent
from manager.errors import TransitionError, UnknownAgentError
from manager.manager import SubAgentManager
from manager.result import AgentResult

_PAUSE_S, _PAUSE_S_MAX = 1, 60  # before the first retry, and before any

OnChange = Callable[[RunReport], None]


class Run:
    """A run of commands in one event loop."""

    def __init__(
        self,
        manager: SubAgentManager,
        executor: Executor,
        report: RunReport,
        log: JobLog | None,
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
        self._running = 0
        self._pausing = 0  # tasks that are run again after a pause
        self._stops: dict[str, Stop] = {}  # of the commands that run, by the id of the agent
        self._stop: Stop
        self._changed: asyncio.Event  # set when a task may be startable, or the run may be over

    async def run_all(self, signals: StopSignals) -> None:
        """Run all tasks until nothing is left that may run."""
        loop = asyncio.get_running_loop()
        self._stop, self._changed = Stop(), asyncio.Event()

        def deliver(number: Signals) -> None:
            loop.call_soon_threadsafe(self._on_signal, number)

        def check() -> None:
            with suppress(RuntimeError):  # the loop has just been closed
                loop.call_soon_threadsafe(self._stop_cancelled)

        control = self._manager._control
        notifying = nullcontext() if control is None else control.requests.notifying(check)
        with signals.delivered_to(deliver), notifying:
            try:
                self._on_change(self._report)
                async with asyncio.TaskGroup() as group:
                    await self._start_all(group)
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None  # the first error cancelled the other tasks
        blocked = self._schedule.blocked
        for agent in blocked:  # a request may have ended it
            self._report.put(self._current(agent))
        self._report.blocked = tuple(
            agent.name
            for agent in blocked
            if self._report.agents[agent.agent_id].status not in ENDED
        )

    async def _start_all(self, group: asyncio.TaskGroup) -> None:
        while True:
            while not self._is_over and self._running < self._options.jobs:
                agent = self._schedule.take()
                if agent is None:
                    break
                self._running += 1
                group.create_task(self._run_agent(agent))
            if not self._running and (self._is_over or not self._pausing):
                return
            self._changed.clear()
            await self._changed.wait()

    @property
    def _is_over(self) -> bool:
        """True if no more tasks are started."""
        return bool(self._stop.reason) or self._report.halted_by is not None

    def _on_signal(self, number: Signals) -> None:
        if self._stop_all(f"stopped by {number.name}"):
            self._report.signal = number
            self._on_change(self._report)
        self._changed.set()

    def _stop_all(self, reason: str) -> bool:
        for stop in self._stops.values():
            stop.request(reason)
        return self._stop.request(reason)

    def _stop_cancelled(self) -> None:
        """Stop the commands whose agents a request of another process has ended."""
        for agent_id, stop in self._stops.items():
            agent = self._manager.find(agent_id)
            if agent is None or agent.status != "running":
                stop.request("cancelled")

    async def _run_agent(self, agent: Agent) -> None:
        manager, ref = self._manager, agent.agent_id
        begin = manager.resume if agent.status == "interrupted" else manager.start
        running = await self._journal(agent, lambda: begin(ref))
        if running.status == "running":
            stop = self._stops[ref] = Stop()
            self._stop_cancelled()  # a request may have come since
            if self._stop.reason:
                stop.request(self._stop.reason)
            if self._stop.hurry.done():
                stop.request("")
            result = await self._executor.run(running, stop)
            tries = tries_of(agent) + 1
            if result.status == "failed" and tries <= self._options.retries:
                await self._retry(agent, result, tries)
            else:
                end = await self._journal(agent, lambda: manager.update_from_result(ref, result))
                self._note_end(end)
            del self._stops[ref]
        self._running -= 1
        self._changed.set()

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
        if self._log is not None:
            self._log.add((self._manager.get(agent.agent_id),))
        following = self._manager.get(next_id)
        self._report.replace(agent, following)
        self._pausing += 1
        asyncio.get_running_loop().call_later(pause_s(tries), self._end_pause, following)
        self._on_change(self._report)

    def _end_pause(self, agent: Agent) -> None:
        self._pausing -= 1
        self._schedule.add(agent)
        self._changed.set()

    def _note_end(self, agent: Agent) -> None:
        if agent.status == "completed":
            self._schedule.complete(agent.metadata["task"])
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
        self._report.put(agent)
        self._report.ended_now += agent.status in ENDED
        if self._log is not None:
            self._log.add((agent,))
        self._on_change(self._report)
        return agent


def pause_s(tries: int) -> float:
    """Return the time between a task's failure number `tries` and the next try, in seconds."""
    return float(min(_PAUSE_S_MAX, _PAUSE_S * 2 ** min(tries - 1, 30)))
