"""Cancelling an agent with its descendants, and the index of descendants."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from journal import JournalReader
from manager import SubAgentManager
from manager.agent import LIVE, STATUSES
from manager.fleet import Fleet
from tests.manager.fleet_support import contents, manager_in_memory
from tests.manager_support import ROOMY, agent_that_is, ids


def test_cancel_leaves_children_alone_unless_asked(manager: SubAgentManager) -> None:
    """descendants=True cancels every live descendant in one batch, even below ended agents."""
    root = manager.spawn("root")
    ended = agent_that_is(manager, "completed", parent_id=root.agent_id)
    below = [
        agent_that_is(manager, status, parent_id=parent)
        for parent in (root.agent_id, ended.agent_id)
        for status in STATUSES
    ]
    deepest = manager.spawn("deep", parent_id=below[0].agent_id)
    other = manager.spawn("other")
    assert manager.cancel(root.agent_id).status == "cancelled"
    assert manager.get(deepest.agent_id).status == "running"
    before = {agent.agent_id: agent for agent in manager.agents()}
    last_lsn = manager.stats().last_lsn
    again = manager.cancel(root.agent_id, descendants=True)
    assert again == before[root.agent_id]
    live = ids(agent for agent in (*below, deepest) if agent.status in LIVE)
    for agent in manager.agents():
        if agent.agent_id in live:
            assert (agent.status, agent.reason, agent.needs_input) == ("cancelled", None, None)
            assert agent.lsn > last_lsn
        else:
            assert agent == before[agent.agent_id]
    assert manager.stats().last_lsn == last_lsn + len(live)
    assert manager.get(other.agent_id).status == "running"
    assert manager.cancel(root.agent_id, descendants=True) == again
    assert manager.stats().last_lsn == last_lsn + len(live)


def test_cancelling_descendants_is_one_batch(tmp_path: Path) -> None:
    """P3: A cancellation with descendants is one frame, of which a crash leaves all or nothing."""
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        root = manager.spawn("root", name="root")
        for _ in range(100):
            manager.spawn("child", parent_id=root.agent_id)
        manager.wait_durable()
        cancelled = manager.cancel("root", descendants=True)
        assert (cancelled.agent_id, cancelled.status) == (root.agent_id, "cancelled")
        assert manager.get("root") == cancelled
        assert manager.counts()["cancelled"] == 101
        manager.wait_durable()
        path = manager.path
    with JournalReader.open(path) as reader:
        frames = {entry.offset for entry in reader.entries() if entry.record[0] == "cancel"}
    assert len(frames) == 1


# --- the index of descendants ---

actions = st.tuples(
    st.sampled_from(["spawn", "spawn", "end", "cleanup", "interrupt"]), st.integers(0, 30)
)


@given(st.lists(actions, max_size=40), st.randoms(use_true_random=False))
def test_descendants_are_found_in_any_load_order(
    steps: list[tuple[str, int]], dice: random.Random
) -> None:
    """The index follows from the rows alone, live and loaded in any order."""
    manager, state = manager_in_memory()
    agents = [manager.spawn("root").agent_id]
    for action, number in steps:
        ref = agents[number % len(agents)]
        if action == "spawn":
            agents.append(manager.spawn("p", parent_id=ref, queued=number % 2 == 0).agent_id)
        elif action == "end":
            manager.cancel(ref)
        elif action == "cleanup" and number % 4 == 0 and len(agents) > 1:
            removed = ids(manager.cleanup(0))
            agents = [agent for agent in agents if agent not in removed]
            agents = agents or [manager.spawn("root").agent_id]
        elif manager.get(ref).status == "running":
            manager.interrupt(ref, "later")
    fleet = state.machine
    items = list(fleet.freeze())
    dice.shuffle(items)
    loaded = Fleet()
    for item in items:
        loaded.load(item)
    assert contents(loaded)[1:] == contents(fleet)[1:]
    everyone = manager.agents(include_archived=True)
    for agent in everyone:
        family = [agent.agent_id]
        for above in family:
            family += [child.agent_id for child in everyone if child.parent_id == above]
        live = {ref for ref in family[1:] if manager.get(ref).status in LIVE}
        indexed = list(fleet.family.living(agent.agent_id))
        assert (set(indexed), len(indexed)) == (live, len(live))
        children = [a for a in everyone if a.parent_id == agent.agent_id]
        assert fleet.family.children(agent.agent_id) == len(children)
