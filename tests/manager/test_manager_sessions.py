"""A manager's fleet across restarts, and the opening and closing of a manager."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from journal import (
    DurableState,
    FormatVersionError,
    JournalReader,
    LockedError,
    Options,
)
from manager import (
    SubAgentManager,
)
from manager.agent import ENDED, LIVE, STATUSES
from tests.manager_support import ROOMY, agent_that_is

ROOT = Path(__file__).resolve().parents[2]


def test_a_restart_interrupts_running_agents_only(tmp_path: Path) -> None:
    """At open, records of the new session interrupt the running agents and change nothing else.

    The next restart has nothing to do for them.
    """
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        agents = {status: agent_that_is(manager, status) for status in STATUSES}
        running = [manager.spawn("more").agent_id for _ in range(300)]
        manager.update_checkpoint(running[0], {"at": 3}, steps_taken=3)
        first_boot = manager.boot_id
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        assert manager.boot_id != first_boot
        for status, before in agents.items():
            now = manager.get(before.agent_id)
            assert now.from_prior_session
            assert now.boot_id == first_boot
            if status == "running":
                assert (now.status, now.reason) == ("interrupted", "process restarted")
                assert now.lsn > before.lsn
            else:
                assert replace(now, from_prior_session=False) == before
        assert manager.counts()["running"] == 0
        assert manager.counts()["interrupted"] == 302
        resumed = manager.resume(running[0])
        assert (resumed.checkpoint, resumed.steps_taken) == ({"at": 3}, 3)
        assert (resumed.from_prior_session, resumed.boot_id) == (False, manager.boot_id)
        manager.wait_durable()
        unchanged = manager.get(running[1])
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.get(running[1]) == unchanged
        assert manager.get(running[0]).status == "interrupted"
        assert manager.get(running[0]).from_prior_session
        path = manager.path
    with JournalReader.open(path) as reader:
        firsts: dict[int, Any] = {}
        for entry in reader.entries():
            firsts.setdefault(entry.epoch, entry.record)
    assert len(firsts) == 3
    for record in firsts.values():
        kind, application, boot_id, at_ms, pid = record
        assert (kind, application) == ("boot", "subagents/1")
        assert boot_id.startswith("boot_")
        assert at_ms > 0
        assert pid > 0


def test_archived_agents_are_those_that_ended_in_a_prior_session(tmp_path: Path) -> None:
    """Archived agents are left out of agents() unless asked for; get and counts include them."""
    with SubAgentManager.open(tmp_path) as manager:
        ended = [agent_that_is(manager, status).agent_id for status in ENDED]
        live = [agent_that_is(manager, status).agent_id for status in LIVE]
        assert [agent.agent_id for agent in manager.agents()] == ended + live
    with SubAgentManager.open(tmp_path) as manager:
        new = agent_that_is(manager, "completed").agent_id
        assert [agent.agent_id for agent in manager.agents()] == [*live, new]
        everyone = manager.agents(include_archived=True)
        assert [agent.agent_id for agent in everyone] == ended + live + [new]
        assert [a.agent_id for a in manager.agents(status="completed")] == [new]
        completed = manager.agents(status="completed", include_archived=True)
        assert [a.agent_id for a in completed] == [ended[0], new]
        assert manager.get(ended[0]).status == "completed"
        assert sum(manager.counts().values()) == 8
        manager.start(live[0])
        manager.update_failed(live[0], "broken")
        assert live[0] in [agent.agent_id for agent in manager.agents()]


def test_order_names_and_values_survive_checkpoint_and_restart(tmp_path: Path) -> None:
    """P6: The fleet is the same after a compaction and a restart, in the order of spawning."""
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        for number in range(50):
            agent = agent_that_is(
                manager,
                STATUSES[number % len(STATUSES)],
                name=f"name {number % 30}" if number % 7 > 2 else None,
                metadata={"number": number, "é": [1.5, None, True]},
                allowed_tools=[(), None, ("a", "b")][number % 3],
            )
            if agent.status == "running":
                manager.interrupt(agent.agent_id, "later")
        checkpoint = manager.compact()
        assert checkpoint.count == 50
        assert checkpoint.application == "subagents/1"
        after = manager.spawn("after the checkpoint", queued=True)
        before = manager.agents()
        counts = manager.counts()
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        now = manager.agents(include_archived=True)
        assert [replace(agent, from_prior_session=False) for agent in now] == before
        assert manager.counts() == counts
        assert manager.get(after.agent_id).boot_id == after.boot_id
        assert manager.get("name 3").attempt == 2


def test_durable_changes_survive_a_crash(tmp_path: Path) -> None:
    """P2: Once wait_durable(agent.lsn) has returned, that change is in the files."""
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    with SubAgentManager.open(tmp_path) as manager:
        agent = manager.spawn("work", queued=True)
        manager.wait_durable(agent.lsn, timeout_s=30)
        assert manager.stats().durable_lsn >= agent.lsn
        shutil.copytree(manager.path, crashed / ".subagents")  # as kill -9 would leave them
    with SubAgentManager.open(crashed) as manager:
        assert manager.get(agent.agent_id) == replace(agent, from_prior_session=True)


# --- opening ---


def test_a_second_manager_is_refused(tmp_path: Path) -> None:
    """A state directory has one writer. Another state directory is another fleet."""
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("work")
        with pytest.raises(LockedError):
            SubAgentManager.open(tmp_path)
        with SubAgentManager.open(tmp_path, state_dir="other/place") as other:
            assert other.agents() == []
            assert other.path == str(tmp_path / "other/place")


class Jobs:
    """The state machine of another application, with other records."""

    application = "jobs/1"

    def load(self, item: Any) -> None: ...

    def apply(self, lsn: int, record: Any) -> None: ...

    def freeze(self) -> list[Any]:
        return []


@pytest.mark.parametrize("compacted", [False, True])
def test_a_journal_of_another_application_is_refused(tmp_path: Path, compacted: bool) -> None:
    """A foreign checkpoint or a foreign record is refused, and the journal is closed again."""
    with DurableState.open(tmp_path / ".subagents", Jobs()) as jobs:
        jobs.update(lambda machine: {"job": 1})
        jobs.wait_durable()
        if compacted:
            jobs.compact()
    for _ in range(2):
        with pytest.raises(FormatVersionError):
            SubAgentManager.open(tmp_path)


def test_close_makes_all_changes_durable_and_is_final(tmp_path: Path) -> None:
    """Changes made before close are there at the next open. A second close does nothing."""
    manager = SubAgentManager.open(tmp_path, options=Options(flush_interval_s=60))
    agent = manager.spawn("work", queued=True)
    manager.close()
    manager.close()
    with pytest.raises(Exception, match="closed"):
        manager.spawn("late")
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.get(agent.agent_id).prompt == "work"


@pytest.mark.parametrize("strange", ["journal.py", "journal/other.py"])
def test_another_module_named_journal_is_reported(tmp_path: Path, strange: str) -> None:
    """A module of the user's that hides the package is named, with the advice to rename it."""
    (tmp_path / strange).parent.mkdir(exist_ok=True)
    (tmp_path / strange).touch()
    paths = [str(tmp_path), *sys.path]
    if "/" in strange:  # a folder without __init__ yields to any package later on the path
        paths = [path for path in paths if not (Path(path) / "journal/__init__.py").exists()]
        (tmp_path / "manager").symlink_to(ROOT / "manager")
    child = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path[:] = {paths}; import manager"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.returncode == 1
    message = child.stderr.splitlines()[-1]
    assert message.startswith("ImportError: manager needs the journal package")
    assert str((tmp_path / strange) if "/" not in strange else tmp_path / "journal") in message
    assert "rename that" in message
