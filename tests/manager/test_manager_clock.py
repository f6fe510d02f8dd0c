"""The clock of a manager's machine: what is true whatever time it shows."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from manager import AgentResult, SubAgentManager


def test_a_clock_before_1970_shows_1970(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes have the time 0 if the clock shows one before 1970, as a test of a program may set
    it, and the state opens again."""
    monkeypatch.setattr("time.time_ns", lambda: -(10**18))
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("p", name="a")
        manager.update_checkpoint("a", {"half": True}, steps_taken=1)
        agent = manager.update_from_result("a", AgentResult("done"))
    assert agent.created_at_ms == agent.ended_at_ms == 0
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.get("a").result == "done"


def test_the_oldest_queued_agent_starts_first(
    manager: SubAgentManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents of several types start in the order in which they were spawned, although the clock was
    set back meanwhile."""
    now_ms = count(1_700_000_000_000, -5000)
    monkeypatch.setattr("manager.clock.now_ms", lambda: next(now_ms))
    for name in "abcd":
        manager.spawn("p", name=name, agent_type="odd" if name in "ac" else "even", queued=True)
    started = [manager.start_next(["even", "odd"]) for _ in range(4)]
    assert [agent and agent.name for agent in started] == [*"abcd"]
