"""The manager against a plain dict of agents, with restarts and crashes on the simulated disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from journal import DurableState, JournalError, Options
from journal.testing import SimulatedDisk, seeded
from manager import (
    Agent,
    AgentResult,
    AmbiguousNameError,
    CapacityError,
    Limits,
    ManagerError,
    NameInUseError,
    SubAgentManager,
    TransitionError,
    UnknownAgentError,
)
from manager.agent import agent_from_row
from manager.fleet import Fleet

LIMITS = Limits(max_running=3, max_admitted=6, max_depth=2)
# Small, so that segments roll and checkpoints are made while an example runs.
OPTIONS = Options(segment_bytes=4096, checkpoint_min_bytes=1024, checkpoint_growth=0.5)
LIVE = ("queued", "running", "interrupted")
NAMES = ("ann", "bob")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | texts
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
tokens = st.integers(0, 1000)


# A number stands for one of the agents ever spawned. No bundle, and one seed for what a crash
# leaves: threads decide how much of a session a crash takes, and what Hypothesis draws must not
# depend on it.
refs = st.integers(0, 9) | st.sampled_from(NAMES)


class ManagerMachine(RuleBasedStateMachine):
    """Every method does what the dict says it does, or raises what the dict says and changes
    nothing; and what a restart brings back is what the dict held at that LSN."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk()
        self.model: dict[str, Agent] = {}
        self.ids: list[str] = []
        # The model after each LSN at which a change was complete.
        self.history: dict[int, dict[str, Agent]] = {0: {}}
        self.open()

    def open(self) -> None:
        """Recover without writing, compare, and begin a session as the manager does."""
        with DurableState.open("/w/.subagents", Fleet(), options=OPTIONS, disk=self.disk) as state:
            self.recovered = state.journal.last_lsn
            rows = list(state.machine.rows.freeze())
        self.model = self.history[self.recovered].copy()
        found = [agent_from_row(row, "") for row in rows]
        assert found == [replace(a, from_prior_session=True) for a in self.model.values()]

        self.manager = SubAgentManager.open("/w", limits=LIMITS, options=OPTIONS, disk=self.disk)
        self.history = {lsn: m for lsn, m in self.history.items() if lsn <= self.recovered}
        lsn = self.recovered + 1
        self.history[lsn] = self.model.copy()
        for agent in [a for a in self.model.values() if a.status == "running"]:
            lsn += 1
            self.model[agent.agent_id] = replace(
                agent,
                status="interrupted",
                reason="process restarted",
                needs_input=None,
                updated_at_ms=self.manager.get(agent.agent_id).updated_at_ms,
                lsn=lsn,
            )
        self.history[lsn] = self.model.copy()

    # --- changes ---

    @initialize(queued=st.lists(st.booleans(), max_size=5))
    def begin(self, queued: list[bool]) -> None:
        for number, waits in enumerate(queued):
            self.spawn(NAMES[number] if number < len(NAMES) else None, None, waits, {})

    @rule(
        name=st.none() | st.sampled_from(NAMES),
        parent=st.none() | refs,
        queued=st.booleans(),
        metadata=st.dictionaries(texts, json_values, max_size=2),
    )
    def spawn(
        self, name: str | None, parent: int | str | None, queued: bool, metadata: dict[str, Any]
    ) -> None:
        parent_id = None if parent is None else self.named(parent)

        def call() -> Agent:
            return self.manager.spawn(
                "p", name=name, parent_id=parent_id, queued=queued, metadata=metadata
            )

        above = None if parent_id is None else self.resolve(parent_id)
        if isinstance(above, type):
            self.refused(above, call)
        elif above is not None and above.spawn_depth >= LIMITS.max_depth:
            self.refused(CapacityError, call)
        elif any(a.name == name for a in self.live()):
            self.refused(NameInUseError, call)
        elif len(self.live()) >= LIMITS.max_admitted or (not queued and self.is_full()):
            self.refused(CapacityError, call)
        else:
            made = call()
            status = "queued" if queued else "running"
            assert (made.status, made.prompt, made.metadata) == (status, "p", metadata)
            assert made.name == (name or made.agent_id)
            assert made.parent_id == (above.agent_id if above else None)
            assert made.spawn_depth == (above.spawn_depth + 1 if above else 0)
            assert made.boot_id == self.manager.boot_id
            assert (made.reason, made.result, made.tokens_used) == (None, None, 0)
            assert (made.started_at_ms is None) == queued
            self.ids.append(made.agent_id)
            self.changed(made)

    @rule(ref=refs, verb=st.sampled_from(["start", "resume"]))
    def run(self, ref: int | str, verb: str) -> None:
        source = "queued" if verb == "start" else "interrupted"
        self.change(
            ref,
            (source,),
            lambda ref: getattr(self.manager, verb)(ref),
            status="running",
            reason=None,
            needs_input=None,
            boot_id=self.manager.boot_id,
        )

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
        kept = {} if value is None else {"checkpoint": value}
        self.change(
            ref,
            ("running",),
            lambda ref: self.manager.interrupt(
                ref, reason, checkpoint=value, needs_input=needs_input
            ),
            status="interrupted",
            reason=reason,
            needs_input=needs_input,
            **kept,
        )

    @rule(
        ref=refs,
        status=st.sampled_from(
            ["completed", "failed", "cancelled", "interrupted", "budget_exhausted"]
        ),
        result=st.none() | texts,
        reason=st.none() | texts,
        value=json_values,
        used=st.tuples(tokens, tokens),
    )
    def update_from_result(
        self,
        ref: int | str,
        status: Any,
        result: str | None,
        reason: str | None,
        value: Any,
        used: tuple[int, int],
    ) -> None:
        kept = {"result": result, "checkpoint": value}
        outcome = AgentResult(
            result,
            status=status,
            reason=reason,
            checkpoint=value,
            input_tokens=used[0],
            output_tokens=used[1],
        )
        self.change(
            ref,
            ("running",),
            lambda ref: self.manager.update_from_result(ref, outcome),
            status=status,
            reason=reason,
            needs_input=None,
            added=sum(used),
            **{field: kept for field, kept in kept.items() if kept is not None},
        )

    @rule(ref=refs, error=texts)
    def update_failed(self, ref: int | str, error: str) -> None:
        self.change(
            ref,
            ("running",),
            lambda ref: self.manager.update_failed(ref, error),
            status="failed",
            reason=error,
            needs_input=None,
        )

    @rule(ref=refs)
    def cancel(self, ref: int | str) -> None:
        before = self.resolve(self.named(ref))
        if isinstance(before, type) or before.status in LIVE:
            self.change(
                ref,
                LIVE,
                self.manager.cancel,
                status="cancelled",
                reason=None,
                needs_input=None,
            )
        else:
            assert self.manager.cancel(self.named(ref)) == self.seen(before)

    # --- restarts ---

    @rule(compact=st.booleans())
    def settle(self, compact: bool) -> None:
        if compact:
            self.manager.compact()
        self.manager.wait_durable(timeout_s=60)
        assert self.manager.stats().durable_lsn == max(self.history)

    @rule(
        how=st.sampled_from(["close", "kill", "power cut"]),
        seed=st.integers(0, 2**16),
        settled=st.booleans(),
    )
    def restart(self, how: str, seed: int, settled: bool) -> None:
        if settled:
            self.settle(compact=False)
        stats = self.manager.stats()
        at_least = stats.last_lsn if how == "close" else stats.durable_lsn
        if how == "kill":
            self.disk.kill()
        elif how == "power cut":
            self.disk.power_cut(seeded(seed))
        with suppress(JournalError, OSError) if how != "close" else nullcontext():
            self.manager.close()
        self.open()
        assert self.recovered >= at_least

    # --- what must hold ---

    @invariant()
    def the_fleet_is_the_models(self) -> None:
        everyone = [self.seen(agent) for agent in self.model.values()]
        assert self.manager.agents(include_archived=True) == everyone
        shown = [a for a in everyone if a.status in LIVE or not a.from_prior_session]
        assert self.manager.agents() == shown
        counts = {status: n for status, n in self.manager.counts().items() if n}
        statuses = [agent.status for agent in everyone]
        assert counts == {status: statuses.count(status) for status in statuses}
        for ref in (*NAMES, "nobody", *self.model):
            expected = self.resolve(ref)
            if isinstance(expected, type):
                self.refused(expected, lambda ref=ref: self.manager.get(ref))  # type: ignore[misc]
            else:
                assert self.manager.get(ref) == self.seen(expected)

    def teardown(self) -> None:
        self.manager.close()

    # --- the model ---

    def live(self) -> list[Agent]:
        return [agent for agent in self.model.values() if agent.status in LIVE]

    def is_full(self) -> bool:
        running = [agent for agent in self.model.values() if agent.status == "running"]
        return len(running) >= LIMITS.max_running

    def seen(self, agent: Agent) -> Agent:
        return replace(agent, from_prior_session=agent.boot_id != self.manager.boot_id)

    def named(self, ref: int | str) -> str:
        if isinstance(ref, str):
            return ref
        return self.ids[ref % len(self.ids)] if self.ids else "nobody"

    def resolve(self, ref: str) -> Agent | type[ManagerError]:
        if ref in self.model:
            return self.model[ref]
        named = [agent for agent in self.model.values() if agent.name == ref]
        live = [agent for agent in named if agent.status in LIVE]
        if live or len(named) == 1:
            return (live or named)[0]
        return AmbiguousNameError if named else UnknownAgentError

    def refused(self, error: type[ManagerError], call: Callable[[], object]) -> None:
        with pytest.raises(error):
            call()

    def change(
        self,
        ref: int | str,
        sources: tuple[str, ...],
        call: Callable[[str], Agent],
        *,
        added: int = 0,
        **fields: Any,
    ) -> None:
        name = self.named(ref)
        before = self.resolve(name)
        if isinstance(before, type):
            self.refused(before, lambda: call(name))
        elif before.status not in sources:
            self.refused(TransitionError, lambda: call(name))
        elif fields.get("status") == "running" and self.is_full():
            self.refused(CapacityError, lambda: call(name))
        else:
            after = call(name)
            ended = after.status not in LIVE
            assert (after.ended_at_ms is not None) == ended
            assert (
                self.seen(
                    replace(
                        before,
                        **fields,
                        tokens_used=before.tokens_used + added,
                        started_at_ms=after.started_at_ms,
                        updated_at_ms=after.updated_at_ms,
                        ended_at_ms=after.ended_at_ms,
                        lsn=after.lsn,
                    )
                )
                == after
            )
            self.changed(after, added=added)

    def changed(self, after: Agent, *, added: int = 0) -> None:
        assert after.lsn == max(self.history) + 1
        self.model[after.agent_id] = after
        above = after.parent_id
        while added and above is not None:
            agent = self.model[above]
            self.model[above] = replace(agent, tokens_used=agent.tokens_used + added, lsn=after.lsn)
            above = agent.parent_id
        self.history[after.lsn] = self.model.copy()


TestManager = ManagerMachine.TestCase
TestManager.settings = settings(max_examples=40, stateful_step_count=40)
