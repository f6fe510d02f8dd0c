"""Requests: the changes and waits that another process may ask the manager of a state for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from journal import JournalError
from manager._control.errors import RequestError
from manager._control.runners import PAUSED, Runners
from manager.again import TASK_TYPE, again_as, newest_like, refusal
from manager.agent import JSON, Agent
from manager.arguments import short_repr
from manager.elsewhere import Workers
from manager.errors import ManagerError
from manager.values import text

READS = ("wait", "output", "workers")
"""The requests that change nothing, so that a close need not wait for them."""

WAITS_MAX = 48
"""The number of clients that may wait at a time. It leaves connections for other requests."""

EXPECTED = (ManagerError, JournalError, TypeError, ValueError, TimeoutError)
"""The errors that a client causes, or that it should know of."""


NOBODY = "no process that takes requests runs agents here; start one, such as: subagents run"


class Manager(Protocol):
    """A manager, with the methods that requests need."""

    def get(self, ref: str) -> Agent: ...

    def find(self, ref: str) -> Agent | None: ...

    def agents(self, *, include_archived: bool) -> list[Agent]: ...

    @property
    def spawn(self) -> Callable[..., Agent]: ...

    def cancel(self, ref: str, *, reason: str | None, descendants: bool) -> Agent: ...

    def interrupt(self, ref: str, reason: str) -> Agent: ...

    def answer(self, ref: str, value: JSON) -> Agent: ...

    def prune(self, ref: str | None, *, ended_for_s: float | None) -> tuple[Agent, ...]: ...

    def _remove_outputs(self) -> None: ...

    @property
    def _workers(self) -> Workers | None: ...

    async def ended(self, ref: str) -> Agent: ...

    async def durable(self, lsn: int | None = None) -> None: ...

    async def room(self) -> None: ...


class Requests:
    """Fulfils requests with the methods of one manager, in any event loop."""

    runners: Runners | None
    """The runners of the agents, or None if the manager was opened for one request."""

    def __init__(self, manager: Manager, runners: Runners | None = None) -> None:
        self.runners = runners
        self._manager = manager
        self._waits = 0

    async def fulfill(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what `request` asks for, and return the reply once it is durable.

        The request has the name of a verb, and the verb's arguments. Raises RequestError, and the
        errors of the manager.
        """
        arguments = dict(request)
        verb = arguments.pop("verb", None)
        if not isinstance(verb, str) or verb not in _VERBS:
            raise RequestError(
                f"no request {short_repr(verb)} is known here; use a newer version for the process "
                "that has the state open"
            )
        reply: dict[str, Any] = await getattr(self, f"_{verb}")(**arguments)
        return reply

    async def _spawn(
        self, prompt: str, *, agent_type: str = "general", **options: Any
    ) -> dict[str, Any]:
        if text("agent_type", agent_type) == TASK_TYPE:
            raise RequestError(
                f"agents of the type {TASK_TYPE!r} are made from files of tasks only; add a line "
                "to the file of `subagents run`"
            )
        self._present().check_type(agent_type)
        await self._manager.room()
        agent = self._manager.spawn(prompt, agent_type=agent_type, **options, queued=True)
        return await self._durable(agent)

    async def _cancel(
        self, ref: str, *, reason: str | None = None, descendants: bool = False
    ) -> dict[str, Any]:
        await self._manager.room()
        agent = self._manager.cancel(ref, reason=reason, descendants=bool(descendants))
        if self.runners is not None:
            self.runners.wake()
        return await self._durable(agent)

    async def _retry(self, ref: str) -> dict[str, Any]:
        agent = self._manager.get(ref)
        newest = agent if agent.name == agent.agent_id else self._manager.find(agent.name)
        if self.runners is None:  # a run knows the newest agents of its tasks
            newest = newest_like(agent, self._manager.agents(include_archived=True))
        if problem := refusal(agent, newest):
            raise RequestError(problem)
        if self.runners is not None:
            runner = self.runners.of(agent)
            return as_reply(await self.runners.call(runner, runner.retry, agent.agent_id))
        await self._manager.room()
        return await self._durable(self._manager.spawn(**again_as(agent)))

    async def _pause(self, ref: str | None = None) -> dict[str, Any]:
        runners = self._present()
        if ref is None:
            runners.hold(True)
            return {"paused": True}
        agent = self._manager.get(ref)
        if runner := runners.find(agent):
            return as_reply(await runners.call(runner, runner.pause, agent.agent_id))
        await self._manager.room()
        return await self._durable(self._manager.interrupt(agent.agent_id, PAUSED))

    async def _resume(self, ref: str | None = None) -> dict[str, Any]:
        runners = self._present()
        if ref is None:
            runners.hold(False)
            return {"paused": False}
        agent = self._manager.get(ref)
        runner = runners.of(agent)
        return as_reply(await runners.call(runner, runner.resume, agent.agent_id))

    async def _answer(self, ref: str, *, value: JSON) -> dict[str, Any]:
        await self._manager.room()
        return await self._durable(self._manager.answer(ref, value))

    async def _prune(
        self, ref: str | None = None, *, ended_for_s: float | None = None
    ) -> dict[str, Any]:
        await self._manager.room()
        pruned = self._manager.prune(ref, ended_for_s=ended_for_s)
        await self._manager.durable()
        self._manager._remove_outputs()
        if self.runners is not None:
            self.runners.wake()
        return {"pruned": len(pruned)}

    async def _wait(self, ref: str) -> dict[str, Any]:
        if self._waits >= WAITS_MAX:
            raise RequestError(f"{WAITS_MAX} others wait already; try again later")
        self._waits += 1
        try:
            return as_reply(await self._manager.ended(ref))
        finally:
            self._waits -= 1

    async def _output(self, **wanted: Any) -> dict[str, Any]:
        if (workers := self._manager._workers) is None:
            raise RequestError(
                "the process that has the state open has no connection to workers, so it can't ask "
                "them for output; start one that has, such as: subagents run --on URL"
            )
        return await workers.output(**wanted)

    async def _workers(self, workers: list[str]) -> dict[str, Any]:
        known = self._manager._workers
        return {"workers": [] if known is None else await known.signs(workers)}

    def _present(self) -> Runners:
        if self.runners is None:
            raise RequestError(NOBODY)
        return self.runners

    async def _durable(self, agent: Agent) -> dict[str, Any]:
        await self._manager.durable(agent.lsn)
        return as_reply(agent)


_CHANGES = ("spawn", "cancel", "retry", "pause", "resume", "answer", "prune")
_VERBS = (*_CHANGES, *READS)


def as_reply(agent: Agent) -> dict[str, Any]:
    """Return the fields of an agent that a reply has."""
    return {
        "agent_id": agent.agent_id,
        "name": agent.name,
        "status": agent.status,
        "reason": agent.reason,
    }
