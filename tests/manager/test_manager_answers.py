"""Answers, budgets and ends of interrupted agents: no agent is left without a way on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from manager import AgentResult, BudgetError, Limits, SubAgentManager, TransitionError
from manager.agent import ENDED, Status


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[SubAgentManager]:
    with SubAgentManager.open(tmp_path) as manager:
        yield manager


def test_an_answer_survives_until_the_next_question(tmp_path: Path) -> None:
    """P2: The question and its answer survive restarts, before and after the resumption. The next
    question clears the answer."""
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("ask", name="asker")
        manager.interrupt("asker", "waits", needs_input="red or blue?")
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.get("asker").needs_input == "red or blue?"
        assert manager.answer("asker", ["red"]).answer == ["red"]
        answered = manager.answer("asker", ["blue"])
        assert (answered.status, answered.answer) == ("interrupted", ["blue"])
        manager.compact()
    with SubAgentManager.open(tmp_path) as manager:
        resumed = manager.resume("asker")
        assert (resumed.needs_input, resumed.answer) == (None, ["blue"])
    with SubAgentManager.open(tmp_path) as manager:  # the runner died before it used the answer
        assert manager.resume("asker").answer == ["blue"]
        assert manager.interrupt("asker", "why").answer == ["blue"]
        manager.resume("asker")
        assert manager.interrupt("asker", "waits", needs_input="and now?").answer is None
        manager.answer("asker", 1)
        manager.resume("asker")
        again = manager.update_from_result(
            "asker", AgentResult(None, status="interrupted", needs_input="?")
        )
        assert again.answer is None


def test_an_answer_of_none_is_refused(manager: SubAgentManager) -> None:
    """None means that there is no answer, so it can't be one."""
    manager.spawn("ask", name="asker")
    manager.interrupt("asker", "waits", needs_input="?")
    with pytest.raises(ValueError, match="answer must not be None"):
        manager.answer("asker", None)


def test_a_resumption_replaces_checkpoint_and_budget_in_one_record(
    manager: SubAgentManager,
) -> None:
    """A checkpoint and a budget given to `resume` replace the agent's; None keeps them."""
    manager.spawn("work", name="a", token_budget=10)
    before = manager.interrupt("a", "why", checkpoint={"at": 1})
    kept = manager.resume("a")
    assert (kept.checkpoint, kept.token_budget) == ({"at": 1}, 10)
    manager.interrupt("a", "why")
    replaced = manager.resume("a", checkpoint={"at": 0}, token_budget=20)
    assert (replaced.checkpoint, replaced.token_budget) == ({"at": 0}, 20)
    assert replaced.lsn == before.lsn + 3


def test_a_spent_budget_can_be_raised(tmp_path: Path) -> None:
    """A fleet over its budget continues after a restart, as soon as the budget is raised."""
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("lead", name="lead", token_budget=100)
        manager.spawn("part", name="part", parent_id="lead")
        manager.record_usage("part", input_tokens=200, output_tokens=0)
    with SubAgentManager.open(tmp_path) as manager:
        for ref in ("lead", "part"):
            with pytest.raises(BudgetError, match="raise the budget"):
                manager.resume(ref)
        with pytest.raises(BudgetError):
            manager.resume("part", token_budget=1000)  # the budget of its parent is spent
        with pytest.raises(BudgetError):
            manager.resume("lead", token_budget=200)
        assert manager.resume("lead", token_budget=201).token_budget == 201
        assert manager.resume("part").status == "running"
        assert manager.set_token_budget("lead", None).token_budget is None


@pytest.mark.parametrize("status", ENDED)
def test_an_interrupted_agent_may_end_with_its_partial_result(
    tmp_path: Path, status: Status
) -> None:
    """An agent that a restart has interrupted may end in each final status, without a resume."""
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("work", name="a")
    with SubAgentManager.open(tmp_path) as manager:
        ended = manager.update_from_result("a", AgentResult("partial", status=status))
        assert (ended.status, ended.result, ended.starts) == (status, "partial", 1)


def test_an_interrupted_agent_is_not_interrupted_again(manager: SubAgentManager) -> None:
    """A late interruption changes nothing, and its refusal names what the method needs."""
    manager.spawn("work", name="a")
    before = manager.interrupt("a", "first", needs_input="what?")
    late = AgentResult("late", status="interrupted", needs_input="other?")
    with pytest.raises(TransitionError, match="needs a running agent to make it interrupted"):
        manager.update_from_result("a", late)
    with pytest.raises(TransitionError, match="update_checkpoint needs a running agent; this one"):
        manager.update_checkpoint("a", 1, steps_taken=1)
    assert manager.get("a") == before


