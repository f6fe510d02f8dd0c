"""Requests: what another process may ask the manager of a state to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from journal import JournalError
from manager.agent import JSON, Agent
from manager.arguments import short_repr
from manager.errors import ManagerError

WAITS_MAX = 48
"""The number of clients that may wait at a time. It leaves connections for other requests."""

EXPECTED = (ManagerError, JournalError, TypeError, ValueError, TimeoutError)
"""The errors that a client causes, or that it should know of."""


class RequestError(ManagerError):
    """The request can't be fulfilled here. The message says why, and what to do."""


class Manager(Protocol):
    """The methods of a manager that requests need."""

    def get(self, ref: str) -> Agent: ...

    def cancel(self, ref: str, *, reason: str | None, descendants: bool) -> Agent: ...

    def answer(self, ref: str, value: JSON) -> Agent: ...

    def prune(self, ref: str | None, *, ended_for_s: float | None) -> tuple[Agent, ...]: ...

    def _remove_outputs(self) -> None: ...

    async def ended(self, ref: str) -> Agent: ...

    async def durable(self, lsn: int | None = None) -> None: ...

    async def room(self) -> None: ...


class Requests:
    """Fulfils requests with the methods of one manager, in any event loop."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._changed: list[Callable[[], object]] = []
        self._waits = 0

    @contextmanager
    def notifying(self, on_change: Callable[[], object]) -> Iterator[None]:
        """Call `on_change` after each change during the block, in the thread that made it."""
        self._changed.append(on_change)
        try:
            yield
        finally:
            self._changed.remove(on_change)

    async def fulfil(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what `request` asks for, and return the reply once it is durable.

        The request has the name of a verb, and the verb's arguments. Raise RequestError, and the
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

    async def _cancel(
        self, ref: str, *, reason: str | None = None, descendants: bool = False
    ) -> dict[str, Any]:
        await self._manager.room()
        agent = self._manager.cancel(ref, reason=reason, descendants=bool(descendants))
        self._notify()
        return await self._durable(agent)

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
        return {"pruned": len(pruned)}

    async def _wait(self, ref: str) -> dict[str, Any]:
        if self._waits >= WAITS_MAX:
            raise RequestError(f"{WAITS_MAX} others wait already; try again later")
        self._waits += 1
        try:
            return as_reply(await self._manager.ended(ref))
        finally:
            self._waits -= 1

    async def _durable(self, agent: Agent) -> dict[str, Any]:
        await self._manager.durable(agent.lsn)
        return as_reply(agent)

    def _notify(self) -> None:
        for on_change in [*self._changed]:
            on_change()


_VERBS = ("cancel", "answer", "prune", "wait")


def as_reply(agent: Agent) -> dict[str, Any]:
    """Return what a reply says of an agent."""
    return {
        "agent_id": agent.agent_id,
        "name": agent.name,
        "status": agent.status,
        "reason": agent.reason,
    }
