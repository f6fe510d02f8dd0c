"""Options: the settings with which `subagents run` runs commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Halt = Literal["soon", "now", "never"]
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

    retries: int = 0
    """The number of times that a task which fails is run again, each time after a longer pause."""

    halt: Halt = "never"
    """The reaction to a task that has failed for good: "soon" starts no more tasks, and "now" also
    stops those that run."""

    output_bytes_max: int = OUTPUT_BYTES_MAX
    """The size up to which each stream of a command is kept in files, in bytes; 0 keeps none."""

    mirror: str | None = None
    """The address of the mirror, or None. With one, the state need not be on this machine."""

    takeover: bool = False
    """True to take the mirror over from a writer that has not released it."""

    on: str | None = None
    """The address of the servers through which workers elsewhere run the commands, or None."""

    credentials: str | None = None
    """The path of a file with NATS credentials for these servers, or None."""

    joblog: str | None = None
    """The path of the job log, or None."""
