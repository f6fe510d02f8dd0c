"""Descriptors: raises the limit of open files, if many commands run at a time."""

from __future__ import annotations

import resource
from contextlib import suppress

Limits = tuple[int, int]

_FOR_A_COMMAND = 6  # two pipes, two files, a handle of the process, and the gate while it starts
_FOR_THE_REST = 64


def raise_limit(jobs: int) -> Limits | None:
    """Raise this process's limit if `jobs` commands need more, as far as the system allows.

    Return the limits as they were, for the commands: a program that uses `select` fails with
    descriptors over 1,023. Return None if they are as they were.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = jobs * _FOR_A_COMMAND + _FOR_THE_REST
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return None
    raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with suppress(OSError, ValueError):  # some systems have a lower limit than they state
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        return soft, hard
    return None


def give_limits(pid: int, limits: Limits) -> None:
    """Set the limits of a child process that waits to be started, where the system can do this."""
    if hasattr(resource, "prlimit"):
        with suppress(OSError):  # it has been killed
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
