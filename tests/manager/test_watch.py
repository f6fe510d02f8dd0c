"""Waiting for an agent's end: one wake-up each, when it is durable, and nothing left behind."""

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
    in_a_loop,
    in_a_thread,
    waiting,
)
from tests.support import TIMEOUT_S, Held, until

Wait = Callable[[SubAgentManager, str], Agent]


BOTH = pytest.mark.parametrize("wait", [in_a_thread, in_a_loop])


@BOTH
@pytest.mark.parametrize("status", ENDED)
def test_wait_ended_returns_the_agent_as_it_ended(
    manager: SubAgentManager, wait: Wait, status: Status
) -> None:
    """Whichever end it was, and though nothing else asked for a commit."""
    agent = manager.spawn("work", name="a name")
    with ThreadPoolExecutor() as pool:
        waits = [pool.submit(wait, manager, ref) for ref in (agent.agent_id, "a name")]
        until(lambda: waiting(manager) == 2, "two waiters")
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
    """P2: of an agent that ended before the call, too; then it returns at once, closed or not."""
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
    """P2: the end is in memory, its sync is held up, and whoever waits does so."""
    agent = manager.spawn("work")
    manager.wait_durable()
    order: list[str] = []

    def waited() -> None:
        wait(manager, agent.agent_id)
        order.append("woken")

    thread = threading.Thread(target=waited)
    if before:
        thread.start()
        until(lambda: waiting(manager), "a waiter")
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
def test_an_end_just_before_it_is_known_to_wait_is_not_slept_over(
    manager: SubAgentManager, wait: Wait, removed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking the agent up and waiting for it, it may end, and even be removed."""
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


def test_a_commit_wakes_for_what_is_in_it_and_no_more(
    manager: SubAgentManager, disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: an agent that ends while another's end is being synced belongs to the next commit."""
    agents = [manager.spawn("work").agent_id for _ in range(2)]
    manager.wait_durable()
    woken: list[str] = []

    def noted(groups: Any) -> None:
        woken.extend(row[0] for row, _ in groups)
        wake(groups)

    monkeypatch.setattr("manager.watch.wake", noted)
    with ThreadPoolExecutor() as pool, Held(disk, "sync", ".seg") as held:
        waits = [pool.submit(in_a_thread, manager, ref) for ref in agents]
        until(lambda: waiting(manager) == 2, "two waiters")
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


def test_a_time_limit_leaves_nothing_behind(manager: SubAgentManager) -> None:
    """TimeoutError names the agent; before its end, and between that and its being durable."""
    agent = manager.spawn("work", name="a name")
    with pytest.raises(TimeoutError, match=rf"{agent.agent_id} \(name 'a name'\) has not ended"):
        manager.wait_ended("a name", timeout_s=0.001)
    with pytest.raises(TimeoutError):
        manager.wait_ended("a name", timeout_s=-1)
    assert_nobody_watches(manager)


def test_an_end_that_never_gets_durable_is_bounded_too(
    manager: SubAgentManager, disk: SimulatedDisk
) -> None:
    """The time limit is for both together, whichever takes so long."""
    agent = manager.spawn("work")
    manager.wait_durable()
    with Held(disk, "sync", ".seg") as held, ThreadPoolExecutor() as pool:
        waited = pool.submit(manager.wait_ended, agent.agent_id, timeout_s=0.2)
        until(lambda: waiting(manager), "a waiter")
        manager.update_from_result(agent.agent_id, DONE)
        with pytest.raises(TimeoutError):
            waited.result()
        with pytest.raises(TimeoutError):
            manager.wait_ended(agent.agent_id, timeout_s=0.001)
        held.release_all()
    assert manager.wait_ended(agent.agent_id, timeout_s=TIMEOUT_S).result == "done"


@BOTH
def test_waiting_for_an_unknown_agent_raises(manager: SubAgentManager, wait: Wait) -> None:
    """As `get` does."""
    with pytest.raises(UnknownAgentError):
        wait(manager, "nobody")
    with pytest.raises(TypeError, match="ref"):
        wait(manager, None)  # type: ignore[arg-type]
    assert_nobody_watches(manager)


@BOTH
def test_a_name_means_the_agent_that_had_it_at_the_call(
    manager: SubAgentManager, wait: Wait
) -> None:
    """Waiters belong to an agent: another that takes the name later is another's business."""
    first = manager.spawn("first", name="a name")
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(wait, manager, "a name")
        until(lambda: waiting(manager), "a waiter")
        ended = manager.cancel("a name")
        manager.spawn("second", name="a name")
        assert waited.result() == ended
    assert ended.agent_id == first.agent_id


# --- the end of the manager ---


@BOTH
def test_close_wakes_those_who_would_wait_for_ever(manager: SubAgentManager, wait: Wait) -> None:
    """ClosedError, then and later; the agent still runs, until the next open."""
    agent = manager.spawn("work")
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(wait, manager, agent.agent_id)
        until(lambda: waiting(manager), "a waiter")
        manager.close()
        with pytest.raises(ClosedError):
            waited.result()
    with pytest.raises(ClosedError):
        wait(manager, agent.agent_id)
    assert_nobody_watches(manager)


@BOTH
def test_close_makes_an_end_durable_and_tells(manager: SubAgentManager, wait: Wait) -> None:
    """What ended before the close is no loss to those who waited for it."""
    agent = manager.spawn("work")
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(wait, manager, agent.agent_id)
        until(lambda: waiting(manager), "a waiter")
        ended = manager.update_from_result(agent.agent_id, DONE)
        manager.close()
        assert waited.result() == ended


@BOTH
def test_a_failed_disk_wakes_everybody(
    manager: SubAgentManager, disk: SimulatedDisk, wait: Wait
) -> None:
    """FailedError: for who waits for one that has ended, and one that can't any more."""
    agents = [manager.spawn("work") for _ in range(2)]
    manager.wait_durable()

    def broken(operation: str, path: str) -> None:
        if operation == "sync":
            raise OSError(errno.EIO, "broken")

    with ThreadPoolExecutor() as pool:
        waits = [pool.submit(wait, manager, agent.agent_id) for agent in agents]
        until(lambda: waiting(manager) == 2, "two waiters")
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
    """A signal handler may wait for commits on top of a call that holds the watch's lock. What the
    commits would have told the watch, it finds out once the lock is free."""
    agent = manager.spawn("work")
    with ThreadPoolExecutor(1) as pool:
        waited = pool.submit(in_a_thread, manager, agent.agent_id)
        until(lambda: waiting(manager) == 1, "the waiter")
        with manager._watch._lock.checked():
            manager.update_from_result(agent.agent_id, DONE)
            for _ in range(2):  # the flusher tells of one commit before it takes the next
                manager.wait_durable(manager.spawn("more").lsn, timeout_s=10)
            assert not waited.done()
        assert waited.result().status == "completed"


def test_a_dropped_manager_is_collected(tmp_path: Path) -> None:
    """Watching keeps alive nobody that would not live otherwise: the journal says so, and ends."""
    held = [SubAgentManager.open(tmp_path)]
    agent = held[0].spawn("work")
    with pytest.raises(TimeoutError):
        held[0].wait_ended(agent.agent_id, timeout_s=0)
    left = weakref.ref(held[0])

    def drop() -> None:
        held.clear()
        gc.collect()

    with pytest.warns(ResourceWarning, match="never closed"):
        drop()
    assert left() is None
