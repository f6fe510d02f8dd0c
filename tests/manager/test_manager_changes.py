"""Reading changes: each agent's newest state, in order, at no cost to writers."""

from __future__ import annotations

import asyncio
import errno
import gc
import random
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from journal import ClosedError, FailedError
from journal.testing import SimulatedDisk
from manager import Agent, AgentResult, Changes, SubAgentManager, records
from tests.manager_support import (
    CountedLoop,
    assert_nobody_watches,
    take,
    take_ready,
    update,
)
from tests.support import TIMEOUT_S, until


async def read_to_the_end(changes: AsyncIterator[Agent]) -> list[Agent]:
    return [agent async for agent in changes]


def test_a_reader_sees_the_changes_after_its_call(manager: SubAgentManager) -> None:
    """A reader sees every change after its own call, and none before it."""
    first = manager.changes()
    before = [manager.spawn("before"), manager.spawn("before")]
    second = manager.changes()
    after = manager.spawn("after")
    ended = manager.cancel(before[0].agent_id)
    assert take_ready(second) == [after, ended]
    assert take_ready(first) == [before[1], after, ended]


def test_each_agents_newest_state_is_shown_once(manager: SubAgentManager) -> None:
    """A slow reader sees the current state of each agent once, ordered by LSN."""
    changes = manager.changes()
    agents = [manager.spawn("work") for _ in range(50)]
    dice = random.Random(1)
    for step in range(2000):
        update(manager, dice.choice(agents), step)
    changed = take_ready(changes)
    assert changed == sorted(manager.agents(), key=lambda agent: agent.lsn)
    assert len(changed) == 50
    assert take_ready(changes) == []
    last = update(manager, agents[0], 1)
    assert take_ready(changes) == [last]


def test_unread_changes_are_bounded_by_the_fleet(manager: SubAgentManager) -> None:
    """P8: A reader that never reads keeps one row for each agent, and none for removed agents.

    Commits do not change that.
    """
    changes = manager.changes()
    kept = [manager.spawn("kept") for _ in range(10)]
    for step in range(300):
        update(manager, kept[step % 10], step)
        manager.cancel(manager.spawn("short-lived").agent_id)
        if step % 10 == 9:
            manager.cleanup(0)
            manager.wait_durable()
    until(lambda: len(changes._dirty) == 10, "one row for each agent")
    assert take_ready(changes) == sorted(manager.agents(), key=lambda agent: agent.lsn)


def test_ancestors_are_shown_with_the_tokens_of_their_descendants(
    manager: SubAgentManager,
) -> None:
    """An ancestor is shown when its tokens_used changes with a descendant's usage."""
    root = manager.spawn("root")
    child = manager.spawn("child", parent_id=root.agent_id)
    changes = manager.changes()
    manager.record_usage(child.agent_id, input_tokens=2, output_tokens=3)
    changed = take_ready(changes)
    assert [(a.agent_id, a.tokens_used) for a in changed] == [
        (child.agent_id, 5),
        (root.agent_id, 5),
    ]


def test_readers_in_many_loops_end_with_the_fleets_state(manager: SubAgentManager) -> None:
    """Each reader sees rising LSNs and ends with the fleet's state; no writer waits for it."""
    agents = [manager.spawn("work") for _ in range(64)]
    readers = [manager.changes() for _ in range(4)]

    async def read(changes: Changes) -> dict[str, Agent]:
        newest: dict[str, Agent] = {}
        lsn = 0
        async with asyncio.timeout(TIMEOUT_S):
            async for agent in changes:
                assert agent.lsn > lsn
                lsn = agent.lsn
                newest[agent.agent_id] = agent
                if len(newest) == 64 and all(a.status == "completed" for a in newest.values()):
                    break
        return newest

    def write(agent: Agent) -> None:
        for step in range(50):
            update(manager, agent, step)
        manager.update_from_result(agent.agent_id, AgentResult("done"))

    def reading(changes: Changes) -> dict[str, Agent]:
        return asyncio.run(read(changes))

    with ThreadPoolExecutor(70) as pool:
        readings = [pool.submit(reading, changes) for changes in readers]
        for written in [pool.submit(write, agent) for agent in agents]:
            written.result(timeout=TIMEOUT_S)
        now = {agent.agent_id: agent for agent in manager.agents()}
        assert [reading.result() for reading in readings] == [now] * 4


def test_tasks_may_share_a_reader(manager: SubAgentManager) -> None:
    """Tasks that share a reader each get other agents, and together all of them."""
    changes = manager.changes()

    async def share() -> list[Agent]:
        tasks = [asyncio.create_task(take(changes, 5)) for _ in range(4)]
        await asyncio.sleep(0)
        for number in range(20):
            manager.spawn(str(number))
            await asyncio.sleep(0)
        return [agent for agents in await asyncio.gather(*tasks) for agent in agents]

    changed = asyncio.run(share())
    assert sorted(int(agent.prompt) for agent in changed) == list(range(20))


