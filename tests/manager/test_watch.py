"""Waiting for an agent's end: each waiter is woken once, when it is durable, and forgotten."""

from __future__ import annotations

import errno
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from journal import ClosedError, FailedError
from journal.testing import SimulatedDisk
from manager import Agent, AgentResult, SubAgentManager, UnknownAgentError
from manager.agent import ENDED, Status
from manager.waking import wake
from tests.manager_support import (
    DONE,
    agent_that_is,
    assert_nobody_watches,
    wait_in_a_loop,
    wait_in_a_thread,
    waiter_count,
)
from tests.support import TIMEOUT_S, Held, until

Wait = Callable[[SubAgentManager, str], Agent]


BOTH = pytest.mark.parametrize("wait", [wait_in_a_thread, wait_in_a_loop])


@BOTH
@pytest.mark.parametrize("status", ENDED)
def test_wait_ended_returns_the_ended_agent(
    manager: SubAgentManager, wait: Wait, status: Status
) -> None:
    """A waiter gets the agent in its final status, even if nothing else asks for a commit."""
    agent = manager.spawn("work", name="a name")
    with ThreadPoolExecutor() as pool:
        waits = [pool.submit(wait, manager, ref) for ref in (agent.agent_id, "a name")]
        until(lambda: waiter_count(manager) == 2, "two waiters")
        manager.interrupt(agent.agent_id, "not an end")
        manager.resume(agent.agent_id)
        if status == "cancelled":
            ended = manager.cancel(agent.agent_id)
        else:
            ended = manager.update_from_result(agent.agent_id, AgentResult("x", status=status))
        assert [done.result() for done in waits] == [ended, ended]
    assert manager.stats().durable_lsn >= ended.lsn
    assert_nobody_watches(manager)


@BOTH
def test_waiting_for_an_ended_agent_returns_once_its_end_is_durable(
    manager: SubAgentManager, wait: Wait
) -> None:
    """P2: A wait for an ended agent makes its end durable, and then returns even after close."""
    ended = agent_that_is(manager, "completed")
    assert manager.stats().durable_lsn < ended.lsn
    assert wait(manager, ended.agent_id) == ended
    assert manager.stats().durable_lsn >= ended.lsn
    assert_nobody_watches(manager)
    manager.close()
    assert wait(manager, ended.agent_id) == ended


@BOTH
@pytest.mark.parametrize("before", [False, True])
def test_waiters_are_woken_only_once_the_end_is_durable(
    manager: SubAgentManager, disk: SimulatedDisk, wait: Wait, before: bool
) -> None:
    """P2: A waiter is not woken by an end in memory until the sync of that end is done."""
    agent = manager.spawn("work")
    manager.wait_durable()
    order: list[str] = []

    def waited() -> None:
        wait(manager, agent.agent_id)
        order.append("woken")

    thread = threading.Thread(target=waited)
    if before:
        thread.start()
        until(lambda: waiter_count(manager), "a waiter")
    with Held(disk, "sync", ".seg") as held:
        manager.update_from_result(agent.agent_id, DONE)
        if not before:
            thread.start()
        held.wait_reached()
        assert manager.get(agent.agent_id).status == "completed"
        order.append("synced")
        held.release_all()
        thread.join(timeout=TIMEOUT_S)
    assert order == ["synced", "woken"]


