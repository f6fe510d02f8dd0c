"""The manager on a real journal: what each method requires, changes, keeps and refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manager import (
    Agent,
    AgentResult,
    NameInUseError,
    SubAgentManager,
    TransitionError,
    UnknownAgentError,
)
from manager.agent import ENDED, LIVE, STATUSES, TRANSITIONS, Status
from tests.manager_support import ROOMY, agent_that_is
from tests.support import run

# --- transitions ---

RAN: set[Status] = {"running", "interrupted"}
# The table once more: each method, the status that it leads to, and the statuses that allow it.
VERBS: dict[str, tuple[Callable[[SubAgentManager, str], Agent], Status, set[Status]]] = {
    "start": (lambda m, ref: m.start(ref), "running", {"queued"}),
    "resume": (lambda m, ref: m.resume(ref), "running", {"interrupted"}),
    "update_checkpoint": (
        lambda m, ref: m.update_checkpoint(ref, {"at": 1}, steps_taken=1),
        "running",
        {"running"},
    ),
    "interrupt": (lambda m, ref: m.interrupt(ref, "why"), "interrupted", {"running"}),
    "update_failed": (lambda m, ref: m.update_failed(ref, "broken"), "failed", RAN),
    "answer": (lambda m, ref: m.answer(ref, "yes"), "interrupted", {"interrupted"}),
    "cancel": (lambda m, ref: m.cancel(ref), "cancelled", {"queued", "running", "interrupted"}),
    **{
        f"update_from_result:{status}": (
            lambda m, ref, status=status: m.update_from_result(  # type: ignore[misc]
                ref, AgentResult("out", status=status)
            ),
            status,
            {"running"} if status == "interrupted" else RAN,
        )
        for status in ("completed", "failed", "cancelled", "interrupted", "budget_exhausted")
    },
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("status", STATUSES)
def test_every_method_on_every_status(manager: SubAgentManager, status: Status, verb: str) -> None:
    """A method does what the table says, or raises TransitionError and changes nothing."""
    act, target, sources = VERBS[verb]
    before = agent_that_is(manager, status)
    counts = manager.counts()
    if status in sources:
        after = act(manager, before.agent_id)
        assert after.status == target
        assert after.lsn > before.lsn
        assert (after.ended_at_ms is not None) == (target in ENDED)
        assert manager.get(before.agent_id) == after
        assert manager.counts()[target] == counts[target] + (status != target)
    elif verb == "cancel":
        assert act(manager, before.agent_id) == before == manager.get(before.agent_id)
    else:
        with pytest.raises(TransitionError) as caught:
            act(manager, before.agent_id)
        error = caught.value
        assert (error.agent_id, error.from_status, error.to_status) == (
            before.agent_id,
            status,
            target,
        )
        assert error.allowed == TRANSITIONS[status]
        for word in (before.agent_id, status, target, verb.split(":")[0], *error.allowed):
            assert word in str(error)
        assert manager.get(before.agent_id) == before
        assert manager.counts() == counts


def test_resume_clears_the_question_and_keeps_the_checkpoint(manager: SubAgentManager) -> None:
    """A resumed agent has no reason and no needs_input, and keeps its checkpoint."""
    interrupted = agent_that_is(manager, "interrupted")
    assert (interrupted.reason, interrupted.needs_input) == ("a reason", "?")
    resumed = manager.resume(interrupted.agent_id)
    assert (resumed.reason, resumed.needs_input, resumed.checkpoint) == (None, None, [1])
    again = manager.interrupt(resumed.agent_id, "why")
    assert again.checkpoint == [1]  # checkpoint=None keeps the old one


def test_none_in_a_result_keeps_the_old_value(manager: SubAgentManager) -> None:
    """None in an AgentResult leaves the result, the steps and the checkpoint as they are."""
    agent = manager.spawn("work")
    manager.update_checkpoint(agent.agent_id, {"at": 7}, steps_taken=7)
    part = AgentResult("part", status="interrupted", reason="tokens", needs_input=["more?"])
    stopped = manager.update_from_result(agent.agent_id, part)
    assert (stopped.result, stopped.reason, stopped.needs_input) == ("part", "tokens", ["more?"])
    assert (stopped.steps_taken, stopped.checkpoint) == (7, {"at": 7})
    manager.resume(agent.agent_id)
    failed = manager.update_failed(agent.agent_id, "broken")
    assert (failed.result, failed.reason, failed.steps_taken) == ("part", "broken", 7)


def test_an_update_returns_the_agent_as_of_that_change(
    manager: SubAgentManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update returns the agent as of its own change, whatever other threads have done since."""
    update = manager._state.update

    def overtaken(decide: Any, *, urgent: bool = False) -> int | None:
        lsn = update(decide, urgent=urgent)
        monkeypatch.undo()
        manager.cancel(manager.agents(include_archived=True)[-1].agent_id)
        return lsn

    monkeypatch.setattr(manager._state, "update", overtaken)
    spawned = manager.spawn("one")
    assert (spawned.status, manager.get(spawned.agent_id).status) == ("running", "cancelled")
    agent = manager.spawn("two")
    monkeypatch.setattr(manager._state, "update", overtaken)
    noted = manager.update_checkpoint(agent.agent_id, {"at": 1}, steps_taken=1)
    assert (noted.status, noted.checkpoint, noted.lsn) == ("running", {"at": 1}, agent.lsn + 1)
    assert manager.get(agent.agent_id).status == "cancelled"


