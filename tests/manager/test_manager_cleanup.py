"""Cleanup: it removes agents that ended long ago, and cancels agents without a sign of life."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from manager import AgentResult, Limits, SubAgentManager, UnknownAgentError, cleanup
from manager.agent import ENDED, LIVE, STATUSES, Status
from tests.manager_support import ROOMY, agent_that_is, ids

LIMITS = Limits(max_running=1000, heartbeat_timeout_s=60)


class Clocks:
    """The two clocks of a manager: Unix milliseconds, and monotonic seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unix_ms = 1_700_000_000_000
        self.steady_s = 1000.0
        monkeypatch.setattr("manager.clock.now_ms", lambda: self.unix_ms)
        steady = SimpleNamespace(monotonic=lambda: self.steady_s)
        monkeypatch.setattr("manager.cleanup.clock", steady)

    def pass_s(self, seconds: float) -> None:
        self.unix_ms += int(seconds * 1000)
        self.steady_s += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


@pytest.fixture
def manager(tmp_path: Path, clocks: Clocks) -> Iterator[SubAgentManager]:
    with SubAgentManager.open(tmp_path, limits=LIMITS) as manager:
        yield manager


# --- removing ended agents ---


@pytest.mark.parametrize("status", STATUSES)
def test_cleanup_removes_agents_that_ended_long_ago(
    manager: SubAgentManager, clocks: Clocks, status: Status
) -> None:
    """Agents are removed once they ended long enough ago; live ones never are.

    The removal frees their name and id.
    """
    old = agent_that_is(manager, status, name="a name")
    clocks.pass_s(30)
    young = agent_that_is(manager, status)
    assert manager.cleanup(30.001) == ()
    removed = manager.cleanup(30)
    if status in LIVE:
        assert removed == ()
        assert ids(manager.agents()) == ids([old, young])
        return
    assert removed == (old,)
    assert manager.agents() == [young]
    assert manager.counts()[status] == 1
    for ref in (old.agent_id, "a name"):
        with pytest.raises(UnknownAgentError):
            manager.get(ref)
    assert manager.spawn("again", name="a name").name == "a name"


def test_removing_one_of_two_namesakes_keeps_the_other(
    manager: SubAgentManager, clocks: Clocks
) -> None:
    """A removed agent leaves the index of names, so its remaining namesake is unambiguous."""
    manager.cancel(manager.spawn("first", name="same").agent_id)
    clocks.pass_s(60)
    second = manager.cancel(manager.spawn("second", name="same").agent_id)
    assert len(manager.cleanup(60)) == 1
    assert manager.get("same") == second


def test_a_parent_stays_while_a_child_does(manager: SubAgentManager, clocks: Clocks) -> None:
    """An ended family is removed at once, children first; a live descendant keeps its ancestors."""
    families = []
    for _ in range(2):
        root = manager.spawn("root")
        middle = manager.spawn("middle", parent_id=root.agent_id)
        families.append([root, middle, manager.spawn("leaf", parent_id=middle.agent_id)])
    for agent in (*families[0], *families[1][:2]):
        manager.cancel(agent.agent_id)
    clocks.pass_s(1)
    assert [a.agent_id for a in manager.cleanup(0)] == [a.agent_id for a in reversed(families[0])]
    assert ids(manager.agents()) == ids(families[1])
    manager.record_usage(families[1][2].agent_id, input_tokens=1, output_tokens=1)
    assert manager.get(families[1][0].agent_id).tokens_used == 2
    manager.cancel(families[1][2].agent_id)
    assert len(manager.cleanup(0)) == 3


def test_removed_agents_never_return(tmp_path: Path, clocks: Clocks) -> None:
    """P6, P8: A removed agent is in no checkpoint, and a replay of its records leaves no trace."""
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        for number in range(200):
            name = f"name {number % 50}" if number % len(STATUSES) > 2 else None
            agent_that_is(manager, STATUSES[number % len(STATUSES)], name=name)
        manager.compact()
        removed = manager.cleanup(0)
        remaining = manager.agents()
        assert len(removed) + len(remaining) == 200
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        reopened = manager.agents(include_archived=True)
        assert ids(reopened) == ids(remaining)
        assert manager.compact().count == len(remaining)
        assert not ids(reopened) & ids(removed)


