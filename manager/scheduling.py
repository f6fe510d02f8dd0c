"""Scheduling: finds agents, starts queued ones, and waits for a free place to run one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from journal import DurableState
from manager import clock, ids, records
from manager.agent import JSON, Agent, Row
from manager.arguments import optional_seconds, remaining_s
from manager.errors import BudgetError, TransitionError, UnknownAgentError
from manager.fleet import Fleet
from manager.layouts import Record
from manager.updates import Updates
from manager.values import checked_name, text, texts
from manager.verbs import Verbs
from manager.watch import Watch


class NameFoundError(Exception):
    """An agent has or had the name already, so no other is spawned. `row` is the agent's row."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        self.row = row


class Scheduling(Verbs[Agent, Agent]):
    """The methods of a manager that find agents and let queued ones run."""

    _state: DurableState[Fleet]
    _updates: Updates
    _watch: Watch

    def find(self, ref: str) -> Agent | None:
        """Return the agent as `get` does, or None if there is none."""
        ref = text("ref", ref)
        row = self._state.read(lambda fleet: fleet.found(ref))
        return None if row is None else self._agent(row)

    def find_or_spawn(
        self,
        prompt: str,
        *,
        name: str,
        agent_type: str = "general",
        parent_id: str | None = None,
        model: str | None = None,
        role: str | None = None,
        allowed_tools: Iterable[str] | None = None,
        token_budget: int | None = None,
        queued: bool = False,
        metadata: dict[str, JSON] | None = None,
    ) -> Agent:
        """Return the newest agent of this name as it is, even if it has ended, or spawn it.

        So a harness that is started again finds the agents that it had begun. If several threads
        call this at the same time, one of them spawns the agent. The other arguments and the errors
        are those of `spawn`.
        """
        name = checked_name(name)
        record = records.spawn(
            ids.new_agent_id(),
            clock.now_ms(),
            self._boot_id,
            status="queued" if queued else "running",
            name=name,
            agent_type=agent_type,
            role=role,
            model=model,
            prompt=prompt,
            prompt_bytes_max=self._limits.prompt_bytes_max,
            allowed_tools=allowed_tools,
            token_budget=token_budget,
            metadata=metadata,
        )
        parent_ref = None if parent_id is None else text("parent_id", parent_id)
        try:
            return self._spawn(record, name, parent_ref, queued=queued, only_if_new=True)
        except NameFoundError as error:
            return self._agent(error.row)

    def start_next(self, agent_types: Iterable[str] | None = None) -> Agent | None:
        """Start the oldest queued agent and return it, or None if none can start.

        None can start while `max_running` agents run, and while there is none whose budgets allow
        it. With `agent_types`, only agents of these types are started.
        """
        types = None if agent_types is None else texts("agent_types", agent_types)
        record = records.start(clock.now_ms(), self._boot_id)
        row, is_blocked = self._updates.start_next(record, types)
        if is_blocked:  # many agents have spent budgets; try the others one by one
            for agent_id in self._state.read(lambda fleet: fleet.queue.first(types, None)):
                with suppress(BudgetError, TransitionError, UnknownAgentError):
                    row = self._updates.update("start", agent_id, "running", [*record])
                    break
        return None if row is None else self._agent(row)

    def wait_capacity(self, *, timeout_s: float | None = None) -> None:
        """Block until fewer than `max_running` agents run.

        Another caller may take the place first; then `start` raises CapacityError, and `start_next`
        returns None. Raises TimeoutError after `timeout_s` seconds (None: no limit), FailedError,
        and ClosedError.
        """
        timeout_s = optional_seconds("timeout_s", timeout_s)
        self._warn_in_event_loop("wait_capacity", "capacity()", timeout_s)
        until_s = None if timeout_s is None else clock.monotonic() + timeout_s
        while not self._has_capacity():
            self._watch.wait_capacity(remaining_s(until_s), self._has_capacity)

    async def capacity(self) -> None:
        """Await a free place, like `wait_capacity`, in any asyncio event loop.

        Use `asyncio.timeout` for a time limit.
        """
        while not self._has_capacity():
            await self._watch.capacity(self._has_capacity)

    def _has_capacity(self) -> bool:
        running = self._state.read(lambda fleet: fleet.counts["running"])
        return running < self._limits.max_running

    @abstractmethod
    def _spawn(
        self,
        record: Record,
        name: str | None,
        parent_ref: str | None,
        *,
        queued: bool,
        only_if_new: bool = False,
    ) -> Agent: ...

    @abstractmethod
    def _agent(self, row: Row) -> Agent: ...

    if TYPE_CHECKING:

        def _warn_in_event_loop(self, *arguments: Any) -> None: ...
