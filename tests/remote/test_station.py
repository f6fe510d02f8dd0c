"""The order of a worker's requests, on a network and with a clock in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from manager import WorkContext
from manager._remote.courier import Courier
from tests.remote.fleets import World, echo, forever, queue, run
from tests.remote.network import run_virtually

ask = Courier.try_to_ask


def test_agents_come_while_others_are_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker asks for more agents while it confirms those that have come, and begins each one
    only after its own confirmation."""
    confirmed: set[str] = set()
    came_meanwhile: list[str] = []
    confirming: list[str] = []

    async def noted(courier: Courier, verb: str, body: Any, timeout_s: float) -> Any:
        if verb == "beat":
            confirming[:] = [lease[0] for lease in body["held"]]
            await asyncio.sleep(1)
        answer = await ask(courier, verb, body, timeout_s)
        if verb == "beat":
            confirmed.update(confirming)
            confirming.clear()
        elif confirming and answer is not None:
            came_meanwhile.extend(grant["agent"]["name"] for grant in answer["grants"])
        return answer

    async def work(context: WorkContext) -> str:
        assert context.agent.agent_id in confirmed
        return "done"

    async def body(world: World) -> None:
        monkeypatch.setattr(Courier, "try_to_ask", noted)
        world.work({"t": work}, slots=2)
        queue(world, "a")
        while not confirming:
            await asyncio.sleep(0.01)
        queue(world, "b")
        for name in "ab":
            agent = await world.ended(name)
            assert agent.result == "done", agent.reason
        assert came_meanwhile == ["b"]

    run(body)


def test_a_result_is_sent_before_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker reports a result before it asks for an agent in its place, so that the manager
    records the end first, and one commit has both."""
    verbs: list[str] = []

    async def noted(courier: Courier, verb: str, body: Any, timeout_s: float) -> Any:
        verbs.append(verb)
        return await ask(courier, verb, body, timeout_s)

    async def work(context: WorkContext) -> str:
        return "done"

    async def body(world: World) -> None:
        monkeypatch.setattr(Courier, "try_to_ask", noted)
        for name in "abc":
            queue(world, name)
        world.work({"t": work}, slots=1)
        await world.ended("c")
        assert verbs[:7] == ["next", "beat", "report", "next", "beat", "report", "next"]

    run(body)


def test_a_plain_function_stops_its_worker() -> None:
    """A worker that calls a plain function, which returns a result in place of an awaitable, fails
    its agent, hands the others back, and ends with a TypeError."""
    message = "worker 't' returned a str, not an awaitable: make it an async function"
    called: list[str] = []

    def work(context: WorkContext) -> Any:
        called.append(context.agent.name)
        return "done"

    async def body(world: World) -> None:
        queue(world, "other", agent_type="forever")
        for name in "abcd":
            queue(world, name)
        runners: Any = {"t": work, "forever": forever}
        worker = world.work(runners, slots=3)
        with pytest.raises(TypeError, match=f"^{message}$"):
            await world.task_of(worker)
        agents = {name: world.manager.get(name) for name in ("a", "b", "c", "d", "other")}
        assert called == ["a"]
        assert agents["a"].reason == f"TypeError: {message}"
        assert {name: agent.status for name, agent in agents.items()} == {
            "a": "failed",
            "b": "interrupted",
            "c": "queued",
            "d": "queued",
            "other": "interrupted",
        }
        world.work({"t": echo, "forever": echo})
        for name in ("b", "c", "d", "other"):
            assert (await world.ended(name)).status == "completed"

    run(body)


@pytest.mark.parametrize("lease_s", [0.1, 1.0, 5.0, 300.0])
def test_a_worker_beats_in_time_for_its_manager_s_leases(lease_s: float) -> None:
    """A healthy worker keeps its agents, however short the leases of its manager are: also of its
    first manager, and of one whose leases are shorter than those of the manager before."""

    async def work(context: WorkContext) -> str:
        await asyncio.sleep(3 * lease_s + 60)
        return "done"

    async def body(world: World) -> None:
        world.work({"t": work})
        queue(world, "a")
        assert (await world.ended("a")).starts == 1
        await world.kill_manager()
        await world.open(lease_s=lease_s / 2)
        queue(world, "b")
        assert (await world.ended("b")).starts == 1

    run(body, lease_s=lease_s)


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("lease_s", [1.0, 5.0])
def test_a_worker_hears_of_a_shorter_lease_before_its_next_beat(slots: int, lease_s: float) -> None:
    """A manager whose leases are shorter than those of the one before keeps the agents of a healthy
    worker, with or without a free place, and ends those of a worker that is gone."""

    async def work(context: WorkContext) -> str:
        await asyncio.sleep(200)
        return "done"

    async def body(world: World) -> None:
        world.work({"t": work}, slots=slots)
        gone = world.work({"u": forever})
        queue(world, "a")
        queue(world, "b", agent_type="u")
        await asyncio.sleep(110)  # the workers have just begun to wait for their next beats
        await world.kill_manager()
        await world.kill(gone)
        await world.open(lease_s=lease_s)
        await asyncio.sleep(1.5 * lease_s)
        assert world.manager.get("b").status == "interrupted"
        assert (await world.ended("a")).starts == 1

    run(body, lease_s=300.0)


def test_agents_that_are_on_their_way_to_an_ended_worker_are_handed_back() -> None:
    """Agents in an answer that a worker has not got when it ends go on elsewhere at once, and not
    when their leases have expired."""

    async def main() -> None:
        world = World([(0.0,), (1.0,)])  # the second message is the answer with the agents
        await world.open()
        for name in "ab":
            queue(world, name)
        worker = world.work({"t": echo})
        await asyncio.sleep(0.5)
        await world.drain(worker)
        world.work({"t": echo})
        for name in "ab":
            agent = await world.ended(name, 3)
            assert (agent.status, agent.starts) == ("completed", 2)
        await world.close()

    run_virtually(main())


def test_a_worker_that_is_cancelled_again_leaves_no_tasks() -> None:
    """A second cancellation ends a worker that waits for its manager, with all of its tasks."""

    async def body(world: World) -> None:
        before = asyncio.all_tasks()
        task = world.task_of(world.work({"t": forever}))
        queue(world, "a")
        while world.manager.get("a").checkpoint is None:
            await asyncio.sleep(0.1)
        await world.kill_manager()
        task.cancel()
        await asyncio.sleep(3)
        assert not task.done()
        task.cancel()
        await asyncio.wait((task,), timeout=1)
        assert task.cancelled()
        await asyncio.sleep(1)
        assert asyncio.all_tasks() <= before
        await world.open()

    run(body)
