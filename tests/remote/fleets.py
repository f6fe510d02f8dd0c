"""A manager and its workers in one process, on a network in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from journal.testing import SimulatedDisk
from manager import Agent, Limits, SubAgentManager, WorkContext
from manager._remote.desk import Desk, Hooks
from manager._remote.dispatcher import Serving, _settler
from manager._remote.serving import run_station
from manager._remote.station import Runner, Station
from manager._remote.supply import FleetSupply
from tests.remote.network import Fate, Network, NetworkLink, holding_time, run_virtually

LEASE_S = 30.0
FLEET = "f"
ROOMY = Limits(max_running=10**6, max_admitted=10**6)


class World:
    """A fleet whose manager and workers can be killed and cut off."""

    def __init__(self, fates: Iterable[Fate] = ()) -> None:
        self.network = Network(iter(fates))
        self.disk = SimulatedDisk()
        self.manager: SubAgentManager
        self.desk: Desk
        self.link: NetworkLink
        self._serving: asyncio.Task[None]
        self._workers: dict[str, tuple[asyncio.Task[None], NetworkLink, Station]] = {}
        self._count = 0

    async def open(
        self, *, attempts_max: int = 3, lease_s: float = LEASE_S, **options: Any
    ) -> None:
        """Open the manager with these options of `SubAgentManager.open`, and serve workers. Raise
        what prevents that."""
        self.manager = self.opened(**options)
        self.link = NetworkLink(self.network)
        manager, settled = self.manager, _settler(self.manager)

        async def settle(lsn: int) -> None:
            with holding_time():
                await settled(lsn)

        self.desk = Desk(
            manager,
            Hooks(supply=FleetSupply(manager._state)),
            settle,
            lease_s=lease_s,
            attempts_max=attempts_max,
            message_bytes_max=self.link.message_bytes_max,
            clock_s=asyncio.get_running_loop().time,
        )
        serving = Serving(self.desk, self.link, FLEET, manager)
        started = asyncio.Event()
        self._serving = asyncio.create_task(serving.run(started.set))
        opened = asyncio.create_task(started.wait())
        await asyncio.wait((opened, self._serving), return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        if not started.is_set():
            await self._serving

    def opened(self, **options: Any) -> SubAgentManager:
        """Return the manager, opened with these options and without a dispatcher."""
        return SubAgentManager.open("/", state_dir="s", disk=self.disk, limits=ROOMY, **options)

    async def kill_manager(self) -> None:
        """End the manager. Nothing that it has said is lost, and it says nothing more."""
        await self.link.close()
        await _end(self._serving)
        self.manager.close()

    def work(self, runners: Mapping[str, Runner], *, name: str = "", **options: Any) -> str:
        """Start a worker, and return its id."""
        self._count += 1
        worker = f"{name or f'w{self._count}'}.{self._count}"
        link = NetworkLink(self.network)
        slots, queues = options.pop("slots", 2), options.pop("queues", ["default"])
        clock_s = asyncio.get_running_loop().time
        shelf = options.pop("shelf", None)
        station = Station(runners, queues, slots, clock_s=clock_s, **options)
        task = asyncio.create_task(run_station(station, link, FLEET, worker, clock_s, shelf))
        self._workers[worker] = task, link, station
        return worker

    def link_of(self, worker: str) -> NetworkLink:
        return self._workers[worker][1]

    def task_of(self, worker: str) -> asyncio.Task[None]:
        """Return the task of a worker, which no longer counts as one that runs."""
        return self._workers.pop(worker)[0]

    async def drain(self, worker: str) -> None:
        """Stop a worker as a signal does."""
        await _end(self.task_of(worker))

    async def kill(self, worker: str) -> None:
        """Kill a worker: it reports nothing more."""
        task, link, station = self._workers.pop(worker)
        await link.close()
        for runs in station._all.values():
            for run in [*runs.values()]:
                run.outbox.end()
                if run.task is not None:
                    run.task.cancel()
        await _end(task)

    @property
    def workers(self) -> list[str]:
        """The ids of the workers that run."""
        return [*self._workers]

    async def ended(self, ref: str, timeout_s: float = 3600) -> Agent:
        """Wait until an agent has ended, by the virtual clock."""
        async with asyncio.timeout(timeout_s):
            while (agent := self.manager.get(ref)).ended_at_ms is None:
                await asyncio.sleep(0.5)
        return agent

    async def close(self) -> None:
        """End everything."""
        for worker in self.workers:
            await self.kill(worker)
        await self.kill_manager()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def run(body: Callable[[World], Awaitable[object]], **options: Any) -> None:
    """Run a test with a fleet whose manager is open, by the virtual clock."""

    async def main() -> None:
        world = World()
        await world.open(**options)
        await body(world)
        await world.close()

    run_virtually(main())


def queue(world: World, name: str, **options: Any) -> str:
    """Queue an agent of type "t", and return its id."""
    options = {"agent_type": "t", "queued": True, **options}
    return world.manager.spawn("p", name=name, **options).agent_id


async def echo(context: WorkContext) -> str:
    await asyncio.sleep(1)
    return f"{context.agent.name} of {context.agent.lease and context.agent.lease['lsn']}"


async def forever(context: WorkContext) -> str:
    await context.checkpoint({"began": context.agent.starts})
    await asyncio.sleep(1e9)
    return "never"


async def until_cancelled(context: WorkContext) -> str:
    await context.cancelled.wait()
    return "late"
