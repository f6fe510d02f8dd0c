"""Limits: how much a manager admits, and how many agents it processes in one hold of its lock."""

from __future__ import annotations

from dataclasses import dataclass, fields

from manager._public import public
from manager.arguments import short_repr

HOLD_AGENTS_MAX = 64  # agents that are cleaned up or imported in one hold of the manager's lock


@public
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a manager. A bad value raises a ValueError that names the field."""

    max_running: int = 10
    """The largest number of agents that may run at a time."""

    max_admitted: int = 1000
    """The largest number of agents that have not ended: queued, running and interrupted."""

    max_depth: int = 3
    """The highest `spawn_depth`. With 0, no agent may have children."""

    prompt_bytes_max: int = 1 << 20
    """The size of the longest prompt, in bytes of UTF-8."""

    result_bytes_max: int = 1 << 20
    """The size of the longest result, error or reason, in bytes of UTF-8. Longer ones are cut."""

    checkpoint_bytes_max: int = 1 << 20
    """The size of an agent's largest checkpoint, in bytes of msgpack."""

    progress_max: int = 128
    """The number of events of progress that are kept for each agent."""

    progress_bytes_max: int = 4096
    """The size of the largest event of progress, in bytes of msgpack."""

    keep_ended_s: float | None = 7 * 24 * 3600
    """The time for which an agent is kept after its end, in seconds. Then the manager drops it by
    itself. It keeps the agent longer while it has children, and while its parent may still take its
    result: until the parent has ended and this time has passed since then. None keeps agents of any
    age."""

    keep_ended_max: int | None = 10_000
    """The number of ended agents that are kept. The manager drops the oldest ones beyond it, except
    those that `keep_ended_s` would keep because of their family. For a while, a sixteenth more may
    be kept. None keeps any number."""

    heartbeat_timeout_s: float = 300
    """The time without an update or a `touch`, in seconds, after which `cleanup` considers a
    running agent dead."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name in ("keep_ended_s", "keep_ended_max"):
                continue
            is_time = field.name.endswith("_s")
            low = 0 if is_time or field.name == "max_depth" else 1
            kinds = (int, float) if is_time else int
            fits = isinstance(value, kinds) and not isinstance(value, bool) and value >= low
            if isinstance(value, int) and value.bit_length() > 64:
                raise ValueError(f"{field.name} must fit in 64 bits, not {short_repr(value)}")
            if not fits or (is_time and not value):
                rule = "a number greater than" if is_time else "a whole number, at least"
                raise ValueError(f"{field.name} must be {rule} {low}, not {short_repr(value)}")
