"""Requests of other processes to a run whose commands run on workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal.testing import SimulatedDisk
from manager import SubAgentManager
from manager._control.errors import RefusedError
from manager._run.remote import TaskSupply
from manager.queue import DEFAULT
from tests.installed import import_package
from tests.manager.control_support import ask, meanwhile, task
from tests.manager.runner_support import agents, run, watchdog
from tests.remote.conftest import Start
from tests.support import until

import_package("nats")
__all__ = ["watchdog"]

WAITS = "touch begun-$SUBAGENT_NAME; while [ ! -e go ]; do sleep 0.01; done"


def test_a_held_supply_offers_nothing() -> None:
    """While the tasks are held, no worker is offered one."""
    with SubAgentManager.open("/", state_dir="s", disk=SimulatedDisk()) as manager:
        supply = TaskSupply()
        supply.offer(agent := manager.spawn("p", queued=True))
        supply.hold(True)
        assert [*supply.candidates((), [DEFAULT])] == []
        supply.hold(False)
        assert [*supply.candidates((), [DEFAULT])] == [agent.agent_id]


def test_requests_change_a_run_on_workers(start: Start, workspace: Path, fleet_url: str) -> None:
    """A run on workers takes requests as other runs do: a paused task runs again when it is
    resumed, a failed one when it is retried, a held run starts nothing, and a task that was
    cancelled, or cancelled and removed, does not keep the run from ending."""
    folder = workspace.parent / "w"
    start("w")

    def control() -> None:
        until((folder / "begun-long").exists, "a command runs")
        assert ask(workspace, "pause") == {"paused": True}
        assert ask(workspace, "pause", ref="long")["reason"] == "paused by request"
        with pytest.raises(RefusedError, match="is queued, and not interrupted"):
            ask(workspace, "resume", ref="blocked")
        ask(workspace, "cancel", ref="blocked")
        (folder / "begun-long").unlink()
        ask(workspace, "resume", ref="long")
        assert ask(workspace, "resume") == {"paused": False}
        until((folder / "begun-long").exists, "the command runs again")
        ask(workspace, "cancel", ref="gone")
        ask(workspace, "prune", ref="gone")
        (folder / "fine").touch()
        assert ask(workspace, "retry", ref="fails")["status"] == "queued"
        ask(workspace, "wait", ref="last")
        with pytest.raises(RefusedError, match="completed"):
            ask(workspace, "retry", ref="last")
        (folder / "go").touch()

    lines = (
        task("fails", "[ -e fine ]"),
        task("long", WAITS),
        task("gone", WAITS, queue="nowhere"),
        task("blocked", "true", after=["long"]),
        task("last", "true", after=["fails"]),
    )
    with meanwhile(control):
        report = run(workspace, *lines, on=fleet_url)
    ended = {agent.name: agent for agent in agents(report)}
    assert {name: agent.status for name, agent in ended.items()} == {
        "fails": "completed",
        "long": "completed",
        "gone": "cancelled",
        "blocked": "cancelled",
        "last": "completed",
    }
    assert (ended["long"].starts, ended["fails"].attempt) == (2, 2)
