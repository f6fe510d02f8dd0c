"""Retention: the manager drops ended agents by itself, and none that somebody may still need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from manager import Agent, AgentResult, Limits, SubAgentManager
from manager._run.options import RunOptions
from manager._run.runner import run_tasks
from manager._run.tasks import read_tasks
from manager.agent import Row
from manager.limits import HOLD_AGENTS_MAX
from manager.retention import Retention, removed
from manager.updates import Updates
from tests.manager_support import ids
from tests.support import TIMEOUT_S

WEEK_S = 7 * 24 * 3600


class Clock:
    """A clock that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unix_ms = 1_700_000_000_000
        monkeypatch.setattr("manager.clock.now_ms", lambda: self.unix_ms)

    def pass_s(self, seconds: float) -> None:
        self.unix_ms += int(seconds * 1000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def opened(folder: Path, **limits: Any) -> SubAgentManager:
    roomy = {"max_running": 10**6, "max_admitted": 10**6}
    return SubAgentManager.open(folder, limits=Limits(**(roomy | limits)))


def ended(manager: SubAgentManager, parent_id: str | None = None) -> Agent:
    agent = manager.spawn("p", parent_id=parent_id)
    return manager.update_from_result(agent.agent_id, AgentResult("done"))


def left(manager: SubAgentManager) -> set[str]:
    return ids(manager.agents(include_archived=True))


def settle(manager: SubAgentManager) -> None:
    """Wait for the thread of the retention, if it has one."""
    if manager._retention._thread is not None:
        manager._retention._thread.join(TIMEOUT_S)


def test_a_spawn_drops_what_ended_over_a_week_ago(tmp_path: Path, clock: Clock) -> None:
    """By default, ended agents are dropped after a week, without a call; live ones never are."""
    with opened(tmp_path) as manager:
        old, queued = ended(manager), manager.spawn("p", queued=True)
        settle(manager)
        clock.pass_s(1)
        young = ended(manager)
        settle(manager)
        assert left(manager) == {old.agent_id, queued.agent_id, young.agent_id}
    clock.pass_s(WEEK_S - 1)
    with opened(tmp_path) as manager:
        new = manager.spawn("p")
        settle(manager)
        assert left(manager) == {queued.agent_id, young.agent_id, new.agent_id}
        clock.pass_s(1)
        with manager.transaction() as t:
            last_id = t.spawn("p")
        manager._retention._next_s = 0  # as after a minute
        with manager.transaction() as t:
            t.cancel(last_id)
        settle(manager)
        assert left(manager) == {queued.agent_id, new.agent_id, last_id}


def test_agents_beyond_the_number_are_dropped_oldest_first(tmp_path: Path, clock: Clock) -> None:
    """The number of ended agents stays within `keep_ended_max` and a sixteenth of it."""
    with opened(tmp_path, keep_ended_max=32, keep_ended_s=None) as manager:
        agents = []
        for _ in range(100):
            clock.pass_s(1)
            agents.append(ended(manager))
            settle(manager)
            assert manager.counts()["completed"] <= 32 + 2 + 1
        manager._retention.run()
        assert left(manager) == ids(agents[-32:])


def test_an_agent_that_ends_during_a_drop_counts_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next drop is due a sixteenth above `keep_ended_max`, whatever ends during this one."""
    with opened(tmp_path, keep_ended_max=32, keep_ended_s=None) as manager:
        last, *others = [manager.spawn("p") for _ in range(35)]
        for agent in others:
            manager.update_from_result(agent.agent_id, AgentResult("done"))

        def remove(updates: Updates, due: Sequence[Row]) -> list[Row]:
            manager.update_from_result(last.agent_id, AgentResult("done"))
            return removed(updates, due)

        monkeypatch.setattr("manager.retention.removed", remove)
        assert manager._retention.run() == 2
        assert manager.counts()["completed"] == 33
        assert manager._retention._next_count == 34


def test_an_untaken_result_is_kept_until_its_parent_has_been_gone_for_long(
    tmp_path: Path, clock: Clock
) -> None:
    """A result that the parent has not taken is kept while the parent lives, and for
    `keep_ended_s` after its end. A taken one is not."""
    with opened(tmp_path, keep_ended_s=100, keep_ended_max=1) as manager:
        lead = manager.spawn("p", name="lead")
        taken, untaken = ended(manager, "lead"), ended(manager, "lead")
        manager.take(taken.agent_id, by="lead")
        clock.pass_s(1000)
        assert manager._retention.run() == 1
        assert left(manager) == {lead.agent_id, untaken.agent_id}
        manager.cancel("lead")
        clock.pass_s(99)
        assert manager._retention.run() == 0
        clock.pass_s(1)
        assert manager._retention.run() == 2
        assert left(manager) == set()


def test_an_agent_with_live_descendants_is_kept(tmp_path: Path, clock: Clock) -> None:
    """An ended agent stays while a descendant lives, and goes together with it later."""
    with opened(tmp_path, keep_ended_s=100, keep_ended_max=1) as manager:
        line = [manager.spawn("p")]
        for _ in range(3):
            line.append(manager.spawn("p", parent_id=line[-1].agent_id))
        for agent in line[:-1]:
            manager.cancel(agent.agent_id)
        clock.pass_s(1000)
        assert manager._retention.run() == 0
        manager.cancel(line[-1].agent_id)
        clock.pass_s(100)
        assert manager._retention.run() == 4


def test_a_drop_holds_the_lock_for_a_slice_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: No hold of the lock drops more than a slice, and none searches the fleet."""
    with opened(tmp_path, keep_ended_s=None, keep_ended_max=1) as manager:
        monkeypatch.setattr(manager._retention, "check", lambda: None)
        for _ in range(150):
            ended(manager)
        sizes = []
        update_many = manager._updates.update_many

        def counted(decide: Any, **options: Any) -> Any:
            changed = update_many(decide, **options)
            sizes.append(len(changed))
            return changed

        monkeypatch.setattr(manager._updates, "update_many", counted)
        assert manager._retention.run() == 149
        assert sizes == [HOLD_AGENTS_MAX, HOLD_AGENTS_MAX, 21]


def test_a_close_ends_the_thread(tmp_path: Path) -> None:
    """A drop that finds the manager closed ends quietly."""
    manager = opened(tmp_path, keep_ended_max=1)
    ended(manager)
    settle(manager)
    manager.close()
    manager._retention._run()


def test_a_run_drops_no_task(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """`subagents run` never drops an ended task: it would run the command again."""
    monkeypatch.setattr(Retention, "check", Retention.run)
    tasks = read_tasks(b"echo x >>ran\n", "tasks")
    for _ in range(2):
        assert run_tasks(str(tmp_path), tasks, RunOptions()).exit_code == 0
        clock.pass_s(10 * WEEK_S)
    more = read_tasks(b"echo x >>ran\necho y >>ran\n", "tasks")
    for _ in range(2):
        assert run_tasks(str(tmp_path), more, RunOptions()).exit_code == 0
    assert (tmp_path / "ran").read_text() == "x\ny\n"


@pytest.mark.parametrize("limits", [{"keep_ended_s": 0}, {"keep_ended_max": 0}])
def test_a_limit_that_keeps_nothing_is_refused(limits: dict[str, Any]) -> None:
    """The limits of retention are positive, or None for no limit."""
    with pytest.raises(ValueError, match="keep_ended"):
        Limits(**limits)
    unlimited: dict[str, Any] = dict.fromkeys(limits)
    assert Limits(**unlimited) != Limits()
