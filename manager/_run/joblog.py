"""Job log: a line for each attempt of a task that has ended, in the format of GNU parallel.

The log is made from the state, so it is complete even after a kill. A run begins it with the
attempts that ended in earlier runs, and adds a line whenever the end of an attempt is durable.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress

from manager._run.facts import exit_of, has_timed_out
from manager._run.report import RunReport
from manager._run.tasks import argv_of
from manager.agent import ENDED, Agent

_HEAD = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"
_BLOCK_LINES = 1000
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
_SIGNALLED = 128  # shells and GNU parallel add it to the number of the signal


class JobLog:
    """A job log that is being written. An error of the disk ends the log, and not the run."""

    def __init__(self, path: str | None) -> None:
        """Open or make the file, and change nothing in it. None: no log. Raises OSError."""
        self._fd = None if path is None else os.open(path, _FLAGS, 0o666)
        self._numbers: dict[str, int] = {}  # the Seq of each task, by its key
        self._report = RunReport()

    def begin(self, report: RunReport, agents: Callable[[], Iterable[Agent]]) -> None:
        """Empty the file, and write a line for each agent that has run and ended. `report` has the
        tasks of the run in their order, and gets the error that ends the log. `agents` returns all
        agents; it is not called without a log, because that takes a quarter of a second for
        100,000 of them.
        """
        if self._fd is None:
            return
        tasks = (agent.metadata["task"] for agent in report.agents.values())
        self._numbers = {task: number for number, task in enumerate(tasks, 1)}
        self._report = report
        try:
            if stat.S_ISREG(os.fstat(self._fd).st_mode):  # and no pipe
                os.ftruncate(self._fd, 0)
        except OSError as error:
            report.joblog_error = error
        self._write(_HEAD)
        # The LSN of an agent that has ended is that of its end.
        self.add(sorted(agents(), key=lambda agent: agent.lsn))

    def add(self, agents: Iterable[Agent]) -> None:
        """Add a line for each agent of a task of the run that has run and ended."""
        if self._fd is None:
            return
        lines = [self._line(agent) for agent in agents if self._has_run(agent)]
        for begin in range(0, len(lines), _BLOCK_LINES):
            self._write("".join(lines[begin : begin + _BLOCK_LINES]))

    def close(self) -> None:
        if self._fd is not None:
            with suppress(OSError):
                os.close(self._fd)

    def _has_run(self, agent: Agent) -> bool:
        if agent.status not in ENDED or agent.started_at_ms is None:
            return False
        # Other agents may have any metadata.
        return argv_of(agent) is not None and agent.metadata["task"] in self._numbers

    def _line(self, agent: Agent) -> str:
        start_ms, end_ms = agent.started_at_ms or 0, agent.ended_at_ms or 0
        code, signal = exit_of(agent)
        if has_timed_out(agent) or (code is None and signal is None):
            code = -1
        elif signal is not None:
            code = _SIGNALLED + signal
        cells = (
            self._numbers[agent.metadata["task"]],
            ":",
            f"{start_ms / 1000:.3f}",
            f"{max(end_ms - start_ms, 0) / 1000:10.3f}",  # the clock may have been set back
            0,
            0,
            code,
            signal or 0,
            command_text(agent.metadata["command"]).replace("\n", "\0"),
        )
        return "\t".join(map(str, cells)) + "\n"

    def _write(self, text: str) -> None:
        assert self._fd is not None
        data = text.encode(errors="backslashreplace")
        try:
            while data and self._report.joblog_error is None:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self._report.joblog_error = error


def command_text(command: str | list[str]) -> str:
    """Return a command as a shell would take it."""
    return command if isinstance(command, str) else shlex.join(command)
