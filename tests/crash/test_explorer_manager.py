"""The manager's fleet, crashed at every moment of three sessions."""

from __future__ import annotations

import pytest

from journal.testing import Bounds, ManualOptions, Owner, explore, lose
from manager import Agent, AgentResult, Limits, SubAgentManager
from manager.fleet import Fleet
from tests.crash.crash_support import Durability

LIMITS = Limits(max_running=3)


def session(owner: Owner[Fleet]) -> SubAgentManager:
    """Return a manager of the owner's state, as `SubAgentManager.open` makes it."""
    manager = SubAgentManager(owner.state, LIMITS)
    manager._boot()
    return manager


def work(owner: Owner[Fleet]) -> None:
    """Run three sessions with agents of every fate, with batches and compactions."""
    manager = session(owner)
    lead = manager.spawn("lead", name="lead", token_budget=100)
    child = manager.spawn("child", parent_id="lead")
    queued_agent = manager.spawn("queued_agent", parent_id="lead", queued=True)
    manager.wait_durable(child.lsn)
    manager.record_usage(child.agent_id, input_tokens=2, output_tokens=3)
    manager.update_checkpoint(child.agent_id, {"at": 1}, steps_taken=1)
    manager.compact()
    manager.start(queued_agent.agent_id)
    manager.update_from_result(child.agent_id, AgentResult("done", steps_taken=2))
    manager.wait_durable()
    owner.kill()
    owner.reopen()

    manager = session(owner)
    assert {agent.status for agent in agents(manager)} == {"completed", "interrupted"}
    manager.resume("lead")
    manager.wait_durable()
    manager.update_failed(manager.spawn("sister").agent_id, "no way")
    manager.cancel("lead", descendants=True)
    manager.cleanup(0)
    manager.compact()
    manager.spawn("last")
    owner.power_cut(lose)
    owner.reopen()

    manager = session(owner)
    assert not agents(manager)
    assert lead.agent_id not in owner.state.machine.rows
    manager.wait_durable(manager.spawn("again", name="lead").lsn)
    manager.close()


def agents(manager: SubAgentManager) -> list[Agent]:
    return list(manager.agents(include_archived=True))


@pytest.mark.parametrize("durability", ["disk", pytest.param("os", marks=pytest.mark.slow)])
def test_a_fleet_survives_every_crash(durability: Durability) -> None:
    """P1 to P6: After any crash, the fleet is the result of its records up to some change.

    No acknowledged change is missing. No batch, such as the interrupts at a boot or a cleanup, is
    there in part.
    """
    options = ManualOptions(durability=durability, segment_bytes=1000)
    report = explore(Fleet, work, options=options, bounds=Bounds(outcomes_max=64, rot=10))
    assert report.states > 2000
