"""Changes after an earlier LSN: what a returning reader is shown."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from journal.testing import SimulatedDisk
from manager import SubAgentManager
from tests.manager_support import MANY, take_ready, update


def test_resuming_after_a_shared_lsn_shows_all_of_its_agents(manager: SubAgentManager) -> None:
    """After an LSN that several agents share, all of these are shown again.

    The reader may have stopped between an agent and its ancestors. After an LSN of a single agent,
    that agent is not shown again.
    """
    root = manager.spawn("root")
    child = manager.spawn("child", parent_id=root.agent_id)
    other = manager.spawn("other")
    changes = manager.changes()
    manager.record_usage(child.agent_id, input_tokens=2, output_tokens=3)
    [seen, missed] = take_ready(changes)
    assert seen.lsn == missed.lsn
    assert missed in take_ready(manager.changes(after=seen.lsn))
    assert {*take_ready(manager.changes(after=other.lsn))} == {seen, missed}


@pytest.mark.parametrize("later", ["changes", "is removed"])
def test_resuming_after_a_shared_lsn_shows_its_last_agent(
    manager: SubAgentManager, later: str
) -> None:
    """The agent of a shared LSN that the reader has not seen is shown, even if only it still has
    that LSN: the others have changed again, or were removed."""
    root = manager.spawn("root")
    child = manager.spawn("child", parent_id=root.agent_id)
    lsn = manager.record_usage(child.agent_id, input_tokens=2, output_tokens=3).lsn
    manager.cancel(child.agent_id)
    if later == "is removed":
        manager.cleanup(0)
    missed = manager.get(root.agent_id)
    assert missed.lsn == lsn
    assert missed in take_ready(manager.changes(after=lsn))


@pytest.mark.parametrize("restarted", [False, True])
def test_changes_may_begin_after_an_earlier_lsn(disk: SimulatedDisk, restarted: bool) -> None:
    """Agents that changed after the LSN, in any session, come before the new changes."""
    manager = SubAgentManager.open("/w", limits=MANY, disk=disk)
    agents = [manager.spawn(str(number), queued=True) for number in range(6)]
    manager.cancel(agents[1].agent_id)
    if restarted:
        manager.close()
        manager = SubAgentManager.open("/w", limits=MANY, disk=disk)
    everyone = sorted(manager.agents(include_archived=True), key=lambda agent: agent.lsn)
    assert take_ready(manager.changes(after=0)) == everyone
    assert take_ready(manager.changes(after=agents[3].lsn)) == everyone[-3:]
    last_lsn = manager.stats().last_lsn
    changes = manager.changes(after=last_lsn)
    assert take_ready(changes) == []
    started = manager.start(agents[0].agent_id)
    assert take_ready(changes) == [started]
    for bad in (-1, last_lsn + 2):
        with pytest.raises(ValueError, match=str(bad)):
            manager.changes(after=bad)
    manager.close()


def test_changes_during_the_start_are_shown_once(
    manager: SubAgentManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change made during the snapshot is shown once, even if another reader consumed it."""
    stays, goes = manager.spawn("stays"), manager.cancel(manager.spawn("goes").agent_id)
    other = manager.changes()
    read = manager._state.read

    def meanwhile(look: Any) -> Any:
        snapshot = read(look)
        monkeypatch.undo()
        update(manager, stays, 1)
        manager.cleanup(0)
        assert len(take_ready(other)) == 1
        return snapshot

    monkeypatch.setattr(manager._state, "read", meanwhile)
    changes = manager.changes(after=0)
    assert take_ready(changes) == [manager.get(stays.agent_id)]
    assert goes.status == "cancelled"


def test_no_change_is_missed_between_old_and_new_ones(manager: SubAgentManager) -> None:
    """A reader that starts with old changes while others write ends up with the whole fleet."""
    agents = [manager.spawn("work") for _ in range(20)]
    over = threading.Event()

    def write(seed: int) -> None:
        dice = random.Random(seed)
        step = 0
        while not over.is_set():
            step += 1
            update(manager, dice.choice(agents), step)

    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write, seed) for seed in range(3)]
        readers = [manager.changes(after=number % 2 * agents[9].lsn) for number in range(50)]
        over.set()
        for writer in writers:
            writer.result()
    now = {agent.agent_id: agent for agent in manager.agents()}
    for number, changes in enumerate(readers):
        changed = take_ready(changes)
        assert [agent.lsn for agent in changed] == sorted(agent.lsn for agent in changed)
        assert {agent.agent_id: agent for agent in changed}.items() <= now.items()
        assert len(changed) == len({agent.agent_id for agent in changed})
        if number % 2 == 0:
            assert len(changed) == 20
