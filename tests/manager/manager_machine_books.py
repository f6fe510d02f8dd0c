"""The manager next to its model: deliveries, answers, budgets, progress and the queue."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from manager import Agent, AlreadyTakenError, TransitionError
from tests.manager.manager_machine import OneAgent, json_values, refs, texts, tokens
from tests.manager.manager_model import LIVE


class Books(OneAgent):
    """The rules for what a fleet keeps beside the life of an agent."""

    @rule()
    def start_next(self) -> None:
        queued = sorted(
            (agent for agent in self.model.live() if agent.status == "queued"),
            key=lambda agent: agent.created_at_ms,
        )
        due = [a for a in queued if not self.model.is_spent(a.agent_id)]
        if not due or self.model.is_full():
            assert self.manager.start_next() is None
        else:
            fields: dict[str, Any] = {"status": "running", "boot_id": self.manager.boot_id}
            self.change(
                self.ids.index(due[0].agent_id),
                ("queued",),
                lambda ref: self.manager.start_next() or pytest.fail("none has started"),
                **fields,
            )

    @rule(ref=refs, value=json_values.filter(lambda value: value is not None))
    def answer(self, ref: int | str, value: Any) -> None:
        self.change(
            ref, ("interrupted",), lambda ref: self.manager.answer(ref, value), answer=value
        )

    @rule(ref=refs, budget=st.none() | st.integers(1, 200))
    def set_token_budget(self, ref: int | str, budget: int | None) -> None:
        self.change(
            ref, None, lambda ref: self.manager.set_token_budget(ref, budget), token_budget=budget
        )

    @rule(ref=refs, text=texts, data=json_values)
    def progress(self, ref: int | str, text: str, data: Any) -> None:
        before = self.model.resolve(self.ref_of(ref))
        number = 0
        if isinstance(before, Agent) and before.progress is not None:
            number = before.progress["number"]
        event = {"number": number + 1, "at_ms": self.unix_ms + 1, "text": text, "data": data}
        self.change(
            ref, ("running",), lambda ref: self.manager.progress(ref, text, data), progress=event
        )

    @rule(ref=refs, by=refs, value=json_values, steps=st.none() | st.integers(0, 2**63))
    def take(self, ref: int | str, by: int | str, value: Any, steps: int | None) -> None:
        refs = self.ref_of(ref), self.ref_of(by)

        def call() -> Agent:
            return self.manager.take(refs[0], by=refs[1], checkpoint=value, steps_taken=steps)

        if value is None and steps is not None:
            self.assert_refused(ValueError, call)
            return
        agent, taker = map(self.model.resolve, refs)
        if isinstance(agent, type):
            self.assert_refused(agent, call)
            return
        if isinstance(taker, type):
            self.assert_refused(taker, call)
            return
        has_progress = value is not None
        if agent.status in LIVE:
            self.assert_refused(TransitionError, call)
        elif agent.taken_by is not None:
            self.assert_refused(AlreadyTakenError, call)
        elif agent.agent_id == taker.agent_id:
            self.assert_refused(ValueError, call)
        elif has_progress and taker.status != "running":
            self.assert_refused(TransitionError, call)
        else:
            after = call()
            at_ms = self.unix_ms
            taken: dict[str, Any] = {
                "taken_by": taker.agent_id,
                "taken_at_ms": at_ms,
                "updated_at_ms": at_ms,
            }
            assert self.as_seen(replace(agent, **taken, lsn=after.lsn)) == after
            self.model.put(after)
            if has_progress:
                self.beat(taker)
                progress: dict[str, Any] = {
                    "checkpoint": value,
                    "steps_taken": max(taker.steps_taken, steps or 0),
                }
                self.model.put(replace(taker, **progress, updated_at_ms=at_ms, lsn=after.lsn + 1))
            self.history[max(self.history) + 1 + has_progress] = self.model.copy()

    @rule(
        ref=refs,
        tokens_in=tokens,
        tokens_out=tokens,
        source=st.none() | st.sampled_from(["resp_1", "resp_2"]),
    )
    def record_usage(
        self, ref: int | str, tokens_in: int, tokens_out: int, source: str | None
    ) -> None:
        def call(ref: str) -> Agent:
            return self.manager.record_usage(
                ref, input_tokens=tokens_in, output_tokens=tokens_out, source_id=source
            )

        before = self.model.resolve(self.ref_of(ref))
        if source is not None and isinstance(before, Agent):
            if before.status == "running":
                self.beat(before)
            if (before.agent_id, source) in self.model.sources:
                assert call(before.agent_id) == self.as_seen(before)
                return
            self.model.sources |= {(before.agent_id, source)}
        self.change(ref, None, call, added=tokens_in + tokens_out)

    @rule(ref=refs, reason=st.none() | texts)
    def cancel(self, ref: int | str, reason: str | None) -> None:
        before = self.model.resolve(self.ref_of(ref))
        if isinstance(before, type) or before.status in LIVE:
            fields: dict[str, Any] = {"reason": reason, "needs_input": None}
            self.change(
                ref,
                LIVE,
                lambda ref: self.manager.cancel(ref, reason=reason),
                status="cancelled",
                **fields,
            )
        else:
            assert self.manager.cancel(self.ref_of(ref)) == self.as_seen(before)
