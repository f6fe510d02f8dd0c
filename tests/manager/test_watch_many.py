"""Many waiters for the ends of agents: each is woken once, and forgotten when it leaves."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import pytest

from journal.testing import SimulatedDisk
from manager import Agent, Changes, SubAgentManager, records
from manager.waking import resolve
from tests.manager_support import (
    DONE,
    CountedLoop,
    assert_nobody_watches,
    wait_in_a_loop,
    wait_in_a_thread,
    waiter_count,
)
from tests.support import TIMEOUT_S, Held, until

# --- many waiters ---


def test_ten_thousand_waiters_cost_one_call_into_their_loop(manager: SubAgentManager) -> None:
    """Ends in one batch wake each waiter once, with one call into their loop.

    Meanwhile the loop runs other tasks.
    """
    root = manager.spawn("root")
    refs = [manager.spawn("p", parent_id=root.agent_id).agent_id for _ in range(10_000)]
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def wait_for_all() -> list[Agent]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountedLoop)
        ended = [asyncio.create_task(manager.ended(ref)) for ref in refs]
        await asyncio.sleep(0)
        assert waiter_count(manager) == len(refs)
        before = turns
        others = asyncio.create_task(count_turns())
        loop.calls = 0
        manager.cancel(root.agent_id, descendants=True)
        agents = await asyncio.gather(*ended)
        assert loop.calls == 1
        others.cancel()
        assert turns - before > len(refs) / 1000
        return agents

    with asyncio.Runner(loop_factory=CountedLoop) as runner:
        agents = runner.run(wait_for_all())
    assert [agent.agent_id for agent in agents] == refs
    assert {agent.status for agent in agents} == {"cancelled"}
    assert_nobody_watches(manager)


def test_an_end_wakes_only_its_own_waiters(manager: SubAgentManager) -> None:
    """An end wakes the waiters for that agent; the loop of other waiters is not called."""
    agents = [manager.spawn("p") for _ in range(3)]
    loop = CountedLoop()

    async def wait_for(agent: Agent) -> Agent:
        return await manager.ended(agent.agent_id)

    tasks = [loop.create_task(wait_for(agent)) for agent in agents[1:]]
    loop.run_until_complete(asyncio.sleep(0))
    loop.calls = 0
    ended = manager.update_from_result(agents[0].agent_id, DONE)
    manager.wait_durable(ended.lsn)
    assert loop.calls == 0
    for agent in agents[1:]:
        manager.cancel(agent.agent_id)
        manager.wait_durable()
    loop.run_until_complete(asyncio.gather(*tasks))
    assert loop.calls == 2
    loop.close()
    assert_nobody_watches(manager)


def test_waiters_are_woken_in_their_own_loop_or_thread(manager: SubAgentManager) -> None:
    """Each waiter is woken in its own loop or thread."""
    agent = manager.spawn("work")
    with ThreadPoolExecutor(8) as pool:
        waits = [
            pool.submit(wait, manager, agent.agent_id)
            for wait in (wait_in_a_loop, wait_in_a_thread) * 4
        ]
        until(lambda: waiter_count(manager) == 8, "eight waiters")
        ended = manager.update_from_result(agent.agent_id, DONE)
        assert [waited.result() for waited in waits] == [ended] * 8
    assert_nobody_watches(manager)


def test_no_end_is_missed_by_arriving_waiters(manager: SubAgentManager) -> None:
    """A waiter never misses an end, whether it arrives before or after it."""
    refs = [manager.spawn("p").agent_id for _ in range(400)]

    def end(share: list[str]) -> None:
        for ref in share:
            manager.update_from_result(ref, DONE)

    async def wait_for_all() -> list[Agent]:
        async with asyncio.timeout(TIMEOUT_S):
            return await asyncio.gather(*(manager.ended(ref) for ref in refs))

    with ThreadPoolExecutor() as pool:
        for share in range(4):
            pool.submit(end, refs[share::4])
        threads = [pool.submit(manager.wait_ended, ref, timeout_s=TIMEOUT_S) for ref in refs[:40]]
        agents = asyncio.run(wait_for_all())
        assert [waited.result().agent_id for waited in threads] == refs[:40]
    assert [agent.agent_id for agent in agents] == refs
    assert_nobody_watches(manager)


def test_an_interrupted_turn_is_followed_by_another() -> None:
    """Waiters left over by an interrupted turn are woken in the next one."""

    async def struck() -> bool:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        interrupted = Mock(done=Mock(side_effect=[KeyboardInterrupt, True]))
        with pytest.raises(KeyboardInterrupt):
            resolve(loop, {interrupted: None, future: None})
        await asyncio.wait_for(future, TIMEOUT_S)
        return future.done()

    assert asyncio.run(struck())


def test_an_interrupted_hand_over_loses_no_change(
    manager: SubAgentManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next commit hands to readers and waiters what an interrupted hand-over left."""
    agent = manager.spawn("work")
    changes = manager.changes()
    put = Changes._put

    def struck(reader: Changes, row: Any) -> None:
        monkeypatch.undo()
        put(reader, row)
        raise KeyboardInterrupt

    with ThreadPoolExecutor() as pool:
        waited = pool.submit(manager.wait_ended, agent.agent_id, timeout_s=TIMEOUT_S)
        until(lambda: waiter_count(manager), "a waiter")
        manager._state.update(lambda fleet: records.cancel(agent.agent_id, 1))
        monkeypatch.setattr(Changes, "_put", struck)
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(anext(changes))
        manager.wait_durable()
        ended = waited.result()
    assert asyncio.run(anext(changes)) == ended


