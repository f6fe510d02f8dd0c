"""AgentResult: how a run came out."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from manager._public import public
from manager.agent import JSON, VERBS, Status
from manager.arguments import shown


@public
@dataclass(frozen=True, slots=True)
class AgentResult:
    """How a run came out: what `update_from_result` takes.

    `status`: one that a running agent may get ("queued" and "running" are not). `result`,
    `steps_taken`, `checkpoint`: None keeps what the agent has. `reason` and `needs_input`
    replace what was there. `input_tokens` and `output_tokens` are added to `tokens_used`, its
    ancestors' too.
    """

    result: str | None
    _: KW_ONLY
    status: Status = "completed"
    reason: str | None = None
    steps_taken: int | None = None
    checkpoint: JSON = None
    needs_input: JSON = None
    input_tokens: int = 0
    output_tokens: int = 0

    def __post_init__(self) -> None:
        allowed = VERBS["update_from_result"][1]
        if self.status not in allowed:
            raise ValueError(
                f"status must be one of {', '.join(allowed)}, not {shown(self.status)}"
            )
