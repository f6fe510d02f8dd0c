"""Runners: the parts of a manager's process that run its agents, and pause, resume and retry them
on request.

A request arrives in the thread of the server. A runner does its part in its own event loop, which
may be busy, or end at any moment; then the request fails, and nobody waits forever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Container, Coroutine, Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Protocol

from manager._control.errors import RequestError
from manager.agent import Agent
from manager.waking import call_in_loop

PAUSED = "paused by request"
"""The reason of agents that a request has paused."""

_BEGIN_S = 10.0
_END_S = 2.0


class Runner(Protocol):
    """A run of commands, or a loop of workers. All but `types` and `has` are used in its event
    loop."""

    @property
    def types(self) -> Container[str]:
        """The types of new agents that it runs."""

    def has(self, agent: Agent) -> bool:
        """Return whether it runs this agent, or would if the agent were live. Any thread calls
        this."""

    def wake(self) -> None:
        """Take note of changes by requests, and of `Runners.is_held`."""

    async def pause(self, agent_id: str) -> Agent:
        """Interrupt a running agent, and return it once that is durable."""

    async def resume(self, agent_id: str) -> Agent:
        """Let an interrupted agent run again, as soon as there is a place, and return it."""

    async def retry(self, agent_id: str) -> Agent:
        """Queue another agent like one that has ended, and return it once it is durable."""


class _Calls:
    """The calls of one runner that have not returned."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.tasks: set[asyncio.Task[Agent]] = set()  # those that have begun
        self.pending: set[Future[Agent]] = set()

    async def end(self) -> None:
        """Let the calls that have begun return, for a while, and fail the others."""
        self._fail(future for future in [*self.pending] if not future.running())
        try:
            if self.tasks:
                await asyncio.wait(self.tasks, timeout=_END_S)
        finally:
            self._fail([*self.pending])

    def _fail(self, futures: Iterable[Future[Agent]]) -> None:
        for future in futures:
            with suppress(InvalidStateError):
                future.set_exception(_ended())


class Runners:
    """The runners of one manager. Any thread may call its methods."""

    is_held: bool = False
    """True if runners are to start nothing."""

    def __init__(self) -> None:
        self._calls: dict[Runner, _Calls] = {}

    @asynccontextmanager
    async def running(self, runner: Runner) -> AsyncIterator[None]:
        """Take requests for `runner` during the block, in whose event loop this is called."""
        calls = self._calls[runner] = _Calls()
        try:
            yield
        finally:
            del self._calls[runner]
            await calls.end()

    def find(self, agent: Agent) -> Runner | None:
        return next((runner for runner in [*self._calls] if runner.has(agent)), None)

    def of(self, agent: Agent) -> Runner:
        """Return the runner of an agent. Raises RequestError if there is none."""
        runner = self.find(agent)
        if runner is None:
            raise RequestError(
                f"nothing runs agent {agent.name} here; it is {agent.status}, and needs a run "
                f"of its task, or run_workers(...) with a worker for {agent.agent_type!r}"
            )
        return runner

    def check_type(self, agent_type: str) -> None:
        """Raise RequestError unless new agents of this type are run."""
        if not any(agent_type in runner.types for runner in [*self._calls]):
            raise RequestError(
                f"no worker for {agent_type!r} runs here, so the agent would never be run; start "
                "run_workers(...) with one first"
            )

    def hold(self, is_held: bool) -> None:
        """Let all runners start nothing, or start agents again. Raises RequestError if there is
        none."""
        if not self._calls:
            raise RequestError("nothing starts agents here; that needs a run, or run_workers(...)")
        self.is_held = is_held
        self.wake()

    def wake(self) -> None:
        """Let all runners take note of a change."""
        for runner, calls in [*self._calls.items()]:
            call_in_loop(calls.loop, runner.wake)

    async def call(
        self, runner: Runner, function: Callable[..., Coroutine[Any, Any, Agent]], *arguments: str
    ) -> Agent:
        """Return what the coroutine function of `runner` returns, which runs in its event loop.

        Raises RequestError if the runner ends before, or does not begin with it in time. If the
        caller is cancelled, what was begun goes on.
        """
        calls, future = self._calls.get(runner), Future[Agent]()
        if calls is None:
            raise _ended()
        loop = calls.loop

        def begin() -> None:
            if not future.done() and future.set_running_or_notify_cancel():
                task = loop.create_task(function(*arguments))
                calls.tasks.add(task)
                task.add_done_callback(calls.tasks.discard)
                task.add_done_callback(partial(_settle, future))

        calls.pending.add(future)  # before the check, so that the end of the runner finds it
        future.add_done_callback(calls.pending.discard)
        if self._calls.get(runner) is not calls:
            raise _ended()
        try:
            loop.call_soon_threadsafe(begin)
        except RuntimeError:  # the loop has just been closed
            raise _ended() from None
        awaited = asyncio.wrap_future(future)
        await asyncio.wait((awaited,), timeout=_BEGIN_S)
        if not awaited.done() and future.cancel():
            raise RequestError(
                f"the event loop that runs the agents was busy for {_BEGIN_S:g} s, so nothing was "
                "changed; try again"
            )
        return await awaited


def _settle(future: Future[Agent], task: asyncio.Task[Agent]) -> None:
    with suppress(InvalidStateError):
        if task.cancelled():
            future.set_exception(_ended())
        elif (error := task.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())


def _ended() -> RequestError:
    return RequestError("the run or loop of the agents has just ended; look with: subagents list")
