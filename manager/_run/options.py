"""Options: how `subagents run` runs commands."""

from __future__ import annotations

from dataclasses import dataclass

OUTPUT_BYTES_MAX = 64 << 20
"""The default of `RunOptions.output_bytes_max`."""

GRACE_S = 5.0
"""The time between SIGTERM and SIGKILL for a command that is stopped, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of a run."""

    jobs: int = 1
    """The largest number of commands that run at a time."""

    timeout_s: float | None = None
    """The time limit, in seconds, of tasks without one of their own. None means no limit."""

    retry_failed: bool = False
    """True to run failed tasks again, too."""

    output_bytes_max: int = OUTPUT_BYTES_MAX
    """The size up to which each stream of a command is kept in files, in bytes; 0 keeps none."""

    joblog: str | None = None
    """The path of the job log, or None."""
