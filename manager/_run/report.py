"""Report: the state of a run, during it and after its end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from signal import Signals

from manager.agent import Agent


@dataclass
class RunReport:
    """The state of a run, during it and after its end."""

    agents: dict[str, Agent] = field(default_factory=dict)
    """The agents of this run by id, of a retried task only the newest one."""

    counts: Counter[str] = field(default_factory=Counter)
    """Their number by status."""

    others: int = 0
    """The number of unfinished tasks in the state that are not part of this run."""

    edited: tuple[str, ...] = ()
    """The names of completed tasks whose lines have been edited since. They are not run again."""

    ended_before: int = 0
    """The number of tasks that had ended before this run."""

    ended_now: int = 0
    """The number of tasks that have ended in this run."""

    blocked: tuple[str, ...] = ()
    """The names of the tasks that were not run because they wait for tasks that did not complete.
    """

    halted_by: Agent | None = None
    """The failed task that has halted the run, or None."""

    signal: Signals | None = None
    """The signal that stopped the run, or None."""

    awaited: int = 0
    """The number of tasks whose changes a run that was stopped still waits for, if only the disk
    keeps it from ending. The next signal gives up."""

    unrecorded: int = 0
    """The number of tasks whose changes were given up."""

    joblog_error: OSError | None = None
    """The error that ended the job log, or None."""

    @property
    def is_stopping(self) -> bool:
        """True if running commands are being stopped."""
        return self.signal is not None or (self.halted_by is not None and self.is_halted_now)

    is_waiting: bool = False
    """True if nothing runs until a request of another process resumes the run or a task."""

    is_halted_now: bool = False
    """True if the failed task has stopped the others, too."""

    def put(self, agent: Agent) -> None:
        """Store an agent's new state."""
        old = self.agents.get(agent.agent_id)
        if old is not None:
            self.counts[old.status] -= 1
        self.agents[agent.agent_id] = agent
        self.counts[agent.status] += 1

    def replace(self, old: Agent, new: Agent) -> None:
        """Store the newer agent of a task in place of the older one."""
        self.counts[self.agents.pop(old.agent_id).status] -= 1
        self.put(new)

    @property
    def exit_code(self) -> int:
        """The exit code of `subagents run`."""
        if self.signal is not None:
            return 128 + self.signal
        return 0 if self.counts["completed"] == len(self.agents) else 1
