"""Limits: which agents a manager admits, and how it refuses more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from journal import (
    BufferFullError,
    Options,
)
from journal.testing import SimulatedDisk
from manager import (
    Agent,
    AgentResult,
    CapacityError,
    Limits,
    SubAgentManager,
    UnknownAgentError,
)
from manager.agent import ENDED, LIVE
from tests.manager_support import ROOMY, agent_that_is


def test_max_running_bounds_spawn_start_and_resume(tmp_path: Path) -> None:
    """A call above max_running raises CapacityError with limit, value and counts.

    It changes nothing.
    """
    with SubAgentManager.open(tmp_path, limits=Limits(max_running=2)) as manager:
        queued = manager.spawn("q", queued=True)
        stopped = manager.interrupt(manager.spawn("i").agent_id, "later")
        running = [manager.spawn("r") for _ in range(2)]
        attempts: list[Callable[[], Agent]] = [
            lambda: manager.spawn("r"),
            lambda: manager.start(queued.agent_id),
            lambda: manager.resume(stopped.agent_id),
        ]
        for attempt in attempts:
            with pytest.raises(CapacityError) as caught:
                attempt()
            assert (caught.value.limit, caught.value.value) == ("max_running", 2)
            assert caught.value.counts == {"queued": 1, "running": 2, "interrupted": 1}
            assert "max_running=2" in str(caught.value)
            assert "2 running" in str(caught.value)
        assert len(manager.agents()) == 4
        manager.update_checkpoint(running[0].agent_id, None, steps_taken=1)
        manager.cancel(running[0].agent_id)
        assert manager.start(queued.agent_id).status == "running"


def test_max_admitted_counts_all_that_have_not_ended(tmp_path: Path) -> None:
    """Queued, running and interrupted agents count for max_admitted; finished ones do not."""
    with SubAgentManager.open(tmp_path, limits=Limits(max_admitted=3)) as manager:
        agents = [agent_that_is(manager, status) for status in (*ENDED, *LIVE)]
        with pytest.raises(CapacityError) as caught:
            manager.spawn("one more", queued=True)
        assert (caught.value.limit, caught.value.value) == ("max_admitted", 3)
        manager.cancel(agents[-1].agent_id)
        manager.spawn("one more", queued=True)


def test_max_depth_bounds_the_number_of_ancestors(tmp_path: Path) -> None:
    """A root is at depth 0, and an agent at max_depth can have no child."""
    with SubAgentManager.open(tmp_path, limits=Limits(max_depth=2)) as manager:
        agents = [manager.spawn("root", name="root")]
        agents.append(manager.spawn("child", parent_id="root"))  # by name
        agents.append(manager.spawn("grandchild", parent_id=agents[-1].agent_id))
        assert [agent.spawn_depth for agent in agents] == [0, 1, 2]
        assert [a.parent_id for a in agents] == [None, agents[0].agent_id, agents[1].agent_id]
        with pytest.raises(CapacityError) as caught:
            manager.spawn("too deep", parent_id=agents[-1].agent_id)
        assert (caught.value.limit, caught.value.value) == ("max_depth", 2)
        with pytest.raises(UnknownAgentError):
            manager.spawn("an orphan", parent_id="nobody")
        manager.cancel("root")
        assert manager.spawn("late", parent_id="root").spawn_depth == 1
        assert manager.get(agents[1].agent_id).status == "running"


@pytest.mark.parametrize(
    "bad",
    [
        {"max_running": 0},
        {"max_admitted": True},
        {"max_depth": -1},
        {"prompt_bytes_max": 1.5},
        {"result_bytes_max": "1"},
        {"heartbeat_timeout_s": 0},
        {"heartbeat_timeout_s": float("nan")},
    ],
)
def test_a_bad_limit_is_named(bad: dict[str, Any]) -> None:
    """Limits are checked when they are made, and a bad one is named."""
    with pytest.raises(ValueError, match=next(iter(bad))):
        Limits(**bad)


def test_a_full_disk_refuses_new_work_before_it_refuses_results() -> None:
    """Records that end an agent are urgent: they fit in the buffer when a spawn does not.

    None of them is lost once there is room again.
    """
    disk = SimulatedDisk()
    options = Options(buffer_bytes=8192)

    async def fill(manager: SubAgentManager) -> list[Agent]:
        agents = [manager.spawn("work") for _ in range(4)]
        await manager.durable()
        disk.capacity = 0
        with suppress(BufferFullError):
            while True:
                manager.update_checkpoint(agents[0].agent_id, "x" * 100, steps_taken=1)
        with pytest.raises(BufferFullError):
            manager.spawn("x" * 200, queued=True)
        one, two, three, four = (agent.agent_id for agent in agents)
        ended = [
            manager.update_from_result(one, AgentResult("done")),
            manager.update_failed(two, "broken"),
            manager.interrupt(three, "later"),
            manager.cancel(four),
        ]
        disk.capacity = None
        await manager.durable()
        return ended

    with SubAgentManager.open("/w", limits=ROOMY, options=options, disk=disk) as manager:
        ended = asyncio.run(fill(manager))
    with SubAgentManager.open("/w", limits=ROOMY, options=options, disk=disk) as manager:
        assert manager.agents(include_archived=True) == [
            replace(agent, from_prior_session=True) for agent in ended
        ]


def test_open_needs_no_space() -> None:
    """P5: A manager opens on a full disk without waiting, and interrupts its running agents."""
    disk = SimulatedDisk()
    with SubAgentManager.open("/w", disk=disk) as manager:
        agent = manager.spawn("work")
    disk.capacity = 0
    manager = SubAgentManager.open("/w", disk=disk)
    assert manager.get(agent.agent_id).status == "interrupted"
    disk.capacity = None
    manager.close()