@BOTH
@pytest.mark.parametrize("removed", [False, True])
def test_an_end_just_before_the_waiter_is_registered_wakes_it(
    manager: SubAgentManager, wait: Wait, removed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A waiter notices an end, and even a removal, between its lookup and its registration."""
    agent = manager.spawn("work")
    read = manager._state.read

    def then_it_ends(look: Any) -> Any:
        row = read(look)
        monkeypatch.undo()
        manager.update_from_result(agent.agent_id, DONE)
        if removed:
            manager.cleanup(0)
        return row

    monkeypatch.setattr(manager._state, "read", then_it_ends)
    if removed:
        with pytest.raises(UnknownAgentError, match="removed meanwhile"):
            wait(manager, agent.agent_id)
    else:
        assert wait(manager, agent.agent_id).result == "done"
    assert_nobody_watches(manager)


def test_a_commit_wakes_only_the_waiters_of_its_agents(
    manager: SubAgentManager, disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: An agent that ends while another's end is being synced belongs to the next commit."""
    agents = [manager.spawn("work").agent_id for _ in range(2)]
    manager.wait_durable()
    woken: list[str] = []

    def noted(groups: Any) -> None:
        woken.extend(row[0] for row, _ in groups)
        wake(groups)

    monkeypatch.setattr("manager.watch.wake", noted)
    with ThreadPoolExecutor() as pool, Held(disk, "sync", ".seg") as held:
        waits = [pool.submit(wait_in_a_thread, manager, ref) for ref in agents]
        until(lambda: waiter_count(manager) == 2, "two waiters")
        manager.update_from_result(agents[0], DONE)
        held.wait_reached()
        manager.update_from_result(agents[1], DONE)
        held.release_one()
        waits[0].result()
        held.wait_reached()
        assert woken == agents[:1]
        held.release_all()
        waits[1].result()
    assert woken == agents


def test_a_waiter_that_times_out_is_forgotten(manager: SubAgentManager) -> None:
    """A TimeoutError names the agent, and the watch forgets its waiter."""
    agent = manager.spawn("work", name="a name")
    with pytest.raises(TimeoutError, match=rf"{agent.agent_id} \(name 'a name'\) has not ended"):
        manager.wait_ended("a name", timeout_s=0.001)
    with pytest.raises(TimeoutError):
        manager.wait_ended("a name", timeout_s=0)
    assert_nobody_watches(manager)


def test_the_time_limit_includes_the_sync_of_the_end(
    manager: SubAgentManager, disk: SimulatedDisk
) -> None:
    """The time limit includes the time until the agent's end is durable."""
    agent = manager.spawn("work")
    manager.wait_durable()
    with Held(disk, "sync", ".seg") as held, ThreadPoolExecutor() as pool:
        waited = pool.submit(manager.wait_ended, agent.agent_id, timeout_s=0.2)
        until(lambda: waiter_count(manager), "a waiter")
        manager.update_from_result(agent.agent_id, DONE)
        with pytest.raises(TimeoutError):
            waited.result()
        with pytest.raises(TimeoutError):
            manager.wait_ended(agent.agent_id, timeout_s=0.001)
        held.release_all()
    assert manager.wait_ended(agent.agent_id, timeout_s=TIMEOUT_S).result == "done"


@BOTH
def test_waiting_for_an_unknown_agent_raises(manager: SubAgentManager, wait: Wait) -> None:
    """A wait for an unknown ref raises the same errors as `get`."""
    with pytest.raises(UnknownAgentError):
        wait(manager, "nobody")
    with pytest.raises(TypeError, match="ref"):
        wait(manager, None)  # type: ignore[arg-type]
    assert_nobody_watches(manager)


@BOTH
def test_a_waiter_by_name_waits_for_the_agent_of_the_call(
    manager: SubAgentManager, wait: Wait
) -> None:
    """A name is resolved at the call; another agent that takes it later does not matter."""
    first = manager.spawn("first", name="a name")
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(wait, manager, "a name")
        until(lambda: waiter_count(manager), "a waiter")
        ended = manager.cancel("a name")
        manager.spawn("second", name="a name")
        assert waited.result() == ended
    assert ended.agent_id == first.agent_id


# --- the end of the manager ---


@BOTH
def test_close_wakes_the_waiters_of_live_agents(manager: SubAgentManager, wait: Wait) -> None:
    """Waiters of live agents get a ClosedError, at close and after it."""
    agent = manager.spawn("work")
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(wait, manager, agent.agent_id)
        until(lambda: waiter_count(manager), "a waiter")
        manager.close()
        with pytest.raises(ClosedError):
            waited.result()
    with pytest.raises(ClosedError):
        wait(manager, agent.agent_id)
    assert_nobody_watches(manager)


@BOTH
def test_close_makes_an_end_durable_and_wakes_its_waiters(
    manager: SubAgentManager, wait: Wait
) -> None:
    """Waiters of an agent that ended before close get the agent."""
    agent = manager.spawn("work")
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(wait, manager, agent.agent_id)
        until(lambda: waiter_count(manager), "a waiter")
        ended = manager.update_from_result(agent.agent_id, DONE)
        manager.close()
        assert waited.result() == ended


@BOTH
def test_a_failed_disk_wakes_all_waiters(
    manager: SubAgentManager, disk: SimulatedDisk, wait: Wait
) -> None:
    """Waiters get a FailedError, whether their agent has ended in memory or not."""
    agents = [manager.spawn("work") for _ in range(2)]
    manager.wait_durable()

    def broken(operation: str, path: str) -> None:
        if operation == "sync":
            raise OSError(errno.EIO, "broken")

    with ThreadPoolExecutor() as pool:
        waits = [pool.submit(wait, manager, agent.agent_id) for agent in agents]
        until(lambda: waiter_count(manager) == 2, "two waiters")
        disk.before = broken
        manager.update_from_result(agents[0].agent_id, DONE)
        for waited in waits:
            with pytest.raises(FailedError):
                waited.result()
    with pytest.raises(FailedError):
        wait(manager, agents[1].agent_id)
    disk.before = None
    with pytest.raises(FailedError):
        manager.close()
    assert_nobody_watches(manager)


def test_commits_do_not_wait_for_the_watch(manager: SubAgentManager) -> None:
    """A commit does not wait for the watch's lock; the watch sees its changes once it is free.

    A signal handler may wait for commits on top of a call that holds the lock.
    """
    agent = manager.spawn("work")
    with ThreadPoolExecutor(1) as pool:
        waited = pool.submit(wait_in_a_thread, manager, agent.agent_id)
        until(lambda: waiter_count(manager) == 1, "the waiter")
        with manager._watch._lock.checked():
            manager.update_from_result(agent.agent_id, DONE)
            for _ in range(2):  # the flusher notifies of one commit before it takes the next
                manager.wait_durable(manager.spawn("more").lsn, timeout_s=10)
            assert not waited.done()
        assert waited.result().status == "completed"


def test_a_dropped_manager_is_garbage_collected(tmp_path: Path) -> None:
    """A watch keeps no manager alive; the journal warns that it was never closed."""
    held = [SubAgentManager.open(tmp_path)]
    agent = held[0].spawn("work")
    with pytest.raises(TimeoutError):
        held[0].wait_ended(agent.agent_id, timeout_s=0)
    manager_ref = weakref.ref(held[0])

    def drop() -> None:
        held.clear()
        gc.collect()

    with pytest.warns(ResourceWarning, match="never closed"):
        drop()
    assert manager_ref() is None
