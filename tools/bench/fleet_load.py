"""Fleets of sub-agents, and calls like those of a harness, for the benchmarks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from bench.before import WholeFleet
from journal import DurableState, Options
from manager import Agent, AgentResult, Limits, SubAgentManager
from manager.fleet import Fleet

LIST_EVERY = 200  # calls
CALLS_AN_AGENT = 10  # one spawn, then steps, then an end
ENOUGH = 1_000_000
LIMITS = Limits(max_running=ENOUGH, max_admitted=ENOUGH, keep_ended_s=None, keep_ended_max=None)
PROMPT = "Find every caller of the function, and say which of them pass no timeout. " * 5
RESULT = "src/service/client.py:214 passes none; the other eleven do, all of them 30 s. " * 8


class Worker:
    """One caller, which spawns agents, steps them and ends them, one agent after the other."""

    def __init__(self, manager: SubAgentManager, *, waits: bool, lists: bool = True) -> None:
        self._manager = manager
        self._lists = lists
        self._waits = waits
        self._calls = itertools.count(1)
        self._updates = itertools.count(1)
        self._ref = ""

    def call(self) -> None:
        """Update an agent, or list the running agents in every LIST_EVERY-th call."""
        if self._lists and next(self._calls) % LIST_EVERY == 0:
            self._manager.agents(status="running")
        else:
            self.update()

    def update(self) -> int:
        """Update an agent, and return the LSN of the change."""
        agent = self._step()
        if self._waits:
            self._manager.wait_durable(agent.lsn)
        return agent.lsn

    async def update_async(self) -> None:
        agent = self._step()
        if self._waits:
            await self._manager.durable(agent.lsn)

    def _step(self) -> Agent:
        number = next(self._updates)
        turn = number % CALLS_AN_AGENT
        if turn == 1 or not self._ref:
            agent = self._manager.spawn(PROMPT)
            self._ref = agent.agent_id
        elif turn:
            agent = self._manager.update_checkpoint(self._ref, {"turn": turn}, steps_taken=turn)
        elif number % (4 * CALLS_AN_AGENT):
            agent = self._manager.update_from_result(self._ref, AgentResult(RESULT))
            self._ref = ""
        else:
            agent = self._manager.update_failed(self._ref, "the tool returned 500")
            self._ref = ""
        return agent


class NotingWorker(Worker):
    """A caller that notes when each of its updates returned, which takes time."""

    def __init__(self, manager: SubAgentManager, *, waits: bool) -> None:
        super().__init__(manager, waits=waits)
        self.acknowledged: list[tuple[int, int]] = []  # the LSN, and the time in ns

    def update(self) -> int:
        lsn = super().update()
        self.acknowledged.append((lsn, time.perf_counter_ns()))
        return lsn


def fill(manager: SubAgentManager, agents: int) -> None:
    for number in range(agents):
        ref = manager.spawn(PROMPT, metadata={"number": number}).agent_id
        if number % 5:
            manager.update_from_result(ref, AgentResult(RESULT))


@contextmanager
def reopened(directory: Path, agents: int, options: Options) -> Iterator[SubAgentManager]:
    """Yield a reopened manager with a fleet, whose measurements begin now."""
    directory.mkdir(exist_ok=True)
    with SubAgentManager.open(directory, limits=LIMITS) as manager:
        fill(manager, agents)
    with SubAgentManager.open(directory, limits=LIMITS):
        # This open interrupts the agents that were running, many under one hold of the lock. No
        # caller waits for the lock while a manager opens, so these holds must not be measured.
        pass
    with SubAgentManager.open(directory, limits=LIMITS, options=options) as manager:
        yield manager


@contextmanager
def whole_fleet(
    directory: Path, kind: type[WholeFleet], agents: int
) -> Iterator[tuple[SubAgentManager, WholeFleet]]:
    state = kind(directory, Fleet())
    manager = SubAgentManager(cast("DurableState[Fleet]", state), LIMITS)
    fill(manager, agents)
    state.persisting = True
    state.hold_ns.clear()
    state.wait_ns.clear()
    yield manager, state
    state.settle()
