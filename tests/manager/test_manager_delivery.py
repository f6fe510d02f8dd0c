"""Delivery: a child's result stays in its parent's inbox until exactly one taker has it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from journal import ClosedError
from manager import Agent, AgentResult, AlreadyTakenError, SubAgentManager, TransitionError
from tests.manager_support import ROOMY, assert_nobody_watches
from tests.support import TIMEOUT_S


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[SubAgentManager]:
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        manager.spawn("lead", name="lead")
        yield manager


def children(manager: SubAgentManager, count: int) -> list[Agent]:
    return [manager.spawn("part", name=f"part {n}", parent_id="lead") for n in range(count)]


def finish(manager: SubAgentManager, ref: str) -> Agent:
    return manager.update_from_result(ref, AgentResult(f"result of {ref}"))


def names(agents: list[Agent]) -> list[str]:
    return [agent.name for agent in agents]


def test_the_inbox_lists_ends_that_were_not_taken(tmp_path: Path) -> None:
    """P2: The inbox has the ended children of every final status, in the order of their ends, and
    survives restarts and compactions."""
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        manager.spawn("lead", name="lead")
        children(manager, 4)
        manager.spawn("of another", name="other", parent_id="part 3")
        assert manager.inbox("lead") == []
        finish(manager, "part 2")
        manager.update_failed("part 0", "broken")
        manager.cancel("part 1")
        finish(manager, "other")
        assert names(manager.inbox("lead")) == ["part 2", "part 0", "part 1"]
        assert manager.take("part 0", by="lead").taken_by == manager.get("lead").agent_id
        manager.compact()
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        assert names(manager.inbox("lead")) == ["part 2", "part 1"]
        assert names(manager.inbox("part 3")) == ["other"]
        taken = manager.take("part 2", by="part 3")  # by any agent
        assert taken.taken_by == manager.get("part 3").agent_id
        assert taken.taken_at_ms == taken.updated_at_ms
        assert manager.get("part 2") == taken
        manager.cleanup(0)
        assert manager.inbox("lead") == []


def test_a_result_has_one_taker(manager: SubAgentManager) -> None:
    """The second taker gets an error that names the first one, and nothing changes."""
    (child,) = children(manager, 1)
    finish(manager, "part 0")
    taken = manager.take("part 0", by="lead")
    rival = manager.spawn("rival", name="rival")
    for by in ("rival", "lead"):
        with pytest.raises(AlreadyTakenError) as caught:
            manager.take("part 0", by=by, checkpoint={"took": 1})
        lead_id = manager.get("lead").agent_id
        assert (caught.value.agent_id, caught.value.taken_by) == (child.agent_id, lead_id)
        assert caught.value.taken_at_ms == taken.taken_at_ms
        assert lead_id in str(caught.value)
    assert manager.get("rival") == rival


def test_of_racing_takers_one_wins(manager: SubAgentManager) -> None:
    """Many threads that take the same results get each result once in all."""
    children(manager, 20)
    for number in range(20):
        finish(manager, f"part {number}")
        manager.spawn("taker", name=f"taker {number}")
    won: list[tuple[str, str]] = []

    def take_all(by: str) -> None:
        for agent in manager.inbox("lead"):
            try:
                manager.take(agent.agent_id, by=by, checkpoint=agent.name)
            except AlreadyTakenError:
                continue
            won.append((agent.name, by))

    threads = [threading.Thread(target=take_all, args=(f"taker {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert sorted(name for name, _ in won) == sorted(f"part {n}" for n in range(20))
    for name, by in won:
        assert manager.get(name).taken_by == manager.get(by).agent_id


def test_a_take_with_a_checkpoint_is_one_change(manager: SubAgentManager) -> None:
    """The taking and the taker's checkpoint are one batch. If one is refused, neither is made."""
    children(manager, 2)
    finish(manager, "part 0")
    manager.update_checkpoint("lead", {"sum": 0}, steps_taken=3)
    taken = manager.take("part 0", by="lead", checkpoint={"sum": 1})
    lead = manager.get("lead")
    assert (lead.checkpoint, lead.steps_taken, lead.lsn) == ({"sum": 1}, 3, taken.lsn + 1)
    before = finish(manager, "part 1")
    with pytest.raises(TypeError, match="checkpoint"):
        manager.take("part 1", by="lead", checkpoint=object())
    manager.interrupt("lead", "why")
    with pytest.raises(TransitionError, match="needs a running agent"):
        manager.take("part 1", by="lead", checkpoint={"sum": 2}, steps_taken=9)
    assert manager.get("part 1") == before
    assert manager.take("part 1", by="lead").taken_by == lead.agent_id  # after acting on it


