"""Crashes of a fleet with tables: an agent's end and its rows are both there, or neither."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from journal import ConflictError, JournalError, Table
from journal._tables.chunked_map import rows_between
from journal._tables.keys import decode_key
from journal.testing import (
    Bounds,
    History,
    ManualOptions,
    Owner,
    SimulatedDisk,
    explore,
    lose,
)
from manager import AgentResult, Limits, SubAgentManager
from manager.agent import get
from manager.fleet import Fleet
from tests.crash.crash_support import Durability, drawn_by
from tests.crash.tables_crash_support import killed_between_pieces
from tests.tiers import examples, slow_unless

# Frames are so small that a commit has several, and a crash may keep only the first of them.
OPTIONS = ManualOptions(record_bytes_max=400, frame_bytes_max=600)
LIMITS = Limits(max_running=100)
LARGE = "large " * 100


def finish(manager: SubAgentManager, agent_id: str, value: str) -> int | None:
    """End an agent and insert its rows, in one transaction."""
    with manager.transaction() as t:
        t[manager.tables.table("results")].insert(agent_id, value)
        t.update_from_result(agent_id, AgentResult("done"))
        t[manager.tables.table("log")].set(agent_id, None, expires_at=4e9)
    return t.lsn


def check_pairs(manager: SubAgentManager) -> None:
    """Check that exactly the agents that have completed have their rows."""
    agents = manager.agents(include_archived=True)
    completed = {agent.agent_id for agent in agents if agent.status == "completed"}
    for name in ("results", "log"):
        assert set(manager.tables.table(name)) == completed


# --- every crash of a workload ---


def session(owner: Owner[Fleet]) -> SubAgentManager:
    """Return a manager of the owner's state, as `SubAgentManager.open` makes it."""
    manager = SubAgentManager(owner.state, LIMITS)
    manager._boot()
    check_pairs(manager)
    return manager


def work(owner: Owner[Fleet]) -> None:
    """Run three sessions whose agents end with rows, small and large, around compactions."""
    manager = session(owner)
    first, second, third = (manager.spawn("x").agent_id for _ in range(3))
    manager.wait_durable(finish(manager, first, "small"))
    manager.compact()
    finish(manager, second, LARGE)
    with pytest.raises(ConflictError):
        finish(manager, second, LARGE)
    manager.wait_durable()
    owner.kill()
    owner.reopen()

    manager = session(owner)
    manager.resume(third)
    finish(manager, third, LARGE)
    manager.compact()
    for _ in range(6):
        finish(manager, manager.spawn("x").agent_id, "small")
    manager.wait_durable()
    with manager.transaction() as t:
        t.spawn("y", name="queued", queued=True)
        t[manager.tables.table("queue")]["queued"] = 1
    owner.power_cut(lose)
    owner.reopen()

    session(owner).close()


@pytest.mark.parametrize(
    ("durability", "rot"),
    slow_unless(lambda _, rot: rot > 1, [("disk", 9), ("disk", 1), ("os", 1)]),
)
def test_every_crash_of_a_workload(
    durability: Durability, rot: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1 to P6: Each crash leaves whole transactions: an agent's end with its rows, or neither."""
    check = History.check

    def check_with_pairs(self: Any, lsn: int, machine: Fleet, *rest: Any) -> None:
        check(self, lsn, machine, *rest)
        agents = machine.rows.values()
        completed = {get.agent_id(row) for row in agents if get.status(row) == "completed"}
        tables: Any = machine.begin_tables()
        for name in ("results", "log"):
            rows = rows_between(tables.chunks_between(name, b"", None), b"", None)
            assert {decode_key(key) for key, _ in rows} == completed

    monkeypatch.setattr(History, "check", check_with_pairs)
    options = replace(OPTIONS, durability=durability, segment_bytes=2000)
    report = explore(Fleet, work, options=options, bounds=Bounds(outcomes_max=8, rot=rot))
    assert report.states > 300


# --- power cuts at any moment ---


class FleetRun(RuleBasedStateMachine):
    """Agents that end together with their rows, with power cuts that keep what was synced."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk()
        self.durable: set[str] = set()  # agents whose end no power cut may take
        self.open()

    def open(self) -> None:
        self.manager = SubAgentManager.open("/w", limits=LIMITS, options=OPTIONS, disk=self.disk)

    def teardown(self) -> None:
        with suppress(JournalError):
            self.manager.close()

    def results(self) -> Table:
        return self.manager.tables.table("results")

    def ended(self) -> set[str]:
        """Return the agents that have rows."""
        return {str(agent_id) for agent_id in self.results()}

    @rule(value=st.sampled_from(["small", LARGE]), is_durable=st.booleans())
    def end(self, value: str, is_durable: bool) -> None:
        agent_id = self.manager.spawn("x").agent_id
        lsn = finish(self.manager, agent_id, value)
        if is_durable:
            self.manager.wait_durable(lsn)
            self.durable |= self.ended()

    @rule()
    def compact(self) -> None:
        self.manager.compact()
        self.durable |= self.ended()

    @rule()
    def spawn_and_end(self) -> None:
        """Spawn an agent and end it, in one transaction."""
        for agent_id in sorted(self.ended())[:1]:
            with self.manager.transaction() as t:
                other = t.spawn("x")
                for name in ("results", "log"):
                    t[self.manager.tables.table(name)].insert(other, "moved")
                t.update_from_result(other, AgentResult(f"like {agent_id}"))

    @rule(data=st.data())
    def power_cut(self, data: st.DataObject) -> None:
        self.cut(data)
        self.recover()

    @rule(data=st.data(), pieces=st.integers(0, 3))
    def power_cut_within_a_transaction(self, data: st.DataObject, pieces: int) -> None:
        """Cut the power after some pieces, or before the record that publishes them."""
        agent_id = self.manager.spawn("x").agent_id

        def written() -> None:
            if data.draw(st.booleans()):
                self.manager.wait_durable()

        with killed_between_pieces(pieces, lambda: self.cut(data), written):
            finish(self.manager, agent_id, LARGE)
        self.recover()

    def cut(self, data: st.DataObject) -> None:
        self.disk.power_cut(drawn_by(data))

    def recover(self) -> None:
        with suppress(JournalError):
            self.manager.close()
        self.open()
        assert self.durable <= self.ended()
        self.durable = self.ended()
        self.manager.wait_durable()

    @invariant()
    def agents_and_rows_agree(self) -> None:
        check_pairs(self.manager)


TestFleetRun = FleetRun.TestCase
TestFleetRun.settings = settings(max_examples=examples(30), stateful_step_count=15)
