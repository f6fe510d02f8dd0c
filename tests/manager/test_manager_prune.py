"""Prune: it removes what has ended when it is told to, and nothing that lives."""

from __future__ import annotations

from typing import Any

import pytest

from manager import AgentResult, SubAgentManager, TransitionError, UnknownAgentError
from manager.limits import HOLD_AGENTS_MAX
from tests.manager_support import ids


def end(manager: SubAgentManager, *names: str) -> None:
    for name in names:
        manager.update_from_result(name, AgentResult("done"))


def left(manager: SubAgentManager) -> set[str]:
    return {agent.name for agent in manager.agents(include_archived=True)}


def family(manager: SubAgentManager) -> None:
    manager.spawn("p", name="root")
    manager.spawn("p", name="child", parent_id="root")
    manager.spawn("p", name="grandchild", parent_id="child")
    manager.spawn("p", name="other")


def test_an_ended_agent_goes_with_all_below_it(manager: SubAgentManager) -> None:
    """A pruned agent is removed with its descendants, children before their parents, whether or not
    their results were taken. Others stay."""
    family(manager)
    end(manager, "root", "child", "grandchild", "other")
    assert [agent.name for agent in manager.prune("root")] == ["grandchild", "child", "root"]
    assert left(manager) == {"other"}
    with pytest.raises(UnknownAgentError):
        manager.prune("root")


def test_what_lives_is_not_pruned(manager: SubAgentManager) -> None:
    """An agent that has not ended, or with a descendant that has not, is not pruned. The error
    names the live one, and nothing is removed."""
    family(manager)
    end(manager, "root", "child")
    for ref, live in (("other", "other"), ("root", "grandchild")):
        with pytest.raises(TransitionError, match="prune needs") as raised:
            manager.prune(ref)
        assert raised.value.name == live
    assert len(left(manager)) == 4


def test_agents_that_ended_long_ago_go_together(
    manager: SubAgentManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `ended_for_s`, all agents go that ended at least so long ago. Unlike `cleanup`, this
    cancels no agent without a sign of life, and a parent stays as long as a child of it."""
    now_ms = 1_700_000_000_000
    monkeypatch.setattr("manager.clock.now_ms", lambda: now_ms)
    family(manager)
    end(manager, "root", "child", "grandchild")
    now_ms += 3_600_000
    manager.spawn("p", name="young")
    end(manager, "young")
    monkeypatch.setattr("manager.cleanup.Heartbeats.silence_check", lambda self: lambda row: True)
    assert manager.prune(ended_for_s=3601) == ()
    assert {agent.name for agent in manager.prune(ended_for_s=3600)} == {
        *("root", "child", "grandchild"),
    }
    assert left(manager) == {"other", "young"}
    assert manager.get("other").status == "running"


@pytest.mark.parametrize("remove", ["prune", "cleanup"])
def test_an_agent_that_ended_before_the_clock_was_set_back_goes(
    manager: SubAgentManager, monkeypatch: pytest.MonkeyPatch, remove: str
) -> None:
    """An age of 0 means all ended agents, also those whose end is in the future by the clock. With
    any other age, such an agent stays."""
    now_ms = 1_700_000_000_000
    monkeypatch.setattr("manager.clock.now_ms", lambda: now_ms)
    manager.spawn("p", name="early")
    end(manager, "early")
    now_ms -= 5000
    removals = {"prune": lambda s: manager.prune(ended_for_s=s), "cleanup": manager.cleanup}
    assert removals[remove](0.001) == ()
    assert [agent.name for agent in removals[remove](0)] == ["early"]


def test_a_child_that_comes_meanwhile_is_seen(
    manager: SubAgentManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that is spawned while its parent is pruned keeps it, and the error names it."""
    family(manager)
    end(manager, "other")
    search = manager._rows

    def rows() -> Any:
        found = list(search())
        monkeypatch.undo()
        manager.spawn("p", name="late", parent_id="other")
        return found

    monkeypatch.setattr(manager, "_rows", rows)
    with pytest.raises(TransitionError) as raised:
        manager.prune("other")
    assert raised.value.name == "late"
    assert "other" in left(manager)


def test_a_prune_holds_the_lock_for_a_slice_at_a_time(
    manager: SubAgentManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many agents go, one hold of the lock removes a bounded number of them."""
    parent = manager.spawn("p").agent_id
    for _ in range(2 * HOLD_AGENTS_MAX):
        end(manager, manager.spawn("p", parent_id=parent).agent_id)
    end(manager, parent)
    sizes: list[int] = []
    update_many = manager._updates.update_many

    def counted(*arguments: Any, **more: Any) -> Any:
        rows = update_many(*arguments, **more)
        sizes.append(len(rows))
        return rows

    monkeypatch.setattr(manager._updates, "update_many", counted)
    assert len(ids(manager.prune(parent))) == 2 * HOLD_AGENTS_MAX + 1
    assert sizes == [HOLD_AGENTS_MAX, HOLD_AGENTS_MAX, 1]


def test_a_prune_says_what_it_is_to_remove(manager: SubAgentManager) -> None:
    """Exactly one of the two arguments is given, so that nothing is removed by mistake."""
    with pytest.raises(ValueError, match="give one of them"):
        manager.prune()
    with pytest.raises(ValueError, match="give one of them"):
        manager.prune("a", ended_for_s=1)
    with pytest.raises(ValueError, match="ended_for_s"):
        manager.prune(ended_for_s=-1)
