"""Make the journal that `python tools/bench verbs` reads, with the manager that is imported.

It is a program of its own, because an older version of the code may have to make the journal. So it
calls only what the first manager had.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from journal import Options
from manager import AgentResult, Limits, SubAgentManager

AT_ONCE = 64  # agents that run
_NEVER = 1 << 40
_PROMPT = "Find every caller of the function, and say which of them may fail. " * 3
_RESULT = "Eleven callers; two of them may fail, and both ignore the error. " * 4


def lives(manager: SubAgentManager, agents: int, records: int) -> Iterator[Iterator[None]]:
    """Yield the life of each agent, which writes a record in each step.

    The agents share the number of records evenly. In each group of eight agents, three are children
    of the first.
    """
    parent_id: str | None = None
    for number in range(agents):
        count = records * (number + 1) // agents - records * number // agents
        is_child = number % 8 in (1, 2, 3)
        agent = manager.spawn(
            f"Task {number}: {_PROMPT}",
            name=f"task-{number}",
            parent_id=parent_id if is_child else None,
            queued=True,
        )
        if number % 8 == 0:
            parent_id = agent.agent_id
        yield _life(manager, agent.agent_id, count - 1)


def _life(manager: SubAgentManager, agent_id: str, records: int) -> Iterator[None]:
    manager.start(agent_id)
    yield
    for step in range(records - 2):
        if step % 2:
            manager.record_usage(agent_id, input_tokens=900 + step, output_tokens=70)
        else:
            state = {"step": step, "file": f"src/module_{step}.py", "seen": [step, step + 1]}
            manager.update_checkpoint(agent_id, state, steps_taken=step)
        yield
    manager.update_from_result(agent_id, AgentResult(_RESULT, input_tokens=800, output_tokens=60))
    yield


def main(directory: str, records: int, agents: int) -> None:
    """Write about this number of records. The agents spawned last have not ended."""
    limits = Limits(max_running=AT_ONCE, max_admitted=AT_ONCE)
    options = Options(checkpoint_min_bytes=_NEVER, durability="os")
    with SubAgentManager.open(directory, limits=limits, options=options) as manager:
        living: list[Iterator[None]] = []
        coming = lives(manager, agents, records)
        while True:
            while len(living) < min(AT_ONCE, agents // 2 + 1):
                if (life := next(coming, None)) is None:
                    return
                living.append(life)
            living = [life for life in living if next(life, living) is not living]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
