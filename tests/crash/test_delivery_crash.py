"""Crashes between a result, its taking and the parent's next step."""

from __future__ import annotations

from typing import Any

import pytest

from journal.testing import Bounds, History, ManualOptions, Owner, explore, lose
from manager import Agent, AgentResult, SubAgentManager
from manager.agent import LIVE, get
from manager.fleet import Fleet
from tests.crash.crash_support import Durability
from tests.manager_support import ROOMY
from tests.tiers import slow_unless

PARTS = [f"part {number}" for number in range(5)]


def session(owner: Owner[Fleet]) -> SubAgentManager:
    """Open the fleet as a harness does: it resumes what was cut off, and begins what is missing."""
    manager = SubAgentManager(owner.state, ROOMY)
    manager._boot()
    for name in ("lead", *PARTS):
        try:
            agent = manager.get(name)
        except LookupError:
            manager.spawn("work", name=name, parent_id=None if name == "lead" else "lead")
        else:
            if agent.status == "interrupted":
                manager.resume(name)
    return manager


def deliver(manager: SubAgentManager) -> None:
    """Take all results of the lead's inbox, as its runner does."""
    for agent in manager.inbox("lead"):
        lead: Agent = manager.get("lead")
        took = [*(lead.checkpoint or []), agent.result]
        manager.take(agent.agent_id, by="lead", checkpoint=took, steps_taken=len(took))


def work(owner: Owner[Fleet]) -> None:
    """Run three sessions, killed between results and takes, with a compaction in between."""
    manager = session(owner)
    manager.update_from_result(PARTS[0], AgentResult(PARTS[0]))
    deliver(manager)
    manager.update_from_result(PARTS[1], AgentResult(PARTS[1]))
    manager.wait_durable()
    deliver(manager)
    owner.power_cut(lose)
    owner.reopen()

    manager = session(owner)
    deliver(manager)
    manager.update_from_result(PARTS[2], AgentResult(PARTS[2]))
    manager.compact()
    deliver(manager)
    manager.update_checkpoint("lead", manager.get("lead").checkpoint, steps_taken=9)
    manager.wait_durable()
    manager.update_from_result(PARTS[3], AgentResult(PARTS[3]))
    owner.kill()
    owner.reopen()

    manager = session(owner)
    for name in PARTS:
        if manager.get(name).status in LIVE:
            manager.update_from_result(name, AgentResult(name))
    deliver(manager)
    assert sorted(manager.get("lead").checkpoint) == PARTS
    manager.close()


@pytest.mark.parametrize(
    ("durability", "rot"),
    slow_unless(lambda _, rot: rot > 1, [("disk", 9), ("disk", 1), ("os", 1)]),
)
def test_no_crash_loses_or_doubles_a_delivery(
    durability: Durability, rot: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1 to P6: After each crash, the lead's checkpoint has exactly the results that are taken.

    The others are still in its inbox.
    """
    check = History.check

    def check_with_inbox(self: Any, lsn: int, machine: Fleet, *rest: Any) -> None:
        check(self, lsn, machine, *rest)
        rows = {get.name(row): row for row in machine.rows.values()}
        if "lead" not in rows:
            return
        took = get.checkpoint(rows["lead"]) or []
        assert len({*took}) == len(took)
        assert {name for name, row in rows.items() if get.taken_by(row)} == {*took}
        ended = {name for name, row in rows.items() if get.ended_at_ms(row) is not None}
        untaken = machine.family.untaken(get.agent_id(rows["lead"]))
        assert {get.name(machine.rows[each]) for each in untaken} == ended - {*took}

    monkeypatch.setattr(History, "check", check_with_inbox)
    options = ManualOptions(durability=durability, segment_bytes=1000)
    report = explore(Fleet, work, options=options, bounds=Bounds(outcomes_max=8, rot=rot))
    assert report.states > 300
