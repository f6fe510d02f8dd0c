"""Make a fleet of agents that have ended, or open one in this process and list some of them.

`bench.growth` runs this, in a process for each.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bench.growing import hide_fast
from manager import AgentResult, Limits, SubAgentManager

ALL = Limits(keep_ended_max=None, keep_ended_s=None)


def made(path: Path, agents: int) -> dict[str, float]:
    """Let this number of agents run, one after the other, and write a checkpoint."""
    path.mkdir()
    with SubAgentManager.open(path, limits=ALL) as manager:
        for number in range(agents):
            agent = manager.spawn(f"Find the callers of function {number}, and report them.")
            manager.update_from_result(agent.agent_id, AgentResult(f"{number} callers pass none"))
        with closing(manager.compact()) as checkpoint:
            return {"line_bytes": checkpoint.size_bytes / agents}


def opened(path: Path, agents: int) -> dict[str, float]:
    """Open the fleet without the extra `fast`, and list some agents."""
    hide_fast()
    began, began_cpu = time.perf_counter(), time.process_time()
    manager = SubAgentManager.open(path, limits=ALL)
    open_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    with manager:
        assert sum(manager.counts().values()) == agents
        manager.spawn("Report to the others.")
        list_ms = least_ms(lambda: manager.agents(status="running"))
        counts_ms = least_ms(manager.counts)
    return {"open_s": open_s, "open_cpu_s": cpu_s, "list_ms": list_ms, "counts_ms": counts_ms}


def opened_fast(path: Path, agents: int) -> dict[str, float]:
    """Open the fleet with the extra `fast`."""
    began, began_cpu = time.perf_counter(), time.process_time()
    manager = SubAgentManager.open(path, limits=ALL)
    open_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    with manager:
        assert sum(manager.counts().values()) == agents
    return {"open_fast_s": open_s, "open_fast_cpu_s": cpu_s}


def least_ms(call: Callable[[], object]) -> float:
    times = []
    for _ in range(20):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times) * 1e3


if __name__ == "__main__":
    what, directory, number = sys.argv[1:]
    measure = {"made": made, "opened": opened, "opened_fast": opened_fast}[what]
    print(json.dumps(measure(Path(directory), int(number))))
