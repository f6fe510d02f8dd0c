"""Programs whose agents run on other machines."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from manager import Dispatcher, DispatchError, Lease, SubAgentManager, WorkerInfo, serve
from tests.project.typed_programs.fleets import count


async def use_workers_elsewhere(workspace: Path, url: str) -> str | None:
    await serve(url, {"count": count}, slots=2, queues=["fast"])
    await serve(url, {"count": len})  # type: ignore[dict-item]
    async with SubAgentManager.aopen(workspace) as manager:
        try:
            async with Dispatcher.aopen(url, manager, lease_s=5.0) as dispatcher:
                assert_type(dispatcher, Dispatcher)
                workers: list[WorkerInfo] = list(dispatcher.workers())
                print(workers[0].silent_s, workers[0].nope)  # type: ignore[attr-defined]
        except DispatchError as error:
            return str(error)
        lease: Lease | None = manager.get("a").lease
        return lease["worker"] if lease else None
