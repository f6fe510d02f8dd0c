"""Tokens and budgets: usage counts for all ancestors, and a spent budget stops every start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager import Agent, AgentResult, BudgetError, SubAgentManager, TransitionError
from manager.agent import ENDED, STATUSES, Status
from tests.manager.fleet_support import manager_in_memory
from tests.manager_support import ROOMY, agent_that_is


def use(manager: SubAgentManager, ref: str, tokens: int) -> Agent:
    return manager.record_usage(ref, input_tokens=tokens, output_tokens=0)


@given(
    st.lists(st.none() | st.integers(0, 9), min_size=1, max_size=10),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99), st.integers(0, 99)), max_size=20),
)
def test_usage_counts_for_all_ancestors(
    parents: list[int | None], usages: list[tuple[int, int, int]]
) -> None:
    """An agent's tokens_used is the sum of its own and its descendants', each counted once."""
    manager, _ = manager_in_memory()
    agents: list[Agent] = []
    for parent in parents:
        above = agents[parent % len(agents)].agent_id if agents and parent is not None else None
        agents.append(manager.spawn("p", parent_id=above))
    own = dict.fromkeys((agent.agent_id for agent in agents), 0)
    for number, tokens_in, tokens_out in usages:
        ref = agents[number % len(agents)].agent_id
        manager.record_usage(ref, input_tokens=tokens_in, output_tokens=tokens_out)
        own[ref] += tokens_in + tokens_out

    def total(agent_id: str) -> int:
        children = [agent.agent_id for agent in agents if agent.parent_id == agent_id]
        return own[agent_id] + sum(map(total, children))

    assert {a.agent_id: manager.get(a.agent_id).tokens_used for a in agents} == {
        agent.agent_id: total(agent.agent_id) for agent in agents
    }


def test_tokens_of_a_result_count_as_usage(manager: SubAgentManager) -> None:
    """The tokens of an AgentResult are added to the usage recorded before."""
    root = manager.spawn("root")
    child = manager.spawn("child", parent_id=root.agent_id)
    assert use(manager, child.agent_id, 10).tokens_used == 10
    result = AgentResult("done", input_tokens=3, output_tokens=4)
    ended = manager.update_from_result(child.agent_id, result)
    above = manager.get(root.agent_id)
    assert (ended.tokens_used, above.tokens_used) == (17, 17)
    assert (above.lsn, above.updated_at_ms) == (ended.lsn, root.updated_at_ms)


@pytest.mark.parametrize("status", STATUSES)
def test_usage_changes_no_status(manager: SubAgentManager, status: Status) -> None:
    """Usage is counted in every status of an agent, and ends no agent."""
    agent = agent_that_is(manager, status, token_budget=5)
    counts = manager.counts()
    after = use(manager, agent.agent_id, 100)
    assert (after.status, after.tokens_used, after.reason) == (status, 100, agent.reason)
    assert after.ended_at_ms == agent.ended_at_ms
    assert manager.counts() == counts


def test_spending_the_budget_ends_no_agent(manager: SubAgentManager) -> None:
    """A spent budget ends no agent by itself; the harness ends it with its partial result."""
    ref = manager.spawn("work", token_budget=10).agent_id
    assert use(manager, ref, 11).status == "running"
    assert manager.update_checkpoint(ref, [1], steps_taken=1).status == "running"
    part = AgentResult("half of it", status="budget_exhausted", reason="10 tokens")
    ended = manager.update_from_result(ref, part)
    assert (ended.status, ended.result, ended.tokens_used) == ("budget_exhausted", "half of it", 11)


ATTEMPTS: dict[str, Callable[[SubAgentManager, str, str], Agent]] = {
    "spawn": lambda m, parent, _: m.spawn("new", parent_id=parent),
    "spawn queued": lambda m, parent, _: m.spawn("new", parent_id=parent, queued=True),
    "start": lambda m, _, ref: m.start(ref),
    "resume": lambda m, _, ref: m.resume(ref),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("owner", ["its own", "its parent's", "the root's"])
@pytest.mark.parametrize("ended", [False, True])
def test_no_agent_starts_under_a_spent_budget(
    manager: SubAgentManager, attempt: str, owner: str, ended: bool
) -> None:
    """A BudgetError of spawn, start or resume names the owner of the budget and changes nothing.

    The last token spends a budget. The budget of an ancestor that has ended still counts.
    """
    budgets = {owner: 100}
    root = manager.spawn("root", name="root", token_budget=budgets.get("the root's"))
    middle = manager.spawn(
        "middle", parent_id=root.agent_id, token_budget=budgets.get("its parent's")
    )
    leaf = manager.spawn(
        "leaf",
        parent_id=middle.agent_id,
        token_budget=budgets.get("its own"),
        queued=attempt == "start",
    )
    if attempt == "resume":
        manager.interrupt(leaf.agent_id, "later")
    if ended:
        manager.cancel(root.agent_id)
        manager.cancel(middle.agent_id)
    spender = {"its own": leaf, "its parent's": middle, "the root's": root}[owner]
    parent = leaf if owner == "its own" and attempt.startswith("spawn") else middle
    use(manager, spender.agent_id, 99)
    use(manager, spender.agent_id, 1)
    before = manager.agents(), manager.counts()
    with pytest.raises(BudgetError) as caught:
        ATTEMPTS[attempt](manager, parent.agent_id, leaf.agent_id)
    error = caught.value
    assert (error.agent_id, error.name) == (spender.agent_id, spender.name)
    assert (error.token_budget, error.tokens_used) == (100, 100)
    assert "has used 100 tokens of its budget of 100" in str(error)
    assert "=" not in str(error)  # a user of `subagents` reads it, too
    assert spender.agent_id in str(error)
    assert (manager.agents(), manager.counts()) == before


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_budget_with_one_token_left_allows_every_start(
    manager: SubAgentManager, attempt: str
) -> None:
    """A budget is spent by its last token, not before. A spent budget elsewhere does not matter."""
    root = manager.spawn("root", token_budget=100)
    leaf = manager.spawn("leaf", parent_id=root.agent_id, queued=attempt == "start")
    if attempt == "resume":
        manager.interrupt(leaf.agent_id, "later")
    use(manager, leaf.agent_id, 99)
    use(manager, manager.spawn("other", token_budget=1).agent_id, 1)
    assert ATTEMPTS[attempt](manager, root.agent_id, leaf.agent_id).lsn > leaf.lsn


@pytest.mark.parametrize("status", ENDED)
def test_an_ended_agent_is_refused_for_its_status_not_its_budget(
    manager: SubAgentManager, status: Status
) -> None:
    """A forbidden transition is refused before the budget is checked."""
    agent = agent_that_is(manager, status, token_budget=1)
    use(manager, agent.agent_id, 1)
    for attempt in (manager.start, manager.resume):
        with pytest.raises(TransitionError):
            attempt(agent.agent_id)


@pytest.mark.parametrize(
    "bad", [{"input_tokens": -1}, {"output_tokens": 1.5}, {"input_tokens": 2**64}]
)
def test_bad_usage_is_named(manager: SubAgentManager, bad: dict[str, Any]) -> None:
    """Tokens are whole numbers from 0.

    Any other value is refused by name, and nothing is journaled.
    """
    agent = manager.spawn("work")
    with pytest.raises((TypeError, ValueError), match=next(iter(bad))):
        manager.record_usage(agent.agent_id, **({"input_tokens": 0, "output_tokens": 0} | bad))
    assert manager.get(agent.agent_id) == agent


def test_token_counts_saturate_at_64_bits(tmp_path: Path) -> None:
    """A checkpoint holds at most 2^64 - 1 tokens, so counts stop there, for ancestors too."""
    most = 2**64 - 1
    with SubAgentManager.open(tmp_path) as manager:
        root = manager.spawn("root").agent_id
        child = manager.spawn("child", parent_id=root).agent_id
        use(manager, root, 1)
        assert use(manager, child, most).tokens_used == most
        assert manager.get(root).tokens_used == most
        result = AgentResult("x", input_tokens=most, output_tokens=most)
        assert manager.update_from_result(child, result).tokens_used == most
        manager.compact()
    with SubAgentManager.open(tmp_path) as manager:
        assert [manager.get(ref).tokens_used for ref in (root, child)] == [most, most]


def test_tokens_survive_checkpoint_and_restart(tmp_path: Path) -> None:
    """P6: Records and checkpoints contain the usage of each agent."""
    with SubAgentManager.open(tmp_path) as manager:
        root = manager.spawn("root", token_budget=50)
        child = manager.spawn("child", parent_id=root.agent_id, queued=True)
        use(manager, child.agent_id, 20)
        manager.compact()
        use(manager, child.agent_id, 30)
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.get(root.agent_id).tokens_used == 50
        assert manager.get(child.agent_id).tokens_used == 50
        with pytest.raises(BudgetError):
            manager.start(child.agent_id)


# --- sources of usage ---


def use_once(manager: SubAgentManager, ref: str, source_id: str) -> Agent:
    return manager.record_usage(ref, input_tokens=1, output_tokens=2, source_id=source_id)


def test_a_source_is_counted_once(tmp_path: Path) -> None:
    """P2: Usage of one source counts once for its agent, across restarts, compactions and
    transactions, and for its ancestors."""
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        manager.spawn("lead", name="lead")
        manager.spawn("part", name="part", parent_id="lead")
        first = use_once(manager, "part", "resp_1")
        assert use_once(manager, "part", "resp_1") == first
        assert use_once(manager, "part", "resp_2").tokens_used == 6
        with manager.transaction() as t:
            for source_id in ("resp_2", "resp_3", "resp_3"):
                t.record_usage("part", input_tokens=1, output_tokens=2, source_id=source_id)
        assert manager.get("part").tokens_used == 9
        manager.compact()
        use_once(manager, "part", "resp_4")
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        for source_id in ("resp_1", "resp_2", "resp_3", "resp_4"):
            assert use_once(manager, "part", source_id).tokens_used == 12
        assert manager.get("lead").tokens_used == 12
        assert use_once(manager, "lead", "resp_1").tokens_used == 15  # another agent's
        use(manager, "part", 1)
        use(manager, "part", 1)  # without a source, each call counts
        assert manager.get("part").tokens_used == 14


def test_many_sources_survive_a_compaction(tmp_path: Path) -> None:
    """Sources beyond one item of a checkpoint are kept, and removed together with their agent."""
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        manager.spawn("p", name="a")
        for number in range(600):
            use_once(manager, "a", f"resp_{number}")
        assert manager.compact().count == 1 + 3
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        for number in range(600):
            assert use_once(manager, "a", f"resp_{number}").tokens_used == 1800
        manager.cancel("a")
        manager.cleanup(0)
        assert not manager._state.machine.sources._chunks
        manager.spawn("p", name="a")
        assert use_once(manager, "a", "resp_1").tokens_used == 3
