"""The manager next to its model: the start of a session, and changes to one agent at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from journal import DurableState, Options
from journal.testing import SimulatedDisk
from manager import (
    Agent,
    AgentResult,
    BudgetError,
    CapacityError,
    Limits,
    NameInUseError,
    SubAgentManager,
    TransitionError,
)
from manager.agent import TRANSITIONS, agent_from_row
from manager.fleet import Fleet
from tests.manager.fleet_support import contents
from tests.manager.manager_model import LIVE, Model

LIMITS = Limits(
    max_running=3,
    max_admitted=8,
    max_depth=2,
    heartbeat_timeout_s=60,
    keep_ended_s=1800,
    keep_ended_max=4,
)
# Both are small, so that segments roll and checkpoints are made while an example runs.
OPTIONS = Options(segment_bytes=4096, checkpoint_min_bytes=1024, checkpoint_growth=0.5)
NAMES = ("ann", "bob")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | texts
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
tokens = st.integers(0, 60)
outcomes = st.builds(
    AgentResult,
    st.none() | texts,
    status=st.sampled_from(TRANSITIONS["running"]),
    reason=st.none() | texts,
    steps_taken=st.none() | st.integers(0, 2**63),
    checkpoint=json_values,
    needs_input=json_values,
    input_tokens=tokens,
    output_tokens=tokens,
)

# A ref is a name, or a number that stands for one of the agents ever spawned. There is no
# Hypothesis bundle, and a single seed decides what a crash leaves: threads decide how much of a
# session a crash takes, and what Hypothesis draws must not depend on that.
refs = st.integers(0, 9) | st.sampled_from(NAMES)


class OneAgent(RuleBasedStateMachine):
    """A machine whose rules are the manager's methods.

    Each one does what the model says, or raises the error that the model names and changes nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unix_ms, self.steady_s = 1_700_000_000_000, 0.0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("manager.clock.now_ms", self.tick)
        # Its thread would drop agents at any time. The rule `retain` calls it instead.
        self.patch.setattr("manager.retention.Retention.check", lambda self: None)
        steady = SimpleNamespace(monotonic=lambda: self.steady_s)
        self.patch.setattr("manager.cleanup.clock", steady)
        self.disk = SimulatedDisk()
        self.model = Model(LIMITS)
        self.ids: list[str] = []
        # The model after each LSN at which a change was complete.
        self.history: dict[int, Model] = {0: self.model.copy()}
        self.open()

    def tick(self) -> int:
        """Return a new time for each change."""
        self.unix_ms += 1
        return self.unix_ms

    def open(self) -> None:
        """Recover without writing, compare, and begin a session as the manager does."""
        with DurableState.open("/w/.subagents", Fleet(), options=OPTIONS, disk=self.disk) as state:
            self.recovered = state.journal.last_lsn
            rows = list(state.machine.rows.freeze())
            self.contents = contents(state.machine)
        self.model = self.history[self.recovered].copy()
        recovered_agents = {row[0]: agent_from_row(row, "") for row in rows}
        assert recovered_agents == {
            agent.agent_id: replace(agent, from_prior_session=agent.boot_id != "")
            for agent in self.model.agents.values()
        }
        self.manager = SubAgentManager.open("/w", limits=LIMITS, options=OPTIONS, disk=self.disk)
        self.beats: dict[str, float] = {}
        self.history = {lsn: m for lsn, m in self.history.items() if lsn <= self.recovered}
        lsn = self.recovered + 1
        self.history[lsn] = self.model.copy()
        for row in rows:  # in the order of the fleet's table
            agent = self.model.agents[row[0]]
            if agent.status == "running":
                lsn += 1
                now = self.manager.get(agent.agent_id)
                self.model.put(
                    replace(
                        agent,
                        status="interrupted",
                        reason="process restarted",
                        needs_input=None,
                        updated_at_ms=now.updated_at_ms,
                        lsn=lsn,
                    )
                )
        self.history[lsn] = self.model.copy()
        self.reader = self.manager.changes()
        self.read_lsn = lsn

    # --- changes ---

    @initialize(queued=st.lists(st.booleans(), max_size=5))
    def begin(self, queued: list[bool]) -> None:
        for number, waits in enumerate(queued):
            name = NAMES[number] if number < len(NAMES) else None
            self.spawn(name, 0 if number == 4 else None, waits, None, {})

    @rule(
        name=st.none() | st.sampled_from(NAMES),
        parent=st.none() | refs,
        queued=st.booleans(),
        budget=st.none() | st.integers(1, 100),
        metadata=st.dictionaries(texts, json_values, max_size=2),
    )
    def spawn(
        self,
        name: str | None,
        parent: int | str | None,
        queued: bool,
        budget: int | None,
        metadata: dict[str, Any],
    ) -> None:
        parent_id = None if parent is None else self.ref_of(parent)

        def call() -> Agent:
            return self.manager.spawn(
                "p",
                name=name,
                parent_id=parent_id,
                queued=queued,
                token_budget=budget,
                metadata=metadata,
            )

        above = None if parent_id is None else self.model.resolve(parent_id)
        if isinstance(above, type):
            self.assert_refused(above, call)
        elif above is not None and self.model.is_spent(above.agent_id):
            self.assert_refused(BudgetError, call)
        elif above is not None and above.spawn_depth >= LIMITS.max_depth:
            self.assert_refused(CapacityError, call)
        elif name is not None and self.model.is_name_in_use(name):
            self.assert_refused(NameInUseError, call)
        elif len(self.model.live()) >= LIMITS.max_admitted or (not queued and self.model.is_full()):
            self.assert_refused(CapacityError, call)
        else:
            attempt = 1 if name is None else self.model.next_attempt(name)
            agent = call()
            status = "queued" if queued else "running"
            assert (agent.attempt, agent.starts) == (attempt, int(not queued))
            assert (agent.status, agent.prompt, agent.metadata) == (status, "p", metadata)
            assert (agent.name, agent.token_budget) == (name or agent.agent_id, budget)
            assert agent.parent_id == (above.agent_id if above else None)
            assert agent.spawn_depth == (above.spawn_depth + 1 if above else 0)
            assert agent.boot_id == self.manager.boot_id
            assert (agent.reason, agent.result, agent.tokens_used) == (None, None, 0)
            assert (agent.started_at_ms is None) == queued
            self.ids.append(agent.agent_id)
            self.beat(agent)
            self.note_change(agent)

    @rule(ref=refs)
    def start(self, ref: int | str) -> None:
        self.begin_to_run(ref, "queued", self.manager.start)

    @rule(ref=refs, value=json_values, budget=st.none() | st.integers(1, 200))
    def resume(self, ref: int | str, value: Any, budget: int | None) -> None:
        new = {"checkpoint": value, "token_budget": budget}
        self.begin_to_run(
            ref,
            "interrupted",
            lambda ref: self.manager.resume(ref, checkpoint=value, token_budget=budget),
            **{field: value for field, value in new.items() if value is not None},
        )

    def begin_to_run(
        self, ref: int | str, source: str, call: Callable[[str], Agent], **fields: Any
    ) -> None:
        fields |= {"status": "running", "reason": None, "needs_input": None}
        self.change(ref, (source,), call, boot_id=self.manager.boot_id, **fields)

    @rule(ref=refs, value=json_values, steps=st.integers(0, 2**63))
    def update_checkpoint(self, ref: int | str, value: Any, steps: int) -> None:
        self.change(
            ref,
            ("running",),
            lambda ref: self.manager.update_checkpoint(ref, value, steps_taken=steps),
            checkpoint=value,
            steps_taken=steps,
        )

    @rule(ref=refs, reason=texts, value=json_values, needs_input=json_values)
    def interrupt(self, ref: int | str, reason: str, value: Any, needs_input: Any) -> None:
        optional: dict[str, Any] = {} if value is None else {"checkpoint": value}
        if needs_input is not None:
            optional["answer"] = None
        self.change(
            ref,
            ("running",),
            lambda ref: self.manager.interrupt(
                ref, reason, checkpoint=value, needs_input=needs_input
            ),
            status="interrupted",
            reason=reason,
            needs_input=needs_input,
            **optional,
        )

    @rule(ref=refs, outcome=outcomes)
    def update_from_result(self, ref: int | str, outcome: AgentResult) -> None:
        optional = {
            field: getattr(outcome, field) for field in ("result", "checkpoint", "steps_taken")
        }
        if outcome.needs_input is not None:
            optional["answer"] = None
        self.change(
            ref,
            ("running",) if outcome.status == "interrupted" else ("running", "interrupted"),
            lambda ref: self.manager.update_from_result(ref, outcome),
            status=outcome.status,
            reason=outcome.reason,
            needs_input=outcome.needs_input,
            added=outcome.input_tokens + outcome.output_tokens,
            **{k: v for k, v in optional.items() if v is not None or k == "answer"},
        )

    @rule(ref=refs, error=texts)
    def update_failed(self, ref: int | str, error: str) -> None:
        self.change(
            ref,
            ("running", "interrupted"),
            lambda ref: self.manager.update_failed(ref, error),
            status="failed",
            reason=error,
            needs_input=None,
        )

    @rule(ref=refs)
    def touch(self, ref: int | str) -> None:
        agent = self.model.resolve(self.ref_of(ref))
        if isinstance(agent, type):
            self.assert_refused(agent, lambda: self.manager.touch(self.ref_of(ref)))
        else:
            self.manager.touch(agent.agent_id)
            self.beat(agent)

    @rule(seconds=st.sampled_from([1, 59, 60, 3600]))
    def pass_time(self, seconds: int) -> None:
        self.unix_ms += seconds * 1000
        self.steady_s += seconds

    # --- checks against the model ---
    def as_seen(self, agent: Agent) -> Agent:
        return replace(agent, from_prior_session=agent.boot_id != self.manager.boot_id)

    def ref_of(self, ref: int | str) -> str:
        if isinstance(ref, str):
            return ref
        return self.ids[ref % len(self.ids)] if self.ids else "nobody"

    def beat(self, agent: Agent) -> None:
        self.beats[agent.agent_id] = self.steady_s

    def assert_refused(self, error: type[Exception], call: Callable[[], object]) -> None:
        with pytest.raises(error):
            call()

    def change(
        self,
        ref: int | str,
        sources: tuple[str, ...] | None,
        call: Callable[[str], Agent],
        *,
        added: int = 0,
        **fields: Any,
    ) -> None:
        """Call the manager for an agent, and compare the outcome with the model.

        `sources` are the statuses that allow the call; None allows all of them.
        """
        name = self.ref_of(ref)
        before = self.model.resolve(name)
        if isinstance(before, type):
            self.assert_refused(before, lambda: call(name))
            return
        begins = fields.get("status") == "running"
        if begins or before.status == "running":
            self.beat(before)
        if sources is not None and before.status not in sources:
            self.assert_refused(TransitionError, lambda: call(name))
        elif begins and self.model.is_spent(before.agent_id, fields.get("token_budget")):
            self.assert_refused(BudgetError, lambda: call(name))
        elif begins and self.model.is_full():
            self.assert_refused(CapacityError, lambda: call(name))
        else:
            after = call(name)
            assert (after.ended_at_ms is not None) == (after.status not in LIVE)
            fields["starts"] = before.starts + begins
            fields["steps_taken"] = max(before.steps_taken, fields.get("steps_taken", 0))
            times = ("started_at_ms", "updated_at_ms", "ended_at_ms", "lsn")
            fields |= {field: getattr(after, field) for field in times}
            used = before.tokens_used + added
            assert self.as_seen(replace(before, **fields, tokens_used=used)) == after
            self.note_change(after, added=added)

    def note_change(self, after: Agent, *, added: int = 0) -> None:
        assert after.lsn == max(self.history) + 1
        self.model.put(after, added=added)
        self.history[after.lsn] = self.model.copy()
