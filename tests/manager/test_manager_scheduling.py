"""Scheduling: an agent is found or spawned once, and queued agents start in order when they can."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from journal import ClosedError
from manager import Agent, AgentResult, Limits, SubAgentManager
from manager.limits import HOLD_AGENTS_MAX
from manager.queue import Queue
from tests.manager_support import ROOMY, assert_nobody_watches
from tests.support import TIMEOUT_S

FEW = Limits(max_running=2, max_admitted=10**6)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[SubAgentManager]:
    with SubAgentManager.open(tmp_path, limits=FEW) as manager:
        yield manager


def queue(manager: SubAgentManager, *names: str, agent_type: str = "general") -> list[Agent]:
    return [manager.spawn("p", name=n, queued=True, agent_type=agent_type) for n in names]


def name_of(agent: Agent | None) -> str | None:
    return None if agent is None else agent.name


def test_find_returns_none_for_nobody(manager: SubAgentManager) -> None:
    """`find` finds what `get` finds, and returns None where `get` raises."""
    agent = manager.spawn("p", name="a")
    assert manager.find("a") == manager.find(agent.agent_id) == agent
    assert manager.find("nobody") is None


def test_find_or_spawn_spawns_once(tmp_path: Path) -> None:
    """`find_or_spawn` returns the agent that it spawned before, also after its end and a restart,
    and with no capacity left."""
    with SubAgentManager.open(tmp_path, limits=FEW) as manager:
        first = manager.find_or_spawn("p", name="a", agent_type="t", metadata={"k": 1})
        assert (first.prompt, first.agent_type, first.metadata) == ("p", "t", {"k": 1})
        assert manager.find_or_spawn("other", name="a") == first
        ended = manager.update_from_result("a", AgentResult("done"))
        manager.find_or_spawn("p", name="b")
        manager.find_or_spawn("p", name="c", parent_id="b")
    with SubAgentManager.open(tmp_path, limits=FEW) as manager:
        assert manager.find_or_spawn("p", name="a").agent_id == ended.agent_id
        assert manager.counts()["running"] == 0
        with pytest.raises(ValueError, match="name"):
            manager.find_or_spawn("p", name="")


def test_of_racing_callers_one_spawns(tmp_path: Path) -> None:
    """Many threads that want an agent of one name get the same agent, even if it ends at once."""
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        got: list[str] = []

        def run() -> None:
            for number in range(30):
                agent = manager.find_or_spawn("p", name=f"agent {number}")
                manager.cancel(agent.agent_id)
                got.append(agent.agent_id)

        threads = [threading.Thread(target=run) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_S)
        assert len(got) == 180
        assert len({*got}) == len(manager.agents()) == 30


def test_the_oldest_queued_agent_starts_first(tmp_path: Path) -> None:
    """Queued agents start in the order of their spawns, also after a restart, while there is
    room."""
    with SubAgentManager.open(tmp_path, limits=FEW) as manager:
        queue(manager, "a", "b", "c", "d")
        assert name_of(manager.start_next()) == "a"
        manager.cancel("a")
        manager.cleanup(0)  # moves the last agent of the table to another place
        manager.compact()
    with SubAgentManager.open(tmp_path, limits=FEW) as manager:
        assert [name_of(manager.start_next()) for _ in range(3)] == ["b", "c", None]
        manager.interrupt("b", "why")
        started = manager.start_next()
        assert started is not None
        assert (started.name, started.status, started.starts) == ("d", "running", 1)
        manager.cancel("c")
        assert manager.start_next() is None  # nothing is queued


def test_only_agents_of_the_given_types_start(manager: SubAgentManager) -> None:
    """With `agent_types`, the oldest queued agent of these types starts."""
    queue(manager, "a", agent_type="x")
    queue(manager, "b", agent_type="y")
    queue(manager, "c", agent_type="z")
    assert manager.start_next(["nothing"]) is None
    assert manager.start_next([]) is None
    assert name_of(manager.start_next(["z", "y"])) == "b"
    assert name_of(manager.start_next(("z", "y"))) == "c"
    with pytest.raises(TypeError, match="agent_types"):
        manager.start_next("x")


@pytest.mark.parametrize("blocked", [1, HOLD_AGENTS_MAX, HOLD_AGENTS_MAX + 1])
def test_agents_with_spent_budgets_are_passed_over(manager: SubAgentManager, blocked: int) -> None:
    """An agent whose budget is spent does not keep the ones after it from starting."""
    manager.spawn("lead", name="lead", token_budget=1, queued=True)
    for _ in range(blocked):
        manager.spawn("p", parent_id="lead", queued=True)
    manager.record_usage("lead", input_tokens=1, output_tokens=0)
    assert manager.start_next() is None
    manager.spawn("p", name="free", queued=True)
    assert name_of(manager.start_next()) == "free"
    manager.set_token_budget("lead", 2)
    assert name_of(manager.start_next()) == "lead"


def test_the_queue_is_read_under_the_lock(
    manager: SubAgentManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search of the whole queue, for an agent whose budget is not spent, keeps other threads from
    changing the queue meanwhile."""
    first, held = Queue.first, list[bool]()

    def watched(*arguments: Any) -> list[str]:
        held.append(manager._state._lock.is_held())
        return first(*arguments)

    monkeypatch.setattr(Queue, "first", watched)
    manager.spawn("lead", name="lead", token_budget=1)
    for _ in range(HOLD_AGENTS_MAX):
        manager.spawn("p", parent_id="lead", queued=True)
    manager.record_usage("lead", input_tokens=1, output_tokens=0)
    assert manager.start_next() is None
    assert held == [True, True]  # for the first agents, and for all


@pytest.mark.parametrize("ending", ["cancel", "interrupt"])
def test_a_waiter_gets_the_next_free_place(manager: SubAgentManager, ending: str) -> None:
    """A waiter for capacity returns when an agent stops running, and at once if there is room."""
    manager.wait_capacity(timeout_s=0)
    for name in ("a", "b"):
        manager.spawn("p", name=name)
    with pytest.raises(TimeoutError):
        manager.wait_capacity(timeout_s=0)
    thread = threading.Thread(target=manager.wait_capacity)
    thread.start()

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
            group.create_task(manager.capacity())
            await asyncio.sleep(0)
            if ending == "cancel":
                manager.cancel("a")
            else:
                manager.interrupt("a", "why")

    asyncio.run(main())
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()
    assert_nobody_watches(manager)


def test_a_closed_manager_has_no_capacity(tmp_path: Path) -> None:
    """A close wakes those who wait for capacity, with ClosedError."""
    manager = SubAgentManager.open(tmp_path, limits=Limits(max_running=1))
    manager.spawn("p")

    async def main() -> None:
        task = asyncio.ensure_future(manager.capacity())
        await asyncio.sleep(0)
        await asyncio.to_thread(manager.close)
        with pytest.raises(ClosedError):
            async with asyncio.timeout(TIMEOUT_S):
                await task

    asyncio.run(main())
