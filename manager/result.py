"""AgentResult: the outcome of a run."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from manager._public import public
from manager.agent import JSON, VERBS, Status
from manager.arguments import short_repr


@public
@dataclass(frozen=True, slots=True)
class AgentResult:
    """The outcome of a run, for `SubAgentManager.update_from_result`."""

    result: str | None
    """The result. None keeps the agent's."""

    _: KW_ONLY
    status: Status = "completed"
    """The new status: any except "queued" and "running"."""

    reason: str | None = None
    """The error, or the cause of an interruption. It replaces the agent's, even if it is None."""

    steps_taken: int | None = None
    """The number of steps taken so far. None keeps the agent's."""

    checkpoint: JSON = None
    """The agent's checkpoint, as JSON. None keeps the agent's."""

    needs_input: JSON = None
    """The question that the agent waits for an answer to, as JSON. It replaces the agent's, even if
    it is None."""

    input_tokens: int = 0
    """The number of input tokens to add to `tokens_used` of the agent and of its ancestors."""

    output_tokens: int = 0
    """The number of output tokens to add, like `input_tokens`."""

    def __post_init__(self) -> None:
        allowed = VERBS["update_from_result"][1]
        if self.status not in allowed:
            raise ValueError(
                f"status must be one of {', '.join(allowed)}, not {short_repr(self.status)}"
            )
