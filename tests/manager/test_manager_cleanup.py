"""What cleans up: dropping what ended long ago, and cancelling what gives no sign of life."""

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
    """The two that a manager asks: Unix milliseconds, and seconds that nobody sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unix_ms = 1_700_000_000_000
        self.steady_s = 1000.0
        monkeypatch.setattr("manager.manager._now_ms", lambda: self.unix_ms)
        steady = SimpleNamespace(monotonic=lambda: self.steady_s)
        monkeypatch.setattr("manager.cleanup.time", steady)

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


# --- dropping what has ended ---


@pytest.mark.parametrize("status", STATUSES)
def test_cleanup_drops_agents_that_ended_long_ago(
    manager: SubAgentManager, clocks: Clocks, status: Status
) -> None:
    """By age since its end; what has not ended is never dropped. Its id and name are free then."""
    old = agent_that_is(manager, status, name="a name")
    clocks.pass_s(30)
    young = agent_that_is(manager, status)
    assert manager.cleanup(30.001) == ()
    dropped = manager.cleanup(30)
    if status in LIVE:
        assert dropped == ()
        assert ids(manager.agents()) == ids([old, young])
        return
    assert dropped == (old,)
    assert manager.agents() == [young]
    assert manager.counts()[status] == 1
    for ref in (old.agent_id, "a name"):
        with pytest.raises(UnknownAgentError):
            manager.get(ref)
    assert manager.spawn("again", name="a name").name == "a name"


def test_dropping_one_of_several_agents_by_one_name_keeps_the_rest(
    manager: SubAgentManager, clocks: Clocks
) -> None:
    """What is dropped leaves the index of names; the one that is left is no longer ambiguous."""
    manager.cancel(manager.spawn("first", name="same").agent_id)
    clocks.pass_s(60)
    second = manager.cancel(manager.spawn("second", name="same").agent_id)
    assert len(manager.cleanup(60)) == 1
    assert manager.get("same") == second


def test_a_parent_stays_while_a_child_does(manager: SubAgentManager, clocks: Clocks) -> None:
    """A line that has ended goes at once, children first; one that lives keeps its parents."""
    lines = []
    for _ in range(2):
        root = manager.spawn("root")
        middle = manager.spawn("middle", parent_id=root.agent_id)
        lines.append([root, middle, manager.spawn("leaf", parent_id=middle.agent_id)])
    for agent in (*lines[0], *lines[1][:2]):
        manager.cancel(agent.agent_id)
    clocks.pass_s(1)
    assert [a.agent_id for a in manager.cleanup(0)] == [a.agent_id for a in reversed(lines[0])]
    assert ids(manager.agents()) == ids(lines[1])
    manager.record_usage(lines[1][2].agent_id, input_tokens=1, output_tokens=1)
    assert manager.get(lines[1][0].agent_id).tokens_used == 2
    manager.cancel(lines[1][2].agent_id)
    assert len(manager.cleanup(0)) == 3


def test_dropped_agents_never_return(tmp_path: Path, clocks: Clocks) -> None:
    """P6, P8: it is in no checkpoint, and replaying its records leaves nothing of it."""
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        for number in range(200):
            name = f"name {number % 50}" if number % len(STATUSES) > 2 else None
            agent_that_is(manager, STATUSES[number % len(STATUSES)], name=name)
        manager.compact()
        dropped = manager.cleanup(0)
        left = manager.agents()
        assert len(dropped) + len(left) == 200
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        seen = manager.agents(include_archived=True)
        assert ids(seen) == ids(left)
        assert manager.compact().count == len(left)
        assert not ids(seen) & ids(dropped)


@pytest.mark.parametrize("bad", [-1, float("nan")])
def test_a_bad_age_is_refused(manager: SubAgentManager, bad: float) -> None:
    """An age is a number of seconds from 0."""
    with pytest.raises(ValueError, match="max_age_s"):
        manager.cleanup(bad)


# --- heartbeats ---


def test_a_running_agent_without_a_sign_of_life_is_cancelled(
    manager: SubAgentManager, clocks: Clocks
) -> None:
    """After heartbeat_timeout_s; the reason says so. Others may be silent as long as they like."""
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
    """From each on the time counts anew."""
    ref = manager.spawn("work", name="a name").agent_id
    for _ in range(3):
        clocks.pass_s(50)
        SIGNS[sign](manager, ref)
    clocks.pass_s(59)
    assert manager.cleanup(10**6) == ()
    clocks.pass_s(1)
    assert ids(manager.cleanup(10**6)) == {ref}


def test_start_and_resume_are_signs_of_life(manager: SubAgentManager, clocks: Clocks) -> None:
    """The time that an agent did not run does not count."""
    queued = manager.spawn("q", queued=True).agent_id
    stopped = manager.interrupt(manager.spawn("i").agent_id, "later").agent_id
    clocks.pass_s(100)
    manager.start(queued)
    manager.resume(stopped)
    clocks.pass_s(59)
    assert manager.cleanup(10**6) == ()
    clocks.pass_s(1)
    assert ids(manager.cleanup(10**6)) == {queued, stopped}


def test_touch_is_for_running_agents_and_leaves_no_record(
    manager: SubAgentManager, clocks: Clocks
) -> None:
    """Of others it says nothing; nobody's agent is UnknownAgentError. Nothing is journaled."""
    agents = [agent_that_is(manager, status) for status in STATUSES]
    last_lsn = manager.stats().last_lsn
    clocks.pass_s(1)
    for agent in agents:
        manager.touch(agent.agent_id)
        assert manager.get(agent.agent_id) == agent
    with pytest.raises(UnknownAgentError):
        manager.touch("nobody")
    assert manager.stats().last_lsn == last_lsn


