"""The protocol between a manager and its workers, on a network and with a clock in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manager import TransitionError, WorkContext
from tests.remote.fleets import LEASE_S, World, echo, forever, queue, run, until_cancelled
from tests.remote.network import Fate, NetworkLink, run_virtually
from tests.tiers import examples

HOUR_S = 3600.0


def test_workers_get_agents_of_their_types_and_queues() -> None:
    """An agent goes to a worker of its type and queue, in the order of the queue, and no worker
    runs more than its slots."""
    ran: list[tuple[str, str]] = []
    running: set[str] = set()

    def worker_named(name: str) -> Callable[[WorkContext], Awaitable[str]]:
        async def work(context: WorkContext) -> str:
            ran.append((name, context.agent.name))
            running.add(context.agent.name)
            assert len(running) <= 3
            await asyncio.sleep(1)
            running.discard(context.agent.name)
            return name

        return work

    async def body(world: World) -> None:
        world.work({"t": worker_named("cpu")}, slots=2)
        world.work({"t": worker_named("gpu"), "u": worker_named("gpu")}, slots=1, queues=["gpu"])
        for number in range(4):
            queue(world, f"c{number}")
            queue(world, f"g{number}", agent_type="tu"[number % 2], metadata={"queue": "gpu"})
        queue(world, "nobody's", agent_type="u")
        for number in range(4):
            assert (await world.ended(f"c{number}")).result == "cpu"
            assert (await world.ended(f"g{number}")).result == "gpu"
        for kind in "cg":
            assert [name for _, name in ran if name[0] == kind] == [f"{kind}{n}" for n in range(4)]
        assert world.manager.get("nobody's").status == "queued"

    run(body)


def test_a_killed_worker_s_agents_go_on_elsewhere() -> None:
    """The agents of a killed worker are lost within the lease and a tick, and another worker goes
    on from their checkpoints."""

    async def go_on(context: WorkContext) -> str:
        return f"after {context.agent.checkpoint}"

    async def body(world: World) -> None:
        worker = world.work({"t": forever})
        queue(world, "a")
        while world.manager.get("a").checkpoint is None:
            await asyncio.sleep(0.1)
        await world.kill(worker)
        world.work({"t": go_on})
        killed_s = asyncio.get_running_loop().time()
        agent = await world.ended("a")
        assert asyncio.get_running_loop().time() - killed_s <= LEASE_S * 1.1 + 1
        assert (agent.result, agent.starts) == ("after {'began': 1}", 2)
        assert agent.lease is not None
        assert agent.lease["lost"] == 1

    run(body)


def test_an_agent_that_kills_its_workers_fails() -> None:
    """An agent fails when it has lost as many workers as are allowed, and not before."""

    async def body(world: World) -> None:
        queue(world, "a")
        for lost in range(3):
            worker = world.work({"t": forever})
            while world.manager.get("a").starts == lost:
                await asyncio.sleep(0.1)
            await world.kill(worker)
            while world.manager.get("a").status == "running":
                await asyncio.sleep(0.1)
        agent = world.manager.get("a")
        assert (agent.status, agent.reason) == ("failed", "its worker was lost 3 times")

    run(body)


def test_agents_run_on_without_their_manager() -> None:
    """Agents go on while no manager lives, and their results reach the next one, which gives each
    lease a full new time."""

    async def slow(context: WorkContext) -> str:
        await asyncio.sleep(4 * LEASE_S)
        return "done"

    async def body(world: World) -> None:
        worker = world.work({"t": slow})
        queue(world, "a")
        while world.manager.get("a").status != "running":
            await asyncio.sleep(0.1)
        lease = world.manager.get("a").lease
        await world.kill_manager()
        await asyncio.sleep(3 * LEASE_S)
        await world.open()
        assert world.manager.get("a").lease == lease
        await asyncio.sleep(0.9 * LEASE_S)
        agent = await world.ended("a")
        assert (agent.result, agent.starts) == ("done", 1)
        await world.kill_manager()
        await world.open()
        assert world.workers == [worker]

    run(body)


def test_a_worker_that_was_cut_off_is_told_that_its_lease_is_over() -> None:
    """A worker that comes back after its lease was lost stops the agent, and its late result
    changes nothing."""

    async def body(world: World) -> None:
        first = world.work({"t": until_cancelled})
        queue(world, "a")
        while world.manager.get("a").status != "running":
            await asyncio.sleep(0.1)
        world.link_of(first).is_connected = False
        world.work({"t": echo})
        agent = await world.ended("a")
        assert agent.lease is not None
        assert agent.result == f"a of {agent.lease['lsn']}"
        world.link_of(first).is_connected = True
        await asyncio.sleep(LEASE_S)
        assert world.manager.get("a") == agent
        assert not world._workers[first][2]._runs

    run(body)


def test_an_orphan_stops_its_agents() -> None:
    """A worker without any answer for `orphan_s` stops its agents, and hands them back later."""

    async def body(world: World) -> None:
        worker = world.work({"t": forever}, orphan_s=100.0)
        queue(world, "a")
        while world.manager.get("a").checkpoint is None:
            await asyncio.sleep(0.1)
        await world.kill_manager()
        await asyncio.sleep(150)
        assert not world._workers[worker][2]._running()
        await world.open()
        await asyncio.sleep(10)
        agent = world.manager.get("a")
        assert agent.starts == 2  # it was handed back, and given out again
        assert agent.lease is not None
        assert agent.lease["lost"] == 0

    run(body)


def test_a_cancellation_reaches_a_worker_at_once() -> None:
    """A worker that is connected hears of a cancellation within a second, and one that misses the
    message within a heartbeat."""

    async def body(world: World) -> None:
        for is_missed in (False, True):
            began, stopped = asyncio.Event(), asyncio.Event()

            async def work(
                context: WorkContext,
                began: asyncio.Event = began,
                stopped: asyncio.Event = stopped,
            ) -> str:
                began.set()
                await context.cancelled.wait()
                with pytest.raises(TransitionError, match="no longer run here"):
                    await context.checkpoint(1)
                with pytest.raises(TransitionError):
                    await context.progress("x")
                stopped.set()
                return "late"

            worker = world.work({"t": work})
            name = f"a{is_missed}"
            queue(world, name)
            await began.wait()
            if is_missed:
                world.network.services = [s for s in world.network.services if "stop" not in s[0]]
            cancelled = world.manager.cancel(name)
            await asyncio.wait_for(stopped.wait(), LEASE_S / 3 + 1 if is_missed else 1)
            await asyncio.sleep(1)
            assert world.manager.get(name) == cancelled
            await world.kill(worker)

    run(body)


def test_a_drained_worker_hands_its_agents_back() -> None:
    """A worker that is stopped hands its agents back at once, which is no loss."""

    async def body(world: World) -> None:
        worker = world.work({"t": forever})
        queue(world, "a")
        while world.manager.get("a").checkpoint is None:
            await asyncio.sleep(0.1)
        await world.drain(worker)
        agent = world.manager.get("a")
        assert (agent.status, agent.reason) == ("interrupted", "worker stopped")
        world.work({"t": echo})
        agent = await world.ended("a", 5)
        assert agent.lease is not None
        assert (agent.status, agent.starts, agent.lease["lost"]) == ("completed", 2, 0)

    run(body)


def test_no_change_is_missed_while_a_manager_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents whose questions are answered before a manager serves workers, or while it begins to,
    go on."""
    serve = NetworkLink.serve

    async def body(world: World) -> None:
        for name in "ab":
            queue(world, name)
            world.manager.start(name)
            world.manager.interrupt(name, "asks", needs_input="red?")
        world.manager.answer("b", "green")
        await world.kill_manager()

        async def answer_first(link: NetworkLink, name: str, *arguments: Any) -> None:
            if name == "subagents-manager":
                world.manager.answer("a", "blue")
            await serve(link, name, *arguments)

        monkeypatch.setattr(NetworkLink, "serve", answer_first)
        await world.open()
        world.work({"t": echo})
        for name in "ab":
            assert (await world.ended(name)).status == "completed"

    run(body)


