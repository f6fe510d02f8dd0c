"""Lists of the agents with one status, which look only at recent agents where that is enough."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journal import CowTable, JournalReader
from manager import AgentResult, SubAgentManager, TransitionError, recent
from manager.agent import LIVE, STATUSES
from manager.fleet_reader import fleet_as_of
from tests.manager.fleet_support import ROOMY

CALLS: dict[str, Callable[[SubAgentManager, str], Any]] = {
    "start": lambda manager, ref: manager.start(ref),
    "resume": lambda manager, ref: manager.resume(ref),
    "interrupt": lambda manager, ref: manager.interrupt(ref, "a pause"),
    "complete": lambda manager, ref: manager.update_from_result(ref, AgentResult("done")),
    "fail": lambda manager, ref: manager.update_failed(ref, "an error"),
    "cancel": lambda manager, ref: manager.cancel(ref),
    "use": lambda manager, ref: manager.record_usage(ref, input_tokens=1, output_tokens=1),
    "prune": lambda manager, ref: manager.prune(ref),
}


def check_lists(manager: SubAgentManager) -> None:
    for include_archived in (False, True):
        agents = manager.agents(include_archived=include_archived)
        for status in STATUSES:
            listed = manager.agents(status=status, include_archived=include_archived)
            assert listed == [agent for agent in agents if agent.status == status]


@pytest.mark.parametrize("copied_max", [3, 4096])
@pytest.mark.parametrize("seed", range(4))
def test_a_list_of_one_status_is_a_part_of_the_whole_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, copied_max: int
) -> None:
    """A list has the agents of the status in the order of the whole list, also after restarts and
    removals, whether it is made from the recent agents or from all."""
    monkeypatch.setattr(recent, "_COPIED_MAX", copied_max)
    chosen = random.Random(seed)
    ids: list[str] = []
    for _ in range(3):
        with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
            check_lists(manager)
            for _ in range(60):
                if chosen.random() < 0.3:
                    parent_id = chosen.choice([None, *ids])
                    queued = chosen.random() < 0.5
                    ids.append(manager.spawn("p", parent_id=parent_id, queued=queued).agent_id)
                    continue
                call, ref = chosen.choice([*CALLS]), chosen.choice([*ids, "none"])
                try:
                    CALLS[call](manager, ref)
                except (TransitionError, LookupError):
                    continue
                if call == "prune":
                    kept = {agent.agent_id for agent in manager.agents(include_archived=True)}
                    ids = [agent_id for agent_id in ids if agent_id in kept]
            check_lists(manager)


def test_a_list_of_few_agents_does_not_look_at_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archived agents are looked at only for a list of archived agents."""
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        for _ in range(3):
            manager.update_from_result(manager.spawn("p").agent_id, AgentResult("done"))
        running = manager.spawn("p").agent_id
        manager.compact().close()  # an agent that ended after the checkpoint is recent, too
    looked: list[CowTable[Any, Any]] = []
    freeze = CowTable.freeze

    def watched(table: CowTable[Any, Any]) -> Any:
        looked.append(table)
        return freeze(table)

    monkeypatch.setattr(CowTable, "freeze", watched)
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        manager.resume(running)
        manager.update_failed(manager.spawn("p").agent_id, "an error")
        looked.clear()
        for status in STATUSES:
            manager.agents(status=status)
        for status in (*LIVE, "failed", "cancelled"):
            manager.agents(status=status, include_archived=True)
        assert not looked
        assert len(manager.agents(status="completed", include_archived=True)) == 3
        assert len(looked) == 1


def test_a_list_of_a_reader_has_the_rows_as_they_are_now(tmp_path: Path) -> None:
    """Rows that a replay has changed in place, and then replaced, are those of the list, too."""
    with SubAgentManager.open(tmp_path) as manager:
        ref = manager.spawn("p").agent_id
        for _ in range(3):
            manager.record_usage(ref, input_tokens=5, output_tokens=0)
    with JournalReader.open(manager.path) as reader:
        fleet, _ = fleet_as_of(reader)
    assert [*fleet.rows_with("running", include_archived=True)] == [fleet.rows[ref]]