@pytest.mark.parametrize("bad", [-1, float("nan")])
def test_a_bad_age_is_refused(manager: SubAgentManager, bad: float) -> None:
    """An age is a number of seconds from 0."""
    with pytest.raises(ValueError, match="max_age_s"):
        manager.cleanup(bad)


# --- heartbeats ---


def test_a_running_agent_without_a_sign_of_life_is_cancelled(
    manager: SubAgentManager, clocks: Clocks
) -> None:
    """A running agent is cancelled after heartbeat_timeout_s, for that reason.

    Queued and interrupted agents may be silent.
    """
    agents = {status: agent_that_is(manager, status) for status in LIVE}
    clocks.pass_s(59.9)
    assert manager.cleanup(10**6) == ()
    clocks.pass_s(0.1)
    (cancelled,) = manager.cleanup(10**6)
    assert cancelled.agent_id == agents["running"].agent_id
    assert (cancelled.status, cancelled.reason) == ("cancelled", "no sign of life for 60 s")
    assert cancelled.ended_at_ms == clocks.unix_ms
    assert manager.get(cancelled.agent_id) == cancelled
    assert manager.get(agents["queued"].agent_id) == agents["queued"]
    assert manager.get(agents["interrupted"].agent_id) == agents["interrupted"]


SIGNS: dict[str, Any] = {
    "touch": lambda m, ref: m.touch(ref),
    "touch by name": lambda m, ref: m.touch("a name"),
    "update_checkpoint": lambda m, ref: m.update_checkpoint(ref, None, steps_taken=1),
    "record_usage": lambda m, ref: m.record_usage(ref, input_tokens=0, output_tokens=0),
    "update by name": lambda m, ref: m.update_checkpoint("a name", 1, steps_taken=1),
}


@pytest.mark.parametrize("sign", SIGNS)
def test_any_update_is_a_sign_of_life(manager: SubAgentManager, clocks: Clocks, sign: str) -> None:
    """Each update restarts the time that an agent may be silent."""
    ref = manager.spawn("work", name="a name").agent_id
    for _ in range(3):
        clocks.pass_s(50)
        SIGNS[sign](manager, ref)
    clocks.pass_s(59)
    assert manager.cleanup(10**6) == ()
    clocks.pass_s(1)
    assert ids(manager.cleanup(10**6)) == {ref}


def test_start_and_resume_are_signs_of_life(manager: SubAgentManager, clocks: Clocks) -> None:
    """The time during which an agent did not run does not count as silence."""
    queued = manager.spawn("q", queued=True).agent_id
    stopped = manager.interrupt(manager.spawn("i").agent_id, "later").agent_id
    clocks.pass_s(100)
    manager.start(queued)
    manager.resume(stopped)
    clocks.pass_s(59)
    assert manager.cleanup(10**6) == ()
    clocks.pass_s(1)
    assert ids(manager.cleanup(10**6)) == {queued, stopped}


def test_touch_changes_no_agent_and_writes_no_record(
    manager: SubAgentManager, clocks: Clocks
) -> None:
    """A touch of an agent in any status changes and journals nothing; an unknown ref is refused."""
    agents = [agent_that_is(manager, status) for status in STATUSES]
    last_lsn = manager.stats().last_lsn
    clocks.pass_s(1)
    for agent in agents:
        manager.touch(agent.agent_id)
        assert manager.get(agent.agent_id) == agent
    with pytest.raises(UnknownAgentError):
        manager.touch("nobody")
    assert manager.stats().last_lsn == last_lsn


def test_setting_the_clock_cancels_no_agent(manager: SubAgentManager, clocks: Clocks) -> None:
    """Silence is measured on a monotonic clock, so setting the clock by an hour is no silence."""
    ref = manager.spawn("work").agent_id
    clocks.unix_ms += 3_600_000
    assert manager.cleanup(10**6) == ()
    clocks.unix_ms -= 7_200_000
    clocks.steady_s += 60
    assert ids(manager.cleanup(10**6)) == {ref}