def test_a_clock_that_is_set_kills_nobody(manager: SubAgentManager, clocks: Clocks) -> None:
    """Silence is measured on a clock that nobody sets: an hour's jump is no hour of silence."""
    ref = manager.spawn("work").agent_id
    clocks.unix_ms += 3_600_000
    assert manager.cleanup(10**6) == ()
    clocks.unix_ms -= 7_200_000
    clocks.steady_s += 60
    assert ids(manager.cleanup(10**6)) == {ref}


def test_a_sign_of_life_after_it_was_found_saves_it(
    manager: SubAgentManager, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each candidate is checked again under the lock: it may have stirred, or ended, meanwhile."""
    refs = {
        what: manager.spawn(what).agent_id
        for what in ("touched", "updated", "ended", "resumed", "dead")
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
    """Of which no sign of life is known yet, because its start is under way: it counts from now."""
    ref = manager.spawn("work").agent_id
    manager._beats.forget(ref)
    assert manager.cleanup(10**6) == ()
    clocks.pass_s(59)
    assert manager.cleanup(10**6) == ()
    clocks.pass_s(1)
    assert ids(manager.cleanup(10**6)) == {ref}


def test_memory_of_heartbeats_follows_the_fleet(manager: SubAgentManager, clocks: Clocks) -> None:
    """P8: of what has ended or is gone no heartbeat is kept."""
    running = manager.spawn("runs").agent_id
    for _ in range(50):
        ref = manager.spawn("work").agent_id
        manager.touch(ref)
        manager.update_from_result(ref, AgentResult("done"))
    ref = manager.spawn("late").agent_id
    manager.cancel(ref)
    manager._beats.beat(ref)  # as a touch does that comes too late
    manager.cleanup(0)
    manager.cleanup(0)
    assert manager._beats._at_s.keys() == {running}


@pytest.mark.parametrize("status", ENDED)
def test_the_dropped_are_returned_as_they_were(
    manager: SubAgentManager, clocks: Clocks, status: Status
) -> None:
    """Their last state, with the LSN of their last change."""
    agent = agent_that_is(manager, status)
    assert manager.cleanup(0) == (replace(agent),)


@pytest.mark.parametrize("ends_again", [False, True])
def test_an_agent_imported_during_cleanup_stays(
    tmp_path: Path, clocks: Clocks, ends_again: bool
) -> None:
    """P6: removed by another cleanup and imported again, it is another agent of that id: it lives,
    or has ended only now. A live one that is removed would leave a journal that does not open."""
    older = tmp_path / "agents.json"
    agent = {"id": "x1", "session_name": "one", "prompt": "p", "status": "Running"}
    older.write_text(json.dumps({"schema_version": 1, "agents": [agent]}))
    with SubAgentManager.open(tmp_path) as manager:
        manager.import_legacy(older)
        manager.cancel("x1")
        clocks.pass_s(100)

        def slices(found: Any) -> Any:
            patch.undo()
            assert ids(manager.cleanup(0)) == {"x1"}
            manager.import_legacy(older)
            if ends_again:
                manager.cancel("x1")
            return cleanup.slices(found)

        patch = pytest.MonkeyPatch()
        patch.setattr("manager.manager.slices", slices)
        assert manager.cleanup(50) == ()
        assert manager.get("x1").status == ("cancelled" if ends_again else "interrupted")
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.get("one").agent_id == "x1"
