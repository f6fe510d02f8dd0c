"""The whole manager against a plain model, with restarts and crashes on the simulated disk."""

from __future__ import annotations

import json
import tempfile
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from journal import JournalError
from journal.testing import seeded
from manager import Agent
from manager.agent import agent_from_row
from tests.manager.fleet_support import contents
from tests.manager.manager_machine import LIMITS, NAMES, refs
from tests.manager.manager_machine_books import Books
from tests.manager.manager_model import LIVE
from tests.manager_support import ids

OLD_STATUSES: dict[str, tuple[Any, str, str | None]] = {
    "Completed": ("Completed", "completed", None),
    "Running": ("Running", "interrupted", "process restarted"),
    "Failed": ({"Failed": "why"}, "failed", "why"),
}
old_agents = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from(sorted(OLD_STATUSES)), st.none() | st.sampled_from(NAMES)
    ),
    max_size=4,
    unique_by=lambda old: old[0],
)


class ManagerMachine(Books):
    """The rules for one agent, plus changes to many, readers of changes, and restarts.

    P1, P2, P3, P6: The fleet after a restart is the model's state as of the recovered LSN.
    """

    # --- changes to many agents ---

    @rule(ref=refs)
    def cancel_all(self, ref: int | str) -> None:
        name = self.ref_of(ref)
        before = self.model.resolve(name)
        if isinstance(before, type):
            self.assert_refused(before, lambda: self.manager.cancel(name, descendants=True))
            return
        family = [before, *self.model.descendants(before.agent_id)]
        live = [agent for agent in family if agent.status in LIVE]
        after = self.manager.cancel(name, descendants=True)
        for agent in live:
            self.note_cancelled(agent, None)
        self.note_batch(len(live))
        assert after == self.as_seen(self.model.agents[before.agent_id])

    @rule(max_age_s=st.sampled_from([0, 0.005, 3600]))
    def cleanup(self, max_age_s: float) -> None:
        at_ms = self.unix_ms + 1
        removable = {
            agent_id: self.as_seen(self.model.agents[agent_id])
            for agent_id in self.model.removable(at_ms - max_age_s * 1000)
        }
        silent = {
            agent.agent_id
            for agent in self.model.live()
            if agent.status == "running" and self.steady_s - self.beats[agent.agent_id] >= 60
        }
        cleaned = {agent.agent_id: agent for agent in self.manager.cleanup(max_age_s)}
        assert cleaned.keys() == removable.keys() | silent
        assert {ref: agent for ref, agent in cleaned.items() if ref in removable} == removable
        for agent_id in removable:
            self.model.remove(agent_id)
        for agent_id in silent:
            after = self.note_cancelled(self.model.agents[agent_id], "no sign of life for 60 s")
            assert cleaned[agent_id] == self.as_seen(after)
        self.note_batch(len(cleaned))

    @rule()
    def retain(self) -> None:
        before = self.model.agents
        dropped = self.manager._retention.run()
        after = ids(self.manager.agents(include_archived=True))
        self.model.agents = {ref: agent for ref, agent in before.items() if ref in after}
        self.model.check_retained(before, self.unix_ms)
        assert dropped == len(before) - len(after)
        self.note_batch(dropped)

    def note_cancelled(self, agent: Agent, reason: str | None) -> Agent:
        now = self.manager.get(agent.agent_id)
        assert now.lsn > max(self.history)
        after = replace(
            agent,
            status="cancelled",
            reason=reason,
            needs_input=None,
            updated_at_ms=self.unix_ms,
            ended_at_ms=self.unix_ms,
            lsn=now.lsn,
        )
        self.model.put(after)
        return after

    def note_batch(self, count: int) -> None:
        """Record a batch of `count` records, of which a crash leaves all or none."""
        if count:
            self.history[max(self.history) + count] = self.model.copy()

    @rule(old=old_agents)
    def import_legacy(self, old: list[tuple[int, str, str | None]]) -> None:
        agents = [
            {
                "id": f"old-{number}",
                "session_name": name,
                "prompt": "p",
                "status": OLD_STATUSES[kind][0],
                "updated_at_ms": 1000 + number * 100,
                "duration_ms": 50,
                "extra": [number],
            }
            for number, kind, name in old
        ]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "old.json")
            path.write_text(json.dumps({"schema_version": 1, "agents": agents}))
            imported = {agent.agent_id: agent for agent in self.manager.import_legacy(path)}
        names_in_use = {name for name in NAMES if self.model.is_name_in_use(name)}
        names: set[str | None] = {None}
        lsn = max(self.history)
        for number, kind, name in old:
            agent_id, (_, status, reason) = f"old-{number}", OLD_STATUSES[kind]
            is_free = status not in LIVE or name not in names
            names |= {name} if status in LIVE else set()
            if agent_id in self.model.agents:
                assert agent_id not in imported
                continue
            if status in LIVE and name in names_in_use:
                is_free = False
            lsn += 1
            agent = imported.pop(agent_id)
            at_ms = 1000 + number * 100
            metadata: dict[str, Any] = {"extra": [number]}
            if not is_free and name is not None:
                metadata["session_name"] = name
            assert (agent.name, agent.metadata) == (
                name if is_free and name is not None else agent_id,
                metadata,
            )
            assert (agent.status, agent.reason, agent.lsn) == (status, reason, lsn)
            assert (agent.started_at_ms, agent.updated_at_ms) == (at_ms - 50, at_ms)
            assert agent.ended_at_ms == (None if status in LIVE else at_ms)
            assert (agent.boot_id, agent.tokens_used, agent.parent_id) == ("", 0, None)
            is_named = agent.name != agent_id
            attempt = self.model.next_attempt(agent.name) if is_named else 1
            assert (agent.attempt, agent.starts) == (attempt, 1)
            self.ids.append(agent_id)
            self.model.own[agent_id] = 0
            self.model.put(agent)
        assert imported == {}
        self.history[lsn] = self.model.copy()
        assert self.manager.stats().durable_lsn >= lsn

    # --- watching ---

    @rule(again=st.booleans())
    def read_changes(self, again: bool) -> None:
        """Read changes, as an idle reader or as a new one: each changed agent is shown once."""
        if again:
            self.reader = self.manager.changes(after=self.read_lsn)
        changed = []
        while (row := self.manager._watch.next_row(self.reader)) is not None:
            changed.append(agent_from_row(row, self.manager.boot_id))
        assert [agent.lsn for agent in changed] == sorted(agent.lsn for agent in changed)
        assert len(changed) == len(ids(changed))
        since = self.read_lsn
        assert {agent.agent_id: agent for agent in changed} == {
            agent.agent_id: self.as_seen(agent)
            for agent in self.model.agents.values()
            # The reader may have seen only some of the agents that share an LSN for their tokens.
            if agent.lsn > since or (again and agent.lsn == since and agent.tokens_used)
        }
        self.read_lsn = max(self.history)

    @rule(ref=refs)
    def wait_ended(self, ref: int | str) -> None:
        name = self.ref_of(ref)
        agent = self.model.resolve(name)
        if isinstance(agent, type):
            self.assert_refused(agent, lambda: self.manager.wait_ended(name))
        elif agent.status in LIVE:
            self.assert_refused(TimeoutError, lambda: self.manager.wait_ended(name, timeout_s=0))
        else:
            assert self.manager.wait_ended(name, timeout_s=60) == self.as_seen(agent)
            assert self.manager.stats().durable_lsn >= agent.lsn

    # --- restarts ---

    @rule(compact=st.booleans())
    def settle(self, compact: bool) -> None:
        if compact:
            self.manager.compact()
            filler_lsn = max(self.history) + 1
            if self.manager.stats().last_lsn == filler_lsn:  # a filler, which changes nothing
                self.history[filler_lsn] = self.model.copy()
        self.manager.wait_durable(timeout_s=60)
        assert self.manager.stats().durable_lsn == max(self.history)

    @rule(
        ending=st.sampled_from(["close", "kill", "power cut"]),
        seed=st.integers(0, 2**16),
        settled=st.booleans(),
    )
    def restart(self, ending: str, seed: int, settled: bool) -> None:
        if settled:
            self.settle(compact=False)
        stats = self.manager.stats()
        at_least = stats.last_lsn if ending == "close" else stats.durable_lsn
        live, last_lsn = contents(self.manager._state.machine), max(self.history)
        if ending == "kill":
            self.disk.kill()
        elif ending == "power cut":
            self.disk.power_cut(seeded(seed))
        with suppress(JournalError, OSError) if ending != "close" else nullcontext():
            self.manager.close()
        self.open()
        assert self.recovered >= at_least
        if self.recovered == last_lsn:
            assert self.contents == live

    # --- invariants ---

    @invariant()
    def the_fleet_is_the_models(self) -> None:
        everyone = sorted(
            (self.as_seen(agent) for agent in self.model.agents.values()),
            key=lambda agent: agent.created_at_ms,
        )
        assert self.manager.agents(include_archived=True) == everyone
        visible = [a for a in everyone if a.status in LIVE or not a.from_prior_session]
        assert self.manager.agents() == visible
        counts = {status: n for status, n in self.manager.counts().items() if n}
        statuses = [agent.status for agent in everyone]
        assert counts == {status: statuses.count(status) for status in statuses}
        for ref in (*NAMES, "nobody", *self.model.agents):
            expected = self.model.resolve(ref)
            if isinstance(expected, type):
                self.assert_refused(expected, lambda ref=ref: self.manager.get(ref))  # type: ignore[misc]
                assert self.manager.find(ref) is None
            else:
                assert self.manager.get(ref) == self.as_seen(expected)

    @invariant()
    def the_inbox_is_the_models(self) -> None:
        """Check that each agent's inbox has its ended children that were not taken."""
        agents = self.model.agents.values()
        untaken = [a for a in agents if a.status not in LIVE and a.taken_by is None]
        for agent in agents:
            of_agent = {each.agent_id for each in untaken if each.parent_id == agent.agent_id}
            assert ids(self.manager.inbox(agent.agent_id)) == of_agent

    @invariant()
    def tokens_are_conserved(self) -> None:
        """Check that an agent's usage includes that of all descendants, removed ones too."""
        for agent in self.manager.agents(include_archived=True):
            assert agent.tokens_used == self.model.used(agent.agent_id)

    @invariant()
    def the_limits_hold(self) -> None:
        imported = sum(agent.boot_id == "" for agent in self.model.live())
        assert len(self.model.live()) - imported <= LIMITS.max_admitted
        assert self.manager.counts()["running"] <= LIMITS.max_running

    def teardown(self) -> None:
        self.manager.close()
        self.patch.undo()


TestManager = ManagerMachine.TestCase
TestManager.settings = settings(stateful_step_count=40)


def test_the_model_refuses_steps_without_a_checkpoint() -> None:
    """Steps without a checkpoint are refused before any agent is looked up, as the model says."""
    machine = ManagerMachine()
    machine.begin(queued=[])
    machine.take(ref=0, by=0, value=None, steps=0)
    machine.begin(queued=[True, True])
    machine.cancel(ref=0, reason=None)
    machine.take(ref=0, by=1, value=None, steps=0)
    machine.the_fleet_is_the_models()
    machine.teardown()
