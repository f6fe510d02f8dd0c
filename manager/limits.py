"""Limits: what a manager admits, and how many agents it deals with while it holds its lock."""

from __future__ import annotations

from dataclasses import dataclass, fields

from manager._public import public
from manager.arguments import shown

HOLD_AGENTS_MAX = 64  # agents that one hold of the manager's lock cleans up or imports


@public
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a manager admits. A bad value is a ValueError that names it.

    `max_running`: agents that run. `max_admitted`: agents that have not ended, so queued,
    running and interrupted ones together. `max_depth`: the deepest `spawn_depth` (0: no
    children). `prompt_bytes_max`, `result_bytes_max`: of UTF-8; the second bounds errors and
    reasons too. `heartbeat_timeout_s`: seconds without an update or a touch after which
    `cleanup` takes a running agent for dead.
    """

    max_running: int = 10
    max_admitted: int = 1000
    max_depth: int = 3
    prompt_bytes_max: int = 1 << 20
    result_bytes_max: int = 1 << 20
    heartbeat_timeout_s: float = 300

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            is_time = field.name.endswith("_s")
            low = 0 if is_time or field.name == "max_depth" else 1
            kinds = (int, float) if is_time else int
            fits = isinstance(value, kinds) and not isinstance(value, bool) and value >= low
            if isinstance(value, int) and value.bit_length() > 64:
                raise ValueError(f"{field.name} must be what 64 bits hold, not {shown(value)}")
            if not fits or (is_time and not value):
                rule = "a number above" if is_time else "a whole number from"
                raise ValueError(f"{field.name} must be {rule} {low}, not {shown(value)}")