def test_steps_without_a_checkpoint_are_refused(manager: SubAgentManager) -> None:
    """Steps without a checkpoint are refused: the taker would lose the checkpoint that it has."""
    children(manager, 1)
    finish(manager, "part 0")
    manager.update_checkpoint("lead", {"sum": 0}, steps_taken=3)
    with pytest.raises(ValueError, match="pass both, or neither"):
        manager.take("part 0", by="lead", steps_taken=4)
    with pytest.raises(ValueError, match="pass both, or neither"), manager.transaction() as t:
        t.take("part 0", by="lead", steps_taken=4)
    assert manager.get("lead").checkpoint == {"sum": 0}
    assert manager.get("part 0").taken_by is None


def test_only_an_ended_agent_is_taken(manager: SubAgentManager) -> None:
    """A live agent has no result to take, and no agent takes its own."""
    children(manager, 1)
    with pytest.raises(TransitionError, match="take needs an ended agent to make it taken"):
        manager.take("part 0", by="lead")
    finish(manager, "part 0")
    with pytest.raises(ValueError, match="another agent"):
        manager.take("part 0", by="part 0")


def test_a_transaction_takes_a_result_with_rows(manager: SubAgentManager) -> None:
    """In a transaction, a taking, the taker's checkpoint and rows are one change."""
    children(manager, 1)
    finish(manager, "part 0")
    with manager.transaction() as t:
        t.take("part 0", by="lead", checkpoint={"sum": 1}, steps_taken=1)
        t[manager.tables.table("sums")].insert("part 0", 1)
    assert manager.get("part 0").taken_by == manager.get("lead").agent_id
    assert (manager.get("lead").checkpoint, manager.get("lead").steps_taken) == ({"sum": 1}, 1)

    def again() -> None:
        with manager.transaction() as t:
            t[manager.tables.table("sums")].insert("part 0 again", 1)
            t.take("part 0", by="lead")

    with pytest.raises(AlreadyTakenError):
        again()
    assert [*manager.tables.table("sums")] == ["part 0"]
    assert manager.inbox("lead") == []


def test_a_waiter_gets_the_next_durable_result(manager: SubAgentManager) -> None:
    """P2: `wait_inbox` returns once a child's end is durable, and at once if none can come."""
    assert manager.wait_inbox("lead", timeout_s=TIMEOUT_S) == []
    children(manager, 2)
    with pytest.raises(TimeoutError, match="no child of agent 'lead'"):
        manager.wait_inbox("lead", timeout_s=0)
    got: list[Agent] = []
    thread = threading.Thread(target=lambda: got.extend(manager.wait_inbox("lead")))
    thread.start()
    ended = finish(manager, "part 1")
    thread.join(TIMEOUT_S)
    assert names(got) == ["part 1"]
    assert manager.stats().durable_lsn >= ended.lsn
    manager.take("part 1", by="lead")
    manager.cancel("part 0")
    assert names(manager.wait_inbox("lead", timeout_s=TIMEOUT_S)) == ["part 0"]
    assert_nobody_watches(manager)


def test_the_iterator_yields_each_result_once_and_ends(manager: SubAgentManager) -> None:
    """`results` yields results as they come, durable and each once, taken or not, until no child
    is live."""
    children(manager, 5)

    async def work() -> None:
        for number in (3, 1, 4, 0, 2):
            await asyncio.sleep(0)
            finish(manager, f"part {number}")

    async def main() -> list[str]:
        got = []
        async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
            group.create_task(work())
            async for agent in manager.results("lead"):
                assert manager.stats().durable_lsn >= agent.lsn
                if agent.name != "part 4":
                    manager.take(agent.agent_id, by="lead")
                got.append(agent.name)
        return got

    assert asyncio.run(main()) == [f"part {number}" for number in (3, 1, 4, 0, 2)]
    assert names(manager.inbox("lead")) == ["part 4"]
    assert_nobody_watches(manager)


def test_a_result_that_another_has_taken_is_not_yielded(manager: SubAgentManager) -> None:
    """An iterator does not yield a result that was taken after it was read."""
    children(manager, 2)
    finish(manager, "part 0")
    finish(manager, "part 1")

    async def main() -> list[str]:
        got = []
        async for agent in manager.results("lead"):
            assert manager.stats().durable_lsn >= agent.lsn
            got.append(agent.name)
            manager.take("part 1", by="lead")
        return got

    assert asyncio.run(main()) == ["part 0"]


def test_waiters_for_results_end_with_the_manager(tmp_path: Path) -> None:
    """A close wakes those who wait for a result, with ClosedError."""
    manager = SubAgentManager.open(tmp_path, limits=ROOMY)
    manager.spawn("lead", name="lead")
    children(manager, 1)

    async def main() -> None:
        task = asyncio.ensure_future(anext(manager.results("lead")))
        await asyncio.sleep(0)
        await asyncio.to_thread(manager.close)
        with pytest.raises(ClosedError):
            async with asyncio.timeout(TIMEOUT_S):
                await task

    asyncio.run(main())
