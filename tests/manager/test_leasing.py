"""Leases: agents that workers of other processes run, each result recorded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from journal.testing import SimulatedDisk
from manager import (
    BudgetError,
    CapacityError,
    Limits,
    SubAgentManager,
    TransitionError,
    read_fleet,
    records,
)
from manager.leasing import Leasing, Token, token_of

WORKER = "gpu1.a1"


def open_on(disk: SimulatedDisk, **limits: int) -> SubAgentManager:
    return SubAgentManager.open("/", state_dir="fleet", disk=disk, limits=Limits(**limits))


def begin(manager: SubAgentManager, name: str = "a") -> tuple[Leasing, str, Token]:
    agent = manager.find_or_spawn("work", name=name, queued=True)
    leasing = Leasing(manager)
    token = token_of(leasing.begin(agent.agent_id, WORKER))
    assert token is not None
    return leasing, agent.agent_id, token


def a_result(text: str) -> list[object]:
    return records.result(1, "completed", result=text)


def test_a_lease_names_its_worker_and_has_a_token() -> None:
    """A lease starts the agent. Its token is the epoch and the LSN of its record, and another start
    of the agent has another token."""
    with open_on(SimulatedDisk()) as manager:
        leasing, ref, token = begin(manager)
        agent = manager.get(ref)
        assert (agent.status, agent.starts) == ("running", 1)
        assert agent.lease == {
            "worker": WORKER,
            "epoch": manager._state.journal.epoch,
            "lsn": agent.lsn,
            "sequence": 0,
            "lost": 0,
        }
        assert token == (agent.lease["epoch"], agent.lsn)
        with pytest.raises(TransitionError, match="lease needs a queued or interrupted agent"):
            leasing.begin(ref, WORKER)
        manager.interrupt(ref, "handed back")
        assert token_of(leasing.begin(ref, "cpu.b2")) == (token.epoch, manager.get(ref).lsn)
        manager.interrupt(ref, "handed back")
        assert manager.resume(ref).lease is None  # it runs in this process now


def test_a_report_is_recorded_once() -> None:
    """A report that is repeated, late or of an older lease changes nothing, and one that comes
    after the end of its lease is over."""
    with open_on(SimulatedDisk()) as manager:
        leasing, ref, token = begin(manager)
        step = records.checkpoint(1, {"at": 1}, 4)
        outcome, lsn = leasing.report(ref, token, 1, step)
        agent = manager.get(ref)
        assert (outcome, lsn) == ("recorded", agent.lsn)
        assert (agent.checkpoint, agent.steps_taken) == ({"at": 1}, 4)
        assert leasing.report(ref, token, 1, records.checkpoint(1, {"at": 9}, 9)) == (outcome, lsn)
        lower = records.checkpoint(1, {"at": 2}, 2)  # steps never fall
        assert leasing.report(ref, token, 3, lower)[0] == "recorded"
        assert leasing.report(ref, token, 2, step) == ("recorded", manager.get(ref).lsn)
        assert (manager.get(ref).checkpoint, manager.get(ref).steps_taken) == ({"at": 2}, 4)
        other = Token(token.epoch, token.lsn + 1)
        assert leasing.report(ref, other, 9, a_result("forged"))[0] == "over"
        unknown = leasing.report("agent_0", token, 9, a_result("forged"))
        assert unknown == ("over", manager._state.journal.last_lsn)
        assert leasing.report(ref, token, 4, a_result("done"))[0] == "recorded"
        ended = manager.get(ref)
        assert (ended.status, ended.result) == ("completed", "done")
        assert ended.lease is not None
        assert (token.epoch, token.lsn) == (ended.lease["epoch"], ended.lease["lsn"])
        assert leasing.report(ref, token, 4, a_result("again")) == ("recorded", ended.lsn)
        assert leasing.report(ref, token, 5, a_result("again")) == ("over", ended.lsn)
        assert manager.get(ref) == ended


def test_a_report_of_a_cancelled_agent_is_over() -> None:
    """A cancellation ends the lease: it does not go on, and its result changes nothing."""
    with open_on(SimulatedDisk()) as manager:
        leasing, ref, token = begin(manager)
        other, other_token = begin(manager, "b")[1:]
        assert leasing.held([(ref, token), (other, other_token)])[0] == [True, True]
        cancelled = manager.cancel(ref)
        held = leasing.held([(ref, token), (other, other_token)])
        assert held == ([False, True], cancelled.lsn)
        assert leasing.report(ref, token, 1, a_result("late")) == ("over", cancelled.lsn)
        assert manager.get(ref) == cancelled
        gone = leasing.held([("agent_0", token)])
        assert gone == ([False], manager._state.journal.last_lsn)


def test_a_checkpoint_over_the_limit_is_refused() -> None:
    """A report with a checkpoint over `checkpoint_bytes_max` raises, and changes nothing."""
    with open_on(SimulatedDisk(), checkpoint_bytes_max=100) as manager:
        leasing, ref, token = begin(manager)
        before = manager.get(ref)
        with pytest.raises(ValueError, match="checkpoint_bytes_max=100"):
            leasing.report(ref, token, 1, records.checkpoint(1, "x" * 101, 1))
        assert manager.get(ref) == before


def test_an_agent_fails_when_its_worker_was_lost_too_often() -> None:
    """A lost lease interrupts the agent, and the last one that is allowed fails it."""
    with open_on(SimulatedDisk()) as manager:
        for lost in (1, 2):
            leasing, ref, token = begin(manager)
            row = leasing.lose(ref, token, 3)
            assert row is not None
            agent = manager.get(ref)
            assert (agent.status, agent.reason) == ("interrupted", "worker lost")
            assert agent.lease is not None
            assert agent.lease["lost"] == lost
            assert leasing.lose(ref, token, 3) is None
            assert leasing.report(ref, token, 1, a_result("late"))[0] == "over"
        leasing, ref, token = begin(manager)
        leasing.lose(ref, token, 3)
        agent = manager.get(ref)
        assert (agent.status, agent.reason) == ("failed", "its worker was lost 3 times")
        assert agent.ended_at_ms is not None


def test_limits_hold_for_leases() -> None:
    """A lease needs a free place and a budget, as a start does. Its epoch is not a budget."""
    with open_on(SimulatedDisk(), max_running=1) as manager:
        leasing, ref, token = begin(manager)
        spent = manager.spawn("work", queued=True, token_budget=1)
        with pytest.raises(CapacityError):
            leasing.begin(spent.agent_id, WORKER)
        leasing.report(ref, token, 1, a_result("done"))
        manager.record_usage(spent.agent_id, input_tokens=2, output_tokens=0)
        with pytest.raises(BudgetError):
            leasing.begin(spent.agent_id, WORKER)


def test_leased_agents_run_on_while_no_manager_lives(tmp_path: Path) -> None:
    """An open interrupts only the agents that the ended process ran itself, and readers agree."""
    with SubAgentManager.open(tmp_path) as manager:
        _, leased, token = begin(manager)
        local = manager.spawn("work").agent_id
    path = tmp_path / ".subagents"
    view = read_fleet(path)
    assert [view.get(ref).status for ref in (leased, local)] == ["running", "interrupted"]
    with SubAgentManager.open(tmp_path) as manager:
        assert [manager.get(ref).status for ref in (leased, local)] == ["running", "interrupted"]
        manager.compact()
        leasing = Leasing(manager)
        assert leasing.epoch > token.epoch
        assert leasing.held([(leased, token)])[0] == [True]
        assert leasing.report(leased, token, 1, a_result("done"))[0] == "recorded"
    assert read_fleet(path).get(leased).result == "done"


@pytest.mark.parametrize("change", ["cancel", "checkpoint"])
def test_a_report_is_judged_by_the_row_under_the_lock(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that another change overtakes, before it has the lock, is judged after that
    change."""
    with open_on(SimulatedDisk()) as manager:
        leasing, ref, token = begin(manager)
        report = manager._updates.report

        def overtaken(*arguments: Any) -> int | None:
            monkeypatch.undo()
            if change == "cancel":
                manager.cancel(ref)
            else:
                leasing.report(ref, token, 2, records.checkpoint(1, {"at": 9}, 9))
            return report(*arguments)

        monkeypatch.setattr(manager._updates, "report", overtaken)
        outcome, lsn = leasing.report(ref, token, 1, records.checkpoint(1, {"at": 1}, 4))
        agent = manager.get(ref)
        assert outcome == ("over" if change == "cancel" else "recorded")
        assert lsn == agent.lsn == manager._state.journal.last_lsn
        assert agent.steps_taken == (0 if change == "cancel" else 9)


def test_steps_never_fall_with_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report with fewer steps than the agent has taken keeps these, also if they were counted
    just before it got the lock."""
    with open_on(SimulatedDisk()) as manager:
        leasing, ref, token = begin(manager)
        update_batch = manager._state.update_batch

        def overtaken(*arguments: Any, **options: Any) -> int | None:
            monkeypatch.undo()
            manager.update_checkpoint(ref, {"at": 7}, steps_taken=7)
            return update_batch(*arguments, **options)

        for sequence in (1, 2):
            leasing.report(ref, token, sequence, records.checkpoint(1, {"at": 1}, 4))
            assert manager.get(ref).steps_taken == (4, 7)[sequence - 1]
            monkeypatch.setattr(manager._state, "update_batch", overtaken)
