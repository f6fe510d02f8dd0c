"""Worker: runs queued agents with coroutines, so that a harness is a few lines."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Container, Mapping
from contextlib import suppress
from typing import Protocol

from journal import JournalError, RecordError
from manager._control.errors import RequestError
from manager._control.runners import PAUSED, Runners
from manager._public import public
from manager.again import again_as, refusal
from manager.agent import JSON, Agent
from manager.arguments import instance
from manager.changes import Changes
from manager.errors import BudgetError, CapacityError, TransitionError, UnknownAgentError
from manager.manager import SubAgentManager
from manager.records import RESTARTED, STOPPED
from manager.result import AgentResult
from manager.worker_checks import checked_workers, not_awaitable


@public
class WorkContext:
    """An agent that a worker runs, with the methods that a worker needs."""

    manager: SubAgentManager
    """The manager of the agent."""

    agent: Agent
    """The agent as it began to run, or as `checkpoint` and `progress` left it."""

    def __init__(self, manager: SubAgentManager, agent: Agent) -> None:
        self.manager = manager
        self.agent = agent
        self._cancelled = asyncio.Event()

    @property
    def cancelled(self) -> asyncio.Event:
        """An event that is set once the agent no longer runs because of another call, such as
        `cancel` or `interrupt`. The worker should return then; its result is ignored."""
        return self._cancelled

    async def checkpoint(self, value: JSON, *, steps_taken: int | None = None) -> Agent:
        """Store the agent's checkpoint, and wait until it is durable.

        `steps_taken` None counts one step more. Raises TransitionError if the agent no longer runs.
        """
        await self.manager.room()
        steps = self.agent.steps_taken + 1 if steps_taken is None else steps_taken
        self.agent = self.manager.update_checkpoint(self.agent.agent_id, value, steps_taken=steps)
        await self.manager.durable(self.agent.lsn)
        return self.agent

    async def progress(self, text: str, data: JSON = None) -> Agent:
        """Store an event of the agent's progress; see `SubAgentManager.progress`.

        This waits for room in the log, and not until the event is durable.
        """
        await self.manager.room()
        self.agent = self.manager.progress(self.agent.agent_id, text, data)
        return self.agent


@public
class Worker(Protocol):
    """A coroutine function that runs an agent, from its checkpoint if it has one.

    What it returns ends the agent: a string is the result, and an AgentResult may have any status,
    also "interrupted" with a question. An exception makes the agent fail.
    """

    async def __call__(self, context: WorkContext, /) -> AgentResult | str | None: ...


@public
async def run_workers(
    manager: SubAgentManager, workers: Mapping[str, Worker], *, until_idle: bool = True
) -> None:
    """Run the agents of some types, each with the worker of its `agent_type`.

    First, this resumes the agents of these types that an earlier process or loop has left, and
    those whose question was answered. Then it starts queued agents in order, as many at a time as
    `max_running` allows, including those that are spawned meanwhile. An agent that somebody has
    interrupted is left alone. Return when nothing runs and nothing can start; with `until_idle`
    false, run until the task is cancelled. Then the workers are cancelled, and their agents are
    interrupted. With `open(control=True)`, the loop also waits for agents that `subagents pause`
    has paused.

    Raise the errors of the journal, such as FailedError. Run one loop for a type at a time.

    Raises TypeError if a worker is of the wrong kind: before any agent starts, if that can be
    known. A plain function is called once. If it returns nothing that can be awaited, its agent
    fails, and the loop ends as if its task were cancelled.
    """
    instance("manager", manager, SubAgentManager)
    await _Loop(manager, workers, until_idle=until_idle).run()


class _Loop:
    """One run of workers, in one event loop."""

    def __init__(
        self, manager: SubAgentManager, workers: Mapping[str, Worker], *, until_idle: bool
    ) -> None:
        self.types = self._workers = checked_workers(workers)
        self._manager = manager
        control = manager._control
        self._runners = Runners() if control is None else control.runners
        self._until_idle = until_idle
        self._contexts: dict[str, WorkContext] = {}  # of the agents that run here
        self._waiting: dict[str, int] = {}  # the LSNs of interrupted agents that may be resumed
        self._paused: set[str] = set()  # interrupted agents that wait for a request to resume them
        self._is_closed = False
        # The agent whose worker returned nothing to await, and the error that ends this loop.
        self._mistake: tuple[WorkContext, TypeError] | None = None
        self._wake = asyncio.Event()

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as self._group:
                watcher = self._group.create_task(self._watch(self._manager.changes()))
                for agent in self._manager.agents(status="interrupted"):
                    self._note(agent, left_if=(RESTARTED, STOPPED, PAUSED))
                async with self._runners.running(self):
                    while (self._start() or not self._until_idle) and not self._is_closed:
                        await self._wake.wait()
                        self._wake.clear()
                watcher.cancel()
        except BaseExceptionGroup as errors:
            first = errors.exceptions[0]  # it cancelled the other tasks
            raise first from first.__cause__

    def has(self, agent: Agent) -> bool:
        return agent.agent_type in self._workers

    def wake(self) -> None:
        self._wake.set()

    async def pause(self, agent_id: str) -> Agent:
        """Interrupt a running agent. Its worker learns of it by `cancelled`."""
        agent = self._manager.interrupt(agent_id, PAUSED)
        self._paused.add(agent_id)
        await self._manager.durable(agent.lsn)
        return agent

    async def resume(self, agent_id: str) -> Agent:
        """Resume an interrupted agent now, or as soon as there is a place for it."""
        agent = self._manager.get(agent_id)
        if agent.status != "interrupted":
            raise RequestError(f"agent {agent.name} is {agent.status}, and not interrupted")
        self._waiting[agent_id] = agent.lsn
        if not self._runners.is_held:
            self._resume(agent_id)
        self._paused.discard(agent_id)
        agent = self._manager.get(agent_id)
        await self._manager.durable(agent.lsn)
        return agent

    async def retry(self, agent_id: str) -> Agent:
        """Queue another agent like one that has ended and not completed."""
        await self._manager.room()
        agent = self._manager.get(agent_id)
        newest = agent if agent.name == agent_id else self._manager.find(agent.name)
        if problem := refusal(agent, newest):
            raise RequestError(problem)
        agent = self._manager.spawn(**again_as(agent))
        await self._manager.durable(agent.lsn)
        return agent

    async def _watch(self, changes: Changes) -> None:
        async for agent in changes:
            if agent.status != "running":  # nothing can start because an agent runs
                self._note(agent)
                self._wake.set()
        self._is_closed = True
        self._wake.set()

    def _note(self, agent: Agent, left_if: Container[object] = (RESTARTED, STOPPED)) -> None:
        """Take note of an agent that does not run. A reason in `left_if` says that a loop has left
        it."""
        context = self._contexts.get(agent.agent_id)
        if context is not None and agent.lsn > context.agent.lsn:
            context.cancelled.set()
        if agent.status != "interrupted":
            self._paused.discard(agent.agent_id)
        elif self._waiting.get(agent.agent_id, 0) >= agent.lsn:
            return  # a request has resumed it since this change
        self._waiting.pop(agent.agent_id, None)
        if agent.status == "interrupted" and agent.agent_type in self._workers:
            is_answered = agent.needs_input is not None and agent.answer is not None
            if is_answered or agent.reason in left_if:
                self._waiting[agent.agent_id] = agent.lsn

    def _start(self) -> bool:
        """Start all agents that can start. Return False if nothing runs and nothing can start."""
        manager = self._manager
        if self._is_ending:
            return True  # the task of its agent is about to end this loop
        if self._runners.is_held:
            return self._has_work or manager.counts()["queued"] > 0
        for agent_id in [*self._waiting]:
            with suppress(BudgetError, TransitionError, UnknownAgentError):
                if self._is_ending or not self._resume(agent_id):
                    return True
        # In an event loop with eager tasks, a launch may have run the agent of a mistake already.
        while not self._is_ending and (started := manager.start_next(self._workers)) is not None:
            self._launch(started)
        is_full = manager.counts()["running"] >= manager.limits.max_running
        return self._has_work or is_full

    @property
    def _is_ending(self) -> bool:
        return self._mistake is not None

    @property
    def _has_work(self) -> bool:
        return bool(self._contexts or self._waiting or self._paused)

    def _resume(self, agent_id: str) -> bool:
        """Resume a waiting agent, unless its last run has not returned yet. Return False if no
        place is free.
        """
        if agent_id in self._contexts:
            return True
        try:
            agent = self._manager.resume(agent_id)
        except CapacityError:
            return False
        except Exception:
            del self._waiting[agent_id]
            raise
        del self._waiting[agent_id]
        self._launch(agent)
        return True

    def _launch(self, agent: Agent) -> None:
        context = self._contexts[agent.agent_id] = WorkContext(self._manager, agent)
        self._group.create_task(self._work(context))

    async def _work(self, context: WorkContext) -> None:
        manager, agent_id = self._manager, context.agent.agent_id
        try:
            if self._is_ending:
                raise asyncio.CancelledError  # it was started together with the agent of a mistake
            result = await self._result(context)
            await manager.room()
            self._end(context, result)
            if self._mistake is not None and self._mistake[0] is context:
                raise self._mistake[1]
        except asyncio.CancelledError:
            with suppress(TransitionError, UnknownAgentError, JournalError):
                manager.interrupt(agent_id, STOPPED)
            raise
        finally:
            del self._contexts[agent_id]
            self._wake.set()

    def _end(self, context: WorkContext, result: AgentResult) -> None:
        """Record the result of an agent, unless another call has ended or removed the agent."""
        manager, agent_id = self._manager, context.agent.agent_id
        with suppress(TransitionError, UnknownAgentError):
            now = manager.get(agent_id)
            if (now.status, now.starts) != ("running", context.agent.starts):
                return
            try:
                manager.update_from_result(agent_id, result)
            except (TypeError, ValueError, RecordError) as error:  # not a result, or too large
                manager.update_from_result(agent_id, _failure(error))

    async def _result(self, context: WorkContext) -> AgentResult:
        agent_type = context.agent.agent_type
        try:
            returned = self._workers[agent_type](context)
            if (mistake := not_awaitable(agent_type, returned)) is not None:
                self._mistake = context, mistake
                return _failure(mistake)
            result = await returned
            return result if isinstance(result, AgentResult) else AgentResult(result)
        except JournalError:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return _failure(error)  # the worker raised it by itself
        except Exception as error:  # whatever a worker raises makes its agent fail
            return _failure(error)


def _failure(error: BaseException) -> AgentResult:
    text = "".join(traceback.format_exception_only(error)).strip()
    text = text.encode(errors="replace").decode()
    return AgentResult(None, status="failed", reason=text)