delays = st.sampled_from((0.0, 0.01, 1.0, 4.0, 20.0, 100.0))
fates: st.SearchStrategy[Fate] = st.lists(delays, max_size=3).map(tuple)
EVENTS = ("kill worker", "kill manager", "cut off", "bring back", "drain", "wait")


@settings(max_examples=examples(50), deadline=None)
@given(
    st.lists(fates, max_size=100),
    st.lists(st.tuples(st.sampled_from(EVENTS), st.sampled_from((0.1, 5.0, 40.0))), max_size=8),
)
def test_each_result_is_in_the_state_once(
    drawn: list[Fate], events: list[tuple[str, float]]
) -> None:
    """Whatever is lost, doubled, delayed, killed or cut off: each agent ends, with the result of
    the lease that ended it, and no agent is stuck once all goes well."""
    results: dict[str, set[str]] = {}

    async def work(context: WorkContext) -> str:
        lease = context.agent.lease
        assert lease is not None
        await context.progress("begins")
        step = (context.agent.checkpoint or 0) + 1
        await context.checkpoint(step)
        await asyncio.sleep(7)
        result = f"{context.agent.name} of {lease['epoch']}, {lease['lsn']}"
        results.setdefault(context.agent.name, set()).add(result)
        return result

    async def main() -> None:
        world = World(drawn)
        await world.open(attempts_max=1000)
        names = [f"a{number}" for number in range(5)]
        for name in names:
            queue(world, name)
        for _ in range(2):
            world.work({"t": work})
        ended: dict[str, int] = {}
        for event, pause_s in events:
            await happens(world, event, {"t": work})
            await asyncio.sleep(pause_s)
            for name in names:  # an end is final
                agent = world.manager.get(name)
                if agent.ended_at_ms is not None:
                    assert ended.setdefault(name, agent.lsn) == agent.lsn
        for worker in world.workers:
            world.link_of(worker).is_connected = True
        world.work({"t": work})
        for name in names:
            agent = await world.ended(name, HOUR_S)
            lease = agent.lease
            assert lease is not None
            assert agent.result == f"{name} of {lease['epoch']}, {lease['lsn']}"
            assert agent.result in results[name]
        await world.close()

    run_virtually(main())


async def happens(world: World, event: str, runners: dict[str, Any]) -> None:
    """Let an event of the world happen. A worker that ends is replaced."""
    match event:
        case "kill manager":
            await world.kill_manager()
            await world.open(attempts_max=1000)
        case "kill worker":
            await world.kill(world.workers[0])
            world.work(runners)
        case "drain":
            await world.drain(world.workers[0])
            world.work(runners)
        case "cut off":
            world.link_of(world.workers[0]).is_connected = False
        case "bring back":
            world.link_of(world.workers[0]).is_connected = True