def test_a_cancellation_has_a_reason(manager: SubAgentManager) -> None:
    """The reason of a cancellation is stored for the agent and for its descendants."""
    manager.spawn("lead", name="lead")
    child = manager.spawn("part", parent_id="lead")
    assert manager.cancel("lead", reason="no need", descendants=True).reason == "no need"
    assert manager.get(child.agent_id).reason == "no need"
    manager.spawn("other", name="other")
    assert manager.cancel("other", reason="x").reason == "x"
    manager.spawn("third", name="third")
    with manager.transaction() as t:
        t.cancel("third", reason="in a transaction")
    assert manager.get("third").reason == "in a transaction"


def test_steps_never_fall(manager: SubAgentManager) -> None:
    """A lower number of steps leaves the agent's as it is, in each method and in a transaction."""
    manager.spawn("work", name="a")
    assert manager.update_checkpoint("a", 1, steps_taken=5).steps_taken == 5
    lower = manager.update_checkpoint("a", 2, steps_taken=3)
    assert (lower.steps_taken, lower.checkpoint) == (5, 2)
    with manager.transaction() as t:
        t.update_checkpoint("a", 3, steps_taken=4)
    assert manager.get("a").steps_taken == 5
    with manager.transaction() as t:
        t.update_checkpoint("a", 4, steps_taken=8)
        t.update_checkpoint("a", 5, steps_taken=7)
    assert (manager.get("a").steps_taken, manager.get("a").checkpoint) == (8, 5)
    ended = manager.update_from_result("a", AgentResult("done", steps_taken=2))
    assert ended.steps_taken == 8
    manager.compact()


@pytest.mark.parametrize("steps", [7, 8])
def test_steps_never_fall_after_a_restart(tmp_path: Path, steps: int) -> None:
    """P6: The steps in the log are those that were reported, so a replay gives the live state."""
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("work", name="a")
        manager.update_checkpoint("a", 1, steps_taken=8)
        manager.update_checkpoint("a", 2, steps_taken=steps)
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.get("a").steps_taken == 8


def test_a_checkpoint_is_bounded(tmp_path: Path) -> None:
    """An agent's checkpoint over `checkpoint_bytes_max` is refused in each method, and a result of
    any size is not."""
    with SubAgentManager.open(tmp_path, limits=Limits(checkpoint_bytes_max=100)) as manager:
        manager.spawn("work", name="a")
        fits, too_large = "x" * 98, "x" * 99  # two bytes are their head
        assert manager.update_checkpoint("a", fits, steps_taken=1).checkpoint == fits
        match = "101 bytes, over checkpoint_bytes_max=100"
        with pytest.raises(ValueError, match=match):
            manager.update_checkpoint("a", too_large, steps_taken=2)
        with pytest.raises(ValueError, match=match):
            manager.interrupt("a", "why", checkpoint=too_large)
        with pytest.raises(ValueError, match=match):
            manager.update_from_result("a", AgentResult("x", checkpoint=too_large))
        with pytest.raises(ValueError, match=match), manager.transaction() as t:
            t.update_checkpoint("a", too_large, steps_taken=2)
        manager.interrupt("a", "why" * 100)
        with pytest.raises(ValueError, match=match):
            manager.resume("a", checkpoint=too_large)
        assert manager.get("a").steps_taken == 1
        assert manager.update_from_result("a", AgentResult("x" * 1000)).status == "completed"


def test_steps_do_not_fall_in_a_race(
    manager: SubAgentManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps are compared under the lock, with those that another thread has just reported."""
    manager.spawn("work", name="a")
    stale = manager._state.machine.find("a")
    manager.update_checkpoint("a", 1, steps_taken=5)
    monkeypatch.setattr(manager._state.machine, "prefetch", lambda ref: stale)
    assert manager.update_checkpoint("a", 2, steps_taken=3).steps_taken == 5


def test_steps_of_an_agent_are_not_those_of_the_last_one_of_its_name(
    manager: SubAgentManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that finds a newer agent of the name than it looked up first has its own steps."""
    manager.spawn("work", name="a")
    manager.update_checkpoint("a", 1, steps_taken=5)
    manager.update_from_result("a", AgentResult("done"))
    stale = manager._state.machine.find("a")
    lead = manager.spawn("work", name="a")
    child = manager.spawn("part", parent_id="a")
    manager.update_from_result(child.agent_id, AgentResult("part"))
    found = manager._state.machine.found
    monkeypatch.setattr(
        manager._state.machine, "prefetch", lambda ref: stale if ref == "a" else found(ref)
    )
    assert manager.update_checkpoint("a", 2, steps_taken=3).steps_taken == 3
    manager.take(child.agent_id, by="a", checkpoint=3)
    assert manager.get(lead.agent_id).steps_taken == 3