# --- waking ---


def test_an_idle_loop_is_woken_once(manager: SubAgentManager) -> None:
    """An idle loop is woken once, whatever changes before it reads, for all its readers."""
    agents = [manager.spawn("work") for _ in range(10)]

    async def read() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountedLoop)
        readers = [manager.changes() for _ in range(3)]
        for _ in range(5):
            reading = [asyncio.create_task(take(changes, 10)) for changes in readers]
            await asyncio.sleep(0)
            loop.calls = 0
            for step in range(100):
                update(manager, agents[step % 10], step)
            assert loop.calls == 1
            newest = sorted(manager.agents(), key=lambda agent: agent.lsn)
            assert await asyncio.gather(*reading) == [newest] * 3
            assert loop.calls == 1

    with asyncio.Runner(loop_factory=CountedLoop) as runner:
        runner.run(read())


def test_a_busy_reader_lets_its_loop_run_other_tasks(manager: SubAgentManager) -> None:
    """A reader that always finds more to read still lets the other tasks of its loop run."""
    agent = manager.spawn("work")
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def read() -> None:
        others = asyncio.create_task(count_turns())
        changes = manager.changes()
        for step in range(1000):
            update(manager, agent, step)
            await anext(changes)
        assert turns >= 5
        others.cancel()

    asyncio.run(read())


def test_a_change_just_before_a_reader_waits_wakes_it(
    manager: SubAgentManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change after the reader found nothing, and before it is known to wait, is not missed."""
    changes = manager.changes()
    next_row = manager._watch.next_row

    def then_a_change(reader: Changes) -> Any:
        row = next_row(reader)
        monkeypatch.undo()
        manager.spawn("work")
        return row

    monkeypatch.setattr(manager._watch, "next_row", then_a_change)
    assert asyncio.run(take(changes, 1)) == manager.agents()


def test_a_change_without_a_wake_up_is_shown_at_the_next_commit(
    manager: SubAgentManager,
) -> None:
    """A change whose wake-up an interrupt prevented is shown at the next commit."""
    agent = manager.spawn("work")
    manager.wait_durable()

    async def read() -> list[Agent]:
        reading = asyncio.create_task(take(manager.changes(), 1))
        await asyncio.sleep(0)
        manager._state.update(lambda fleet: records.cancel(agent.agent_id, 1))
        await manager.durable()
        return await reading

    assert asyncio.run(read()) == [manager.get(agent.agent_id)]


# --- leaving ---


@pytest.mark.usefixtures("few_to_collect")
def test_a_reader_that_leaves_is_forgotten(manager: SubAgentManager) -> None:
    """A reader is forgotten after aclose, when it is dropped, and when its wait is cancelled."""

    async def closed() -> None:
        changes = manager.changes()
        task = asyncio.create_task(read_to_the_end(changes))
        await asyncio.sleep(0)
        await changes.aclose()
        await changes.aclose()
        assert await task == []
        with pytest.raises(StopAsyncIteration):
            await anext(changes)

    async def broken_off() -> None:
        manager.spawn("before")
        async for _ in manager.changes(after=0):
            break

    async def cancelled() -> None:
        changes = manager.changes()
        task = asyncio.create_task(take(changes, 1))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert not manager._watch._idle
        agent = manager.spawn("not lost")
        assert await take(changes, 1) == [agent]

    for leave in (closed, broken_off, cancelled):
        asyncio.run(leave())
        gc.collect()
        manager.spawn("one more")
        manager.wait_durable()
        assert_nobody_watches(manager)


def test_close_ends_the_iteration(manager: SubAgentManager) -> None:
    """After close, a reader gets the changes made before it, and then the iteration ends."""
    agent = manager.spawn("work")
    late, idle = manager.changes(), manager.changes()

    async def until_the_end() -> None:
        task = asyncio.create_task(read_to_the_end(idle))
        await asyncio.sleep(0)
        ended = manager.cancel(agent.agent_id)
        await asyncio.to_thread(manager.close)
        assert await task == [ended]
        assert await read_to_the_end(late) == [ended]
        assert await read_to_the_end(late) == []

    asyncio.run(until_the_end())
    with pytest.raises(ClosedError):
        manager.changes()


def test_a_failed_disk_is_raised(manager: SubAgentManager, disk: SimulatedDisk) -> None:
    """A failed disk raises FailedError in a waiting reader, after the changes made before."""
    agent = manager.spawn("work")
    manager.wait_durable()

    def broken(operation: str, path: str) -> None:
        if operation == "sync":
            raise OSError(errno.EIO, "broken")

    async def read() -> None:
        changes = manager.changes()
        task = asyncio.create_task(take(changes, 2))
        await asyncio.sleep(0)
        disk.before = broken
        manager.cancel(agent.agent_id)
        with pytest.raises(FailedError):
            await manager.durable()
        with pytest.raises(FailedError):
            await task

    asyncio.run(read())
    disk.before = None
    with pytest.raises(FailedError):
        manager.close()