# --- leaving ---


def test_cancelled_waiters_are_forgotten(manager: SubAgentManager) -> None:
    """Cancelled waiters are forgotten, and the others still wait."""
    agent = manager.spawn("work")

    async def leave() -> list[Agent | BaseException]:
        tasks = [asyncio.create_task(manager.ended(agent.agent_id)) for _ in range(10)]
        await asyncio.sleep(0)
        for task in tasks[:9]:
            task.cancel()
        await asyncio.wait(tasks[:9])
        assert waiter_count(manager) == 1
        manager.update_from_result(agent.agent_id, DONE)
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = asyncio.run(leave())
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 9 + [Agent]
    assert_nobody_watches(manager)


def test_the_feed_ends_with_the_last_waiter(manager: SubAgentManager) -> None:
    """When all waiters have left, the fleet feeds no watch."""
    agent = manager.spawn("work")

    async def all_leave() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.gather(*(manager.ended(agent.agent_id) for _ in range(100)))

    asyncio.run(all_leave())
    assert_nobody_watches(manager)


def test_a_waiter_may_leave_before_the_end_is_durable(
    manager: SubAgentManager, disk: SimulatedDisk
) -> None:
    """The commit of an end whose waiter has left wakes nobody, and the watch is empty."""
    agent = manager.spawn("work")
    manager.wait_durable()

    async def leave() -> None:
        task = asyncio.create_task(manager.ended(agent.agent_id))
        await asyncio.sleep(0)
        changes = manager.changes()
        with Held(disk, "sync", ".seg") as held:
            manager.update_from_result(agent.agent_id, DONE)
            held.wait_reached()
            await anext(changes)  # the end is visible, and not yet durable
            await changes.aclose()
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(leave())
    manager.wait_durable()
    assert_nobody_watches(manager)


def test_a_garbage_collected_waiter_takes_no_lock(manager: SubAgentManager) -> None:
    """A coroutine that is closed while the watch's lock is held only leaves a note to clean up.

    It may be closed in any thread at any time, also in the one that holds the lock.
    """
    agent = manager.spawn("work")
    loop = asyncio.new_event_loop()
    waiter = manager.ended(agent.agent_id)

    async def begin() -> None:
        waiter.send(None)

    loop.run_until_complete(begin())
    loop.close()
    assert waiter_count(manager) == 1
    with manager._watch._lock:
        waiter.close()
    manager._watch.committed()
    assert_nobody_watches(manager)


def test_a_closed_loop_is_skipped(manager: SubAgentManager) -> None:
    """Waiters in a closed loop can't be woken; all others are."""
    agent = manager.spawn("work")
    loop = asyncio.new_event_loop()
    task = loop.create_task(manager.ended(agent.agent_id))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(manager.wait_ended, agent.agent_id, timeout_s=TIMEOUT_S)
        until(lambda: waiter_count(manager) == 2, "two waiters")
        ended = manager.update_from_result(agent.agent_id, DONE)
        assert waited.result() == ended
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_an_end_without_a_wake_up_is_seen_at_the_next_commit(
    manager: SubAgentManager,
) -> None:
    """An end whose wake-up an interrupt prevented is seen at the next commit."""
    agent = manager.spawn("work")
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(manager.wait_ended, agent.agent_id, timeout_s=TIMEOUT_S)
        until(lambda: waiter_count(manager), "a waiter")
        manager._state.update(lambda fleet: records.cancel(agent.agent_id, 1))
        manager.wait_durable()
        assert waited.result().status == "cancelled"
