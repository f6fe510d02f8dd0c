"""RemoteContext: the context of a coroutine that runs an agent whose manager is elsewhere."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import NoReturn

from manager._remote import messages
from manager._remote.messages import Body
from manager._remote.outbox import Outbox
from manager.agent import JSON, Agent
from manager.errors import TransitionError
from manager.values import json_value, text, whole
from manager.worker import WorkContext


class RemoteContext(WorkContext):
    """The context of an agent whose manager is elsewhere. It has no `manager`."""

    def __init__(self, agent: Agent, options: Body) -> None:
        self.agent = agent
        self.options = options
        self._cancelled = asyncio.Event()
        self._outbox: Outbox

    def __getattr__(self, name: str) -> NoReturn:
        hint = "; the manager is in another process" if name == "manager" else ""
        raise AttributeError(f"the context of a worker has no {name!r}{hint}")

    async def checkpoint(self, value: JSON, *, steps_taken: int | None = None) -> Agent:
        """Store the agent's checkpoint, and wait until the manager says that it is durable.

        See WorkContext.checkpoint. Raises ValueError for one that is too large for the manager or
        for a message of the servers.
        """
        steps = self.agent.steps_taken + 1
        if steps_taken is not None:
            steps = whole("steps_taken", steps_taken)
        value = json_value("checkpoint", value)
        body = {"value": value, "steps_taken": steps}
        self._check_size("checkpoint", body)
        self._check(await self._outbox.ask("checkpoint", body), "update_checkpoint")
        steps = max(steps, self.agent.steps_taken)
        self.agent = replace(self.agent, checkpoint=value, steps_taken=steps)
        return self.agent

    async def progress(self, text_: str, data: JSON = None) -> Agent:
        """Report an event of the agent's progress, without waiting for the manager.

        If the manager does not answer, only the last events are kept. Raises ValueError for one
        that no message of the servers carries.
        """
        body = {"text": text("text", text_), "data": json_value("data", data)}
        self._check_size("progress", body)
        if self._outbox.is_over:
            self._check({"outcome": "over"}, "progress")
        self._outbox.tell("progress", body)
        return self.agent

    def _check_size(self, kind: str, body: Body) -> None:
        """Raise ValueError if no message can carry a report, which would be repeated forever."""
        size, most = len(messages.pack(body)), self._outbox.body_bytes_max
        if size > most:
            raise ValueError(f"{kind} has {size} bytes, over the {most} that the servers carry")

    def _check(self, answer: Body, verb: str) -> None:
        """Raise what a manager would raise in the same process."""
        match answer.get("outcome"):
            case "over":
                names = self.agent.agent_id, self.agent.name
                raise TransitionError(*names, "no longer run here", "running", verb, ())
            case "refused":
                raise ValueError(str(answer.get("text")))
