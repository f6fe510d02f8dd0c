"""Verbs: the methods that change one agent, of a manager and of its transactions.

Each checks and copies its arguments and builds its record. The rest is up to the class: a manager
applies the record at once, a transaction at its end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, TypeVar

from journal import pack
from manager import clock, ids, records
from manager.agent import JSON, Status
from manager.arguments import instance
from manager.layouts import Record
from manager.limits import Limits
from manager.result import AgentResult
from manager.values import tail, text
from manager.values import text as checked_text

Changed_co = TypeVar("Changed_co", covariant=True)  # what a verb returns
Spawned_co = TypeVar("Spawned_co", covariant=True)  # what `spawn` returns


class Verbs(ABC, Generic[Changed_co, Spawned_co]):
    """The methods that change one agent."""

    _limits: Limits
    _boot_id: str

    def spawn(
        self,
        prompt: str,
        *,
        agent_type: str = "general",
        name: str | None = None,
        parent_id: str | None = None,
        model: str | None = None,
        role: str | None = None,
        allowed_tools: Iterable[str] | None = None,
        token_budget: int | None = None,
        queued: bool = False,
        metadata: dict[str, JSON] | None = None,
    ) -> Spawned_co:
        """Admit a new agent, which is running, or queued if `queued` is true.

        `parent_id` is a ref; the parent may have ended. `allowed_tools` None allows all tools, ()
        none. `token_budget` is a number of tokens, at least 1, for the agent and its descendants.

        Raises NameInUseError if a live agent has the name, BudgetError if the budget of the parent
        or of one of its ancestors is spent, and CapacityError if the agent would exceed
        `max_depth`, `max_admitted` or, unless it is queued, `max_running`. While the manager has an
        open Dispatcher, raise ValueError for a queued agent that is too large for a message of the
        servers (`max_payload`). Source: `Limits`.
        """
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
        return self._spawn(record, name, parent_ref, queued=queued)

    def start(self, ref: str) -> Changed_co:
        """Mark a queued agent as running.

        Raises CapacityError if `max_running` agents run already, BudgetError if the budget of the
        agent or of an ancestor is spent, and TransitionError if the agent is not queued.
        """
        return self._update("start", ref, "running", records.start(clock.now_ms(), self._boot_id))

    def resume(
        self, ref: str, *, checkpoint: JSON = None, token_budget: int | None = None
    ) -> Changed_co:
        """Mark an interrupted agent as running again, and clear its `reason` and `needs_input`.

        Its runner continues from its `checkpoint`, and finds the answer to its question in
        `answer`. A `checkpoint` or `token_budget` replaces the agent's in the same record; None
        keeps it. Raises CapacityError and BudgetError as `start` does, ValueError for a checkpoint
        over `checkpoint_bytes_max`, and TransitionError if the agent is not interrupted.
        """
        record = records.resume(clock.now_ms(), self._boot_id, checkpoint, token_budget)
        return self._update("resume", ref, "running", record)

    def answer(self, ref: str, value: JSON) -> Changed_co:
        """Store the answer to the question of an interrupted agent, in place of an earlier one.

        The agent keeps it until its next question, so it is not lost if the process ends between
        this call and `resume`, or after `resume`. `value` must not be None. Raises TransitionError
        if the agent is not interrupted.
        """
        record = records.answer(clock.now_ms(), value)
        return self._update("answer", ref, "interrupted", record, urgent=True)

    def set_token_budget(self, ref: str, token_budget: int | None) -> Changed_co:
        """Replace the token budget of an agent, whatever its status. None removes the limit.

        A spent budget that is raised allows its agent and their descendants to start again.
        """
        record = records.budget(clock.now_ms(), token_budget)
        return self._update("set_token_budget", ref, None, record)

    def update_checkpoint(self, ref: str, checkpoint: JSON, *, steps_taken: int) -> Changed_co:
        """Store the progress of a running agent: a checkpoint to resume from, and its steps so far.

        `steps_taken` never falls: a lower number than the agent's leaves the agent's as it is.
        Raises ValueError for a checkpoint over `checkpoint_bytes_max`, and TransitionError if the
        agent is not running.
        """
        record = records.checkpoint(clock.now_ms(), checkpoint, steps_taken)
        return self._update("update_checkpoint", ref, "running", record)

    def progress(self, ref: str, text: str, data: JSON = None) -> Changed_co:
        """Store an event of a running agent's progress, for those who watch it.

        The last `progress_max` events are kept. Raises ValueError for an event over
        `progress_bytes_max`, and TransitionError if the agent is not running.
        """
        text = checked_text("text", text)
        record = records.progress(clock.now_ms(), text, data, self._limits.progress_max)
        size, most = pack(record[3:5]).size_bytes, self._limits.progress_bytes_max
        if size > most:
            raise ValueError(f"text and data have {size} bytes, over progress_bytes_max={most}")
        return self._update("progress", ref, "running", record)

    def record_usage(
        self, ref: str, *, input_tokens: int, output_tokens: int, source_id: str | None = None
    ) -> Changed_co:
        """Add to the `tokens_used` of an agent and of all its ancestors, whatever their status.

        With a `source_id`, such as the id of a model's response, the usage is counted once for this
        agent, however often it is recorded, even after a restart. It has 1 to 256 bytes, and is
        kept as long as the agent.

        This never ends an agent, even if it exceeds its budget; only `spawn`, `start` and `resume`
        check budgets. End such an agent with `update_from_result` and the status
        "budget_exhausted", so that its partial result is not lost.
        """
        record = records.usage(clock.now_ms(), input_tokens, output_tokens, source_id)
        return self._update("record_usage", ref, None, record)

    def update_from_result(self, ref: str, result: AgentResult) -> Changed_co:
        """Store the outcome of an agent's run; see `AgentResult`.

        An interrupted agent may end, too, with its partial result, but not be interrupted again. A
        result or reason longer than `result_bytes_max` is cut to its end, after a line that says
        so. Raises TransitionError if the agent is queued or has ended: a late result changes
        nothing. Raises ValueError for a checkpoint over `checkpoint_bytes_max`.
        """
        instance("result", result, AgentResult)
        record = records.result(
            clock.now_ms(),
            result.status,
            result=self._tail("result", result.result),
            reason=self._tail("reason", result.reason),
            steps_taken=result.steps_taken,
            checkpoint=result.checkpoint,
            needs_input=result.needs_input,
            input_tokens=result.input_tokens,
            output_tokens=result.output_tokens,
        )
        return self._update("update_from_result", ref, result.status, record, urgent=True)

    def update_failed(self, ref: str, error: str) -> Changed_co:
        """End an agent as failed, with `error` as its `reason`, which is cut like a result.

        Raises TransitionError unless the agent is running or interrupted.
        """
        reason = tail("error", error, self._limits.result_bytes_max)
        record = records.result(clock.now_ms(), "failed", reason=reason)
        return self._update("update_failed", ref, "failed", record, urgent=True)

    def interrupt(
        self, ref: str, reason: str, *, checkpoint: JSON = None, needs_input: JSON = None
    ) -> Changed_co:
        """Interrupt a running agent, which may be resumed later.

        `checkpoint` None keeps the agent's checkpoint. `needs_input` is the question that the agent
        waits for an answer to. Raises TransitionError if the agent is not running.
        """
        reason = tail("reason", reason, self._limits.result_bytes_max)
        record = records.interrupt("", clock.now_ms(), reason, checkpoint, needs_input)
        return self._update("interrupt", ref, "interrupted", record, urgent=True)

    @abstractmethod
    def _spawn(
        self, record: Record, name: str | None, parent_ref: str | None, *, queued: bool
    ) -> Spawned_co: ...

    @abstractmethod
    def _update(
        self, verb: str, ref: str, target: Status | None, record: Record, *, urgent: bool = False
    ) -> Changed_co: ...

    def _tail(self, where: str, value: str | None) -> str | None:
        return None if value is None else tail(where, value, self._limits.result_bytes_max)
