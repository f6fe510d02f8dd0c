"""Ids of new agents. A module of its own, so that reading a fleet does not import `random`."""

from __future__ import annotations

import os
import random

# Not `os.urandom`: its system call would release the interpreter lock at every spawn.
_random = random.Random()  # noqa: S311 - ids must differ, but need not be secret
os.register_at_fork(after_in_child=_random.seed)


def new_agent_id() -> str:
    return f"agent_{_random.getrandbits(48):012x}"
