"""Ids of new agents. By itself: who only reads a fleet imports no source of chance."""

from __future__ import annotations

import os
import random

# The system's source would let go of the interpreter, at every spawn.
_random = random.Random()  # noqa: S311 - ids have to differ, not to be secret
os.register_at_fork(after_in_child=_random.seed)


def new_agent_id() -> str:
    return f"agent_{_random.getrandbits(48):012x}"