def test_a_late_sign_of_life_saves_an_agent(
    manager: SubAgentManager, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cleanup checks each candidate again under the lock, as it may have changed meanwhile."""
    refs = {
        name: manager.spawn(name).agent_id
        for name in ("touched", "updated", "ended", "resumed", "dead")
    }
    clocks.pass_s(60)
    update_batch = manager._state.update_batch

    def meanwhile(decide: Any, *, urgent: bool = False) -> int | None:
        manager.touch(refs["touched"])
        manager.update_checkpoint(refs["updated"], 1, steps_taken=1)
        manager.update_from_result(refs["ended"], AgentResult("late"))
        manager.interrupt(refs["resumed"], "later")
        manager.resume(refs["resumed"])
        monkeypatch.undo()
        return update_batch(decide, urgent=urgent)

    monkeypatch.setattr(manager._state, "update_batch", meanwhile)
    assert ids(manager.cleanup(10**6)) == {refs["dead"]}
    assert manager.get(refs["ended"]).result == "late"


def test_an_agent_that_has_just_started_is_not_silent(
    manager: SubAgentManager, clocks: Clocks
) -> None:
    """An agent whose start is still under way has no sign of life yet; its silence begins now."""
    ref = manager.spawn("work").agent_id
    manager._beats.forget(ref)
    assert manager.cleanup(10**6) == ()
    clocks.pass_s(59)
    assert manager.cleanup(10**6) == ()
    clocks.pass_s(1)
    assert ids(manager.cleanup(10**6)) == {ref}


def test_memory_of_heartbeats_follows_the_fleet(manager: SubAgentManager, clocks: Clocks) -> None:
    """P8: No heartbeat is kept for agents that have ended or were removed."""
    running = manager.spawn("runs").agent_id
    for _ in range(50):
        ref = manager.spawn("work").agent_id
        manager.touch(ref)
        manager.update_from_result(ref, AgentResult("done"))
    ref = manager.spawn("late").agent_id
    manager.cancel(ref)
    manager._beats.beat(ref)  # like a touch that comes too late
    manager.cleanup(0)
    manager.cleanup(0)
    assert manager._beats._at_s.keys() == {running}


@pytest.mark.parametrize("status", ENDED)
def test_cleanup_returns_the_last_state_of_removed_agents(
    manager: SubAgentManager, clocks: Clocks, status: Status
) -> None:
    """A removed agent is returned in its last state, with the LSN of its last change."""
    agent = agent_that_is(manager, status)
    assert manager.cleanup(0) == (replace(agent),)


@pytest.mark.parametrize("ends_again", [False, True])
def test_an_agent_imported_during_cleanup_stays(
    tmp_path: Path, clocks: Clocks, ends_again: bool
) -> None:
    """P6: An agent that was removed and imported again meanwhile is not removed by its id.

    It is live, or has ended only now. Removing a live agent would leave a journal that can't be
    opened.
    """
    older = tmp_path / "agents.json"
    agent = {"id": "x1", "session_name": "one", "prompt": "p", "status": "Running"}
    older.write_text(json.dumps({"schema_version": 1, "agents": [agent]}))
    with SubAgentManager.open(tmp_path) as manager:
        manager.import_legacy(older)
        manager.cancel("x1")
        clocks.pass_s(100)

        def slices(candidates: Any) -> Any:
            patch.undo()
            assert ids(manager.cleanup(0)) == {"x1"}
            manager.import_legacy(older)
            if ends_again:
                manager.cancel("x1")
            return cleanup.slices(candidates)

        patch = pytest.MonkeyPatch()
        patch.setattr("manager.removal.slices", slices)
        assert manager.cleanup(50) == ()
        assert manager.get("x1").status == ("cancelled" if ends_again else "interrupted")
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.get("one").agent_id == "x1"
