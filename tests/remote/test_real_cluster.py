"""A fleet on a cluster of three NATS servers that are killed, and a worker with a full disk."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from proof.servers import Server, nats_servers

from manager import Dispatcher, Limits, SubAgentManager, WorkContext, serve
from manager._run.worker import STATE_DIR
from tests.installed import find_command, import_package
from tests.kernel.kernel_disk import KIB, SmallDisk
from tests.manager.runner_support import agents, run
from tests.support import TIMEOUT_S

import_package("nats")
pytestmark = [
    pytest.mark.slow,
    # A client of nats-py that is closed as it connects again may drop a connection unclosed.
    pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning"),
]
ROOMY = Limits(max_running=100, max_admitted=100)
AGENTS = 30


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[list[Server], str]]:
    """Yield the three servers of a cluster, and the URL of a fleet on them."""
    find_command("nats-server")
    folder = tmp_path / "nats"
    folder.mkdir()
    with nats_servers(folder, 3) as (servers, addresses):
        yield servers, f"nats://{addresses}/f"


@pytest.mark.parametrize("at_once", [1, 3], ids=["one", "all"])
def test_killed_servers_lose_nothing(
    at_once: int, tmp_path: Path, cluster: tuple[list[Server], str]
) -> None:
    """Each agent runs once, and its result is recorded, whether servers are killed one after the
    other or all at once."""
    servers, url = cluster
    killed = 0

    async def work(context: WorkContext) -> str:
        await context.checkpoint("begun")
        await asyncio.sleep(0.2)
        return f"result of {context.agent.name}"

    async def strike(manager: SubAgentManager) -> None:
        """Kill servers, and start them again once the agents that run have noticed nothing."""
        nonlocal killed
        for first in range(0, len(servers), at_once):
            victims = servers[first : first + at_once]
            for victim in victims:
                victim.kill()
            if at_once == 1:  # the others carry on
                await ended_more(manager)
            else:
                await asyncio.sleep(1)
            for victim in victims:
                victim.start()
            await ended_more(manager)
            killed += len(victims)

    async def ended_more(manager: SubAgentManager) -> None:
        before = manager.counts().get("completed", 0)
        while manager.counts().get("completed", 0) < min(before + 2, AGENTS):
            await asyncio.sleep(0.01)

    async def body() -> None:
        async with (
            SubAgentManager.aopen(tmp_path, limits=ROOMY) as manager,
            Dispatcher.aopen(url, manager),
        ):
            working = [
                asyncio.create_task(serve(url, {"t": work}, slots=2, name=name))
                for name in ("w1", "w2")
            ]
            names = [f"a{number}" for number in range(AGENTS)]
            for name in names:
                manager.spawn("p", name=name, agent_type="t", queued=True)
            await strike(manager)
            for name in names:
                agent = await manager.ended(name)
                assert (agent.result, agent.starts) == (f"result of {name}", 1)
            for each in working:
                each.cancel()
                with suppress(asyncio.CancelledError):
                    await each

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await body()

    asyncio.run(main())
    assert killed == 3


def test_commands_run_while_the_worker_s_disk_is_full(tmp_path: Path, fleet_url: str) -> None:
    """A worker whose disk is full runs commands and reports their results, without the rest of
    their output, and ends when it is told to."""
    workspace = tmp_path / "manager"
    workspace.mkdir()
    with SmallDisk(tmp_path) as disk:
        command = [sys.executable, "-P", "-m", "manager", "worker", fleet_url]
        worker = subprocess.Popen([*command, "--dir", str(disk.path), "--slots", "2"])
        try:
            run(workspace, "echo before", on=fleet_url)
            disk.fill()
            report = run(workspace, *(f"seq {n}00000" for n in range(1, 10)), on=fleet_url)
            results = {agent.prompt: agent.result for agent in agents(report)}
            for number in range(1, 10):
                assert str(results[f"seq {number}00000"]).endswith(f"\n{number}00000\n")
            output = disk.path / STATE_DIR / "output"
            assert sum(path.stat().st_size for path in output.iterdir()) < 64 * KIB
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(TIMEOUT_S) == 128 + signal.SIGTERM
        finally:
            worker.kill()
            worker.wait()