# --- refs ---


def test_a_new_id_is_never_one_in_use(
    manager: SubAgentManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id that is in use is drawn again."""
    ids = iter(["agent_000000000001"] * 3 + ["agent_000000000002"])
    monkeypatch.setattr("manager.ids.new_agent_id", lambda: next(ids))
    first, second = manager.spawn("one"), manager.spawn("two")
    assert (first.agent_id, second.agent_id) == ("agent_000000000001", "agent_000000000002")
    assert (second.name, second.prompt) == ("agent_000000000002", "two")
    assert manager.get(first.agent_id) == first


def test_a_forked_process_draws_other_ids() -> None:
    """A forked process seeds its random source anew, and does not draw its parent's ids."""
    script = """
import os
from manager.ids import new_agent_id
child = os.fork()
os.write(1, f"{new_agent_id()}\\n".encode())
if child:
    os.waitpid(child, 0)
"""
    drawn_ids = run(script).stdout.split()
    assert len(set(drawn_ids)) == 2, drawn_ids


def test_an_agent_without_a_name_has_its_id_as_name(manager: SubAgentManager) -> None:
    """An agent_id is `agent_` and 12 hex digits. It is the agent's name too, if none was given."""
    agent = manager.spawn("work")
    assert agent.name == agent.agent_id
    prefix, _, digits = agent.agent_id.partition("_")
    assert (prefix, len(digits), int(digits, 16) >= 0) == ("agent", 12, True)
    assert manager.get(agent.agent_id) == agent


@pytest.mark.parametrize("status", LIVE)
def test_the_names_of_live_agents_are_unique(manager: SubAgentManager, status: Status) -> None:
    """A name belongs to one queued, running or interrupted agent at a time."""
    holder = agent_that_is(manager, status, name="a name")
    with pytest.raises(NameInUseError) as caught:
        manager.spawn("work", name="a name")
    assert (caught.value.agent_id, caught.value.status) == (holder.agent_id, status)
    assert holder.agent_id in str(caught.value)
    assert manager.get("a name") == holder


@pytest.mark.parametrize("status", ENDED)
def test_the_name_of_a_finished_agent_is_free_and_found(
    manager: SubAgentManager, status: Status
) -> None:
    """A name refers to the newest agent that has or had it, and `attempt` counts these agents."""
    first = agent_that_is(manager, status, name="a name")
    assert manager.get("a name") == first
    second = manager.spawn("work", name="a name")
    assert manager.get("a name") == second
    assert manager.get(first.agent_id) == first
    manager.cancel("a name")
    assert manager.get("a name").agent_id == second.agent_id
    third = manager.spawn("work", name="a name", queued=True)
    assert manager.start("a name").agent_id == third.agent_id
    assert [agent.attempt for agent in (first, second, third)] == [1, 2, 3]
    manager.cancel("a name")
    manager.cleanup(0)
    assert manager.spawn("work", name="a name").attempt == 1  # nothing is left of the others


def test_starts_count_each_time_that_an_agent_began_to_run(manager: SubAgentManager) -> None:
    """`starts` counts a spawn that runs, a start and each resumption, and nothing else."""
    queued = manager.spawn("work", name="a name", queued=True)
    assert (queued.starts, queued.attempt) == (0, 1)
    assert manager.start("a name").starts == 1
    assert manager.update_checkpoint("a name", 1, steps_taken=1).starts == 1
    assert manager.interrupt("a name", "later").starts == 1
    assert manager.resume("a name").starts == 2
    assert manager.spawn("work").starts == 1


def test_an_unknown_ref_is_reported_with_the_counts(manager: SubAgentManager) -> None:
    """An UnknownAgentError names the ref and counts the agents that exist."""
    with pytest.raises(UnknownAgentError, match=r"'nobody'.*none"):
        manager.get("nobody")
    manager.spawn("work")
    for call in (manager.get, manager.start, manager.cancel, manager.resume):
        with pytest.raises(UnknownAgentError, match=r"'nobody'.*1 running"):
            call("nobody")
    with pytest.raises(TypeError, match="ref"):
        manager.get(None)  # type: ignore[arg-type]


# --- waiting ---


def test_every_hold_of_the_lock_is_measured(manager: SubAgentManager) -> None:
    """P7: lock_stats counts and measures every hold of the lock, including reads."""
    before = manager.lock_stats()
    ref = manager.spawn("work").agent_id
    manager.get(ref)
    manager.agents()
    manager.counts()
    after = manager.lock_stats()
    assert after.hold.count == before.hold.count + 4
    assert after.wait.count == before.wait.count + 4
    assert after.hold.max > 0


def test_the_manager_serves_an_event_loop(tmp_path: Path) -> None:
    """A coroutine makes every change without waiting, and awaits only `durable` and `room`."""

    async def child(manager: SubAgentManager, number: int) -> int:
        await manager.room()
        agent = manager.spawn(f"task {number}")
        ended = manager.update_from_result(agent.agent_id, AgentResult(str(number)))
        await manager.durable(ended.lsn)
        return ended.lsn

    async def fan_out(manager: SubAgentManager) -> list[int]:
        lsns = await asyncio.gather(*(child(manager, number) for number in range(50)))
        await manager.durable()
        return lsns

    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        lsns = asyncio.run(fan_out(manager))
        assert manager.counts()["completed"] == 50
        assert manager.stats().durable_lsn >= max(lsns)
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.counts()["completed"] == 50
