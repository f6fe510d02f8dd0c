"""Report: the state of a run, during it and after its end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from signal import Signals

from manager.agent import Agent


@dataclass
class RunReport:
    """The state of a run, during it and after its end.

    `agents` are the agents of this run by id, of a retried task only the newest one, and `counts`
    their number by status. `others` is the number of unfinished tasks in the state that are not
    part of this run. `signal` is the signal that stopped the run, or None. `joblog_error` is the
    error that ended the job log, or None. `edited` are the names of completed tasks whose lines
    have been edited since; they are not run again.
    """

    agents: dict[str, Agent] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    others: int = 0
    signal: Signals | None = None
    joblog_error: OSError | None = None
    edited: tuple[str, ...] = ()

    def put(self, agent: Agent) -> None:
        """Store an agent's new state."""
        old = self.agents.get(agent.agent_id)
        if old is not None:
            self.counts[old.status] -= 1
        self.agents[agent.agent_id] = agent
        self.counts[agent.status] += 1

    @property
    def exit_code(self) -> int:
        """The exit code of `subagents run`."""
        if self.signal is not None:
            return 128 + self.signal
        return 0 if self.counts["completed"] == len(self.agents) else 1
