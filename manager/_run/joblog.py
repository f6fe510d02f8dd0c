"""Job log: a line for each attempt of a task that has ended, in the format of GNU parallel.

The log is made from the state, so it is complete even after a kill. A run begins it with the
attempts that ended in earlier runs, and adds a line whenever the end of an attempt is durable.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress

from manager._run.facts import exit_of
from manager._run.tasks import argv_of
from manager.agent import ENDED, Agent

_HEAD = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"
_BLOCK_LINES = 1000


class JobLog:
    """A job log that is being written. An error of the disk ends the log, and not the run."""

    def __init__(self, path: str, numbers: Mapping[str, int]) -> None:
        """Make or empty the file. `numbers` has the Seq of each task by its key. Raise OSError."""
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self._numbers = numbers
        self.error: OSError | None = None
        """The error that ended the log, or None."""

        self._write(_HEAD)

    def add(self, agents: Iterable[Agent]) -> None:
        """Add a line for each agent of a task of the run that has run and ended."""
        lines = [self._line(agent) for agent in agents if self._has_run(agent)]
        for begin in range(0, len(lines), _BLOCK_LINES):
            self._write("".join(lines[begin : begin + _BLOCK_LINES]))

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            os.close(self._fd)

    def _has_run(self, agent: Agent) -> bool:
        if agent.status not in ENDED or agent.started_at_ms is None:
            return False
        # Other agents may have any metadata.
        return argv_of(agent.metadata) is not None and agent.metadata["task"] in self._numbers

    def _line(self, agent: Agent) -> str:
        start_ms, end_ms = agent.started_at_ms or 0, agent.ended_at_ms or 0
        code, signal = exit_of(agent)
        if signal is not None:
            code = 0
        elif code is None or (code == 0 and agent.status != "completed"):
            code = -1  # it was not started, or exited after its timeout
        cells = (
            self._numbers[agent.metadata["task"]],
            ":",
            f"{start_ms / 1000:.3f}",
            f"{(end_ms - start_ms) / 1000:10.3f}",
            0,
            0,
            code,
            signal or 0,
            command_text(agent.metadata["command"]).replace("\n", "\0"),
        )
        return "\t".join(map(str, cells)) + "\n"

    def _write(self, text: str) -> None:
        data = text.encode(errors="backslashreplace")
        try:
            while data and self.error is None:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self.error = error


def command_text(command: str | list[str]) -> str:
    """Return a command as a shell would take it."""
    return command if isinstance(command, str) else shlex.join(command)
