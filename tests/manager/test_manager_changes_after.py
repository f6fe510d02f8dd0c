"""Changes from an earlier LSN on: what a reader that comes back is shown."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from journal.testing import SimulatedDisk
from manager import SubAgentManager
from tests.manager_support import MANY, ready, update


def test_resuming_after_a_shared_lsn_shows_all_of_its_agents(manager: SubAgentManager) -> None:
    """A reader that broke off between an agent and its ancestors is shown all of them again; one
    after an LSN that is a single agent's, is not shown that."""
    root = manager.spawn("root")
    child = manager.spawn("child", parent_id=root.agent_id)
    other = manager.spawn("other")
    changes = manager.changes()
    manager.record_usage(child.agent_id, input_tokens=2, output_tokens=3)
    [seen, missed] = ready(changes)
    assert seen.lsn == missed.lsn
    assert missed in ready(manager.changes(after=seen.lsn))
    assert {*ready(manager.changes(after=other.lsn))} == {seen, missed}


@pytest.mark.parametrize("restarted", [False, True])
def test_changes_may_begin_after_an_earlier_lsn(disk: SimulatedDisk, restarted: bool) -> None:
    """With all that have changed after an LSN, also of an earlier session, and then go on."""
    manager = SubAgentManager.open("/w", limits=MANY, disk=disk)
    agents = [manager.spawn(str(number), queued=True) for number in range(6)]
    manager.cancel(agents[1].agent_id)
    if restarted:
        manager.close()
        manager = SubAgentManager.open("/w", limits=MANY, disk=disk)
    everyone = sorted(manager.agents(include_archived=True), key=lambda agent: agent.lsn)
    assert ready(manager.changes(after=0)) == everyone
    assert ready(manager.changes(after=agents[3].lsn)) == everyone[-3:]
    last_lsn = manager.stats().last_lsn
    changes = manager.changes(after=last_lsn)
    assert ready(changes) == []
    started = manager.start(agents[0].agent_id)
    assert ready(changes) == [started]
    for bad in (-1, last_lsn + 2):
        with pytest.raises(ValueError, match=str(bad)):
            manager.changes(after=bad)
    manager.close()


def test_changes_during_the_start_are_shown_once(
    manager: SubAgentManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when another reader has moved it along between the snapshot and now."""
    stays, goes = manager.spawn("stays"), manager.cancel(manager.spawn("goes").agent_id)
    other = manager.changes()
    read = manager._state.read

    def meanwhile(look: Any) -> Any:
        snapshot = read(look)
        monkeypatch.undo()
        update(manager, stays, 1)
        manager.cleanup(0)
        assert len(ready(other)) == 1
        return snapshot

    monkeypatch.setattr(manager._state, "read", meanwhile)
    changes = manager.changes(after=0)
    assert ready(changes) == [manager.get(stays.agent_id)]
    assert goes.status == "cancelled"


def test_no_change_is_missed_where_the_old_ones_end(manager: SubAgentManager) -> None:
    """A reader that begins with what there is sees, while others write, all that there is."""
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
        shown = ready(changes)
        assert [agent.lsn for agent in shown] == sorted(agent.lsn for agent in shown)
        assert {agent.agent_id: agent for agent in shown}.items() <= now.items()
        assert len(shown) == len({agent.agent_id for agent in shown})
        if number % 2 == 0:
            assert len(shown) == 20
