"""A process of `python tools/bench workers`, for agents that do nothing: a worker, or a manager.

A manager prints its results as JSON. `noop` measures agents on workers elsewhere, and `local` the
same agents with `run_workers`. `memory` measures what a dispatcher adds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import tracemalloc
from contextlib import ExitStack
from typing import Any

from bench.figures import Quantiles
from bench.fleet_load import LIMITS, PROMPT
from manager import Dispatcher, SubAgentManager, WorkContext, run_workers, serve

SLOTS = 100
WARM = 200
_POLL_S = 0.005
_SETTLE_S = 2.0


async def nothing(_: WorkContext) -> str:
    return "done"


def spawn(manager: SubAgentManager, count: int) -> None:
    """Queue agents that do nothing."""
    for _ in range(count):
        manager.spawn("p", agent_type="nothing", queued=True)


async def completed(manager: SubAgentManager, count: int) -> None:
    """Wait until `count` agents have completed, and until that is durable."""
    while manager.counts().get("completed", 0) < count:
        await asyncio.sleep(_POLL_S)
    await manager.durable()


async def timed(manager: SubAgentManager, count: int) -> dict[str, Any]:
    """Return the seconds from the first call to the last durable end, and the holds of the lock."""
    spawn(manager, WARM)
    await completed(manager, WARM)
    began_s = time.perf_counter()
    spawn(manager, count)
    await completed(manager, WARM + count)
    took_s = time.perf_counter() - began_s
    hold = Quantiles.of_histogram(manager.lock_stats().hold)
    return {"seconds": took_s, "hold_p50_ns": hold.p50, "hold_p99_ns": hold.p99}


async def noop(directory: str, url: str, count: str) -> dict[str, Any]:
    """Measure agents that do nothing on workers elsewhere."""
    async with (
        SubAgentManager.aopen(directory, limits=LIMITS) as manager,
        Dispatcher.aopen(url, manager),
    ):
        return await timed(manager, int(count))


async def local(directory: str, _: str, count: str) -> dict[str, Any]:
    """Measure agents that do nothing in the manager's process."""
    async with SubAgentManager.aopen(directory, limits=LIMITS) as manager:
        running = asyncio.create_task(run_workers(manager, {"nothing": nothing}, until_idle=False))
        result = await timed(manager, int(count))
        running.cancel()
        await asyncio.wait((running,))
        return result


async def never(_: WorkContext) -> str:
    """Run until the process is killed."""
    await asyncio.Event().wait()
    return "never"


async def memory(directory: str, url: str, agents: str) -> dict[str, Any]:
    """Measure the bytes that a dispatcher adds to a manager with queued agents, once a worker has
    filled its slots, and at most until then."""
    import nats.micro  # noqa: F401  # the modules are not counted

    with ExitStack() as stack:
        manager = stack.enter_context(SubAgentManager.open(directory, limits=LIMITS))
        for _ in range(int(agents)):
            manager.spawn(PROMPT, agent_type="never", queued=True)
        await manager.durable()
        gc.collect()
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        with Dispatcher.open(url, manager):
            while manager.counts().get("running", 0) < min(SLOTS, int(agents)):
                await asyncio.sleep(_POLL_S)
            await asyncio.sleep(_SETTLE_S)
            gc.collect()
            current, peak = tracemalloc.get_traced_memory()
        return {"bytes": current, "peak_bytes": peak}


async def work(_: str, url: str, name: str) -> None:
    """Run agents until the process is killed."""
    await serve(url, {"nothing": nothing, "never": never}, slots=SLOTS, name=name)


if __name__ == "__main__":
    _, role, *arguments = sys.argv
    known = {"noop": noop, "local": local, "memory": memory, "work": work}
    print(json.dumps(asyncio.run(known[role](*arguments))))
