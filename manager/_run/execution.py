"""Execution: runs the command of one agent, and makes the agent's result of its end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from signal import Signals

from manager._run.descriptors import raise_limit
from manager._run.facts import Exit, Printed, facts
from manager._run.options import GRACE_S, RunOptions
from manager._run.printer import Printer
from manager._run.process import Command, Guard
from manager._run.streams import OutputFiles, OutputStream
from manager._run.tasks import Settings, argv_of
from manager.agent import Agent
from manager.outputs import OutputDirectory, Part, Stream, owner_of
from manager.result import AgentResult

_log = logging.getLogger("manager")

_TAIL_BYTES_MAX = 64 << 10  # of one task's stdout
_TAIL_BYTES_MIN = 1 << 10
_ALL_TAILS_BYTES = 64 << 20
_REASON_LINES = 5
_REASON_CHARS = 1000
_LACKING = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # until a command ends


class Stop:
    """The request to stop a run, or one of its commands. It is made in the run's event loop."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.requested: asyncio.Future[str] = loop.create_future()
        """Done, with the reason, once it is to stop."""

        self.hurry: asyncio.Future[None] = loop.create_future()
        """Done at the second request."""

        self.settled = asyncio.Event()
        """Set once the end of the command is durable."""

    @property
    def reason(self) -> str:
        """The reason why it stops, or "" if it does not."""
        return self.requested.result() if self.requested.done() else ""

    def request(self, reason: str) -> bool:
        """Stop it and return True, or hurry if it is being stopped already."""
        if not self.requested.done():
            self.requested.set_result(reason)
            return True
        if not self.hurry.done():
            self.hurry.set_result(None)
        return False


class Executor:
    """Runs commands in a workspace, and keeps what they print."""

    def __init__(
        self,
        workspace: str,
        guard: Guard,
        outputs: OutputDirectory,
        printer: Printer | None,
        options: RunOptions,
        *,
        tasks: int,
    ) -> None:
        """Prepare to run commands. The more `tasks` the run has, the shorter each result is."""
        self._workspace = workspace
        self._guard = guard
        self._outputs = outputs
        self._printer = printer
        self._options = options
        self._limits = raise_limit(options.jobs)
        self._running = 0  # commands
        self._place: asyncio.Future[None] | None = None  # done once there may be one again
        self._tail_bytes_max = tail_bytes_max(tasks)

    async def run(self, agent: Agent, stop: Stop) -> AgentResult:
        """Run the command of `agent`, which has just begun to run, and return its result.

        The result's status is "interrupted" if `stop` was requested before the command had exited.
        """
        argv = argv_of(agent)
        assert argv is not None
        settings = Settings.of(agent.metadata)
        try:
            command = await self._launch(agent, argv, settings, stop)
        except (OSError, ValueError) as error:
            reason = f"could not be started: {error}"
            return AgentResult(None, status="failed", reason=reason, checkpoint={})
        if command is None:
            return AgentResult(None, status="interrupted", reason=stop.reason, checkpoint={})
        timeout_s = settings.timeout_s or self._options.timeout_s
        self._running += 1
        try:
            await asyncio.wait(
                (command.exited, stop.requested),
                timeout=timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            stop_reason, is_cut_off = stop.reason, not command.has_exited
            if is_cut_off:
                await command.terminate(grace_s=GRACE_S, hurry=stop.hurry)
        finally:
            try:
                code = await command.finish()
            finally:
                self._running -= 1
                if self._place is not None and not self._place.done():
                    self._place.set_result(None)
        stdout, stderr = command.stdout.printed(), command.stderr.printed()
        timed_out = is_cut_off and not stop_reason
        known = facts(Exit.of(code), stdout, stderr, timed_out=timed_out)
        survivors = _survivors(command)
        if survivors:
            _log.warning("%s: %s", agent.name, survivors)
        if is_cut_off and stop_reason:
            reason = _joined(stop_reason, survivors)
            return AgentResult(stdout.tail, status="interrupted", reason=reason, checkpoint=known)
        problem = f"timed out after {timeout_s:g} s" if timed_out else _exit_problem(code, command)
        if not problem:
            return AgentResult(stdout.tail, reason=survivors or None, checkpoint=known)
        reason = f"{_joined(problem, survivors)}\n{_last_lines(stdout, stderr)}".rstrip()
        return AgentResult(stdout.tail, status="failed", reason=reason, checkpoint=known)

    async def _launch(
        self, agent: Agent, argv: list[str], settings: Settings, stop: Stop
    ) -> Command | None:
        """Start the command of an agent. If the system has no process or descriptor for it, wait
        until another command has ended, as long as one runs. Return None if `stop` comes first.

        Raises OSError, ValueError or GuardError.
        """
        identity = {"SUBAGENT_ID": agent.agent_id, "SUBAGENT_NAME": agent.name}
        while not stop.reason:
            if self._place is None or self._place.done():
                try:
                    return await Command.launch(
                        argv,
                        self._guard,
                        cwd=os.path.join(self._workspace, settings.cwd),
                        env=os.environ | settings.env | identity,
                        read=lambda stream, fd: self._reader(agent, stream, fd),
                        limits=self._limits,
                    )
                except OSError as error:
                    if error.errno not in _LACKING or not self._running:
                        raise
                    self._place = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._place, stop.requested), return_when=asyncio.FIRST_COMPLETED)
        return None

    def _reader(self, agent: Agent, stream: Stream, fd: int) -> OutputStream:
        first = Part(owner_of(agent.agent_id), agent.starts, stream, 0)
        files = OutputFiles(self._outputs, first, self._options.output_bytes_max)
        lines = None
        if self._printer is not None:
            tag = agent.prompt if agent.name == agent.agent_id else agent.name
            lines = self._printer.lines(stream, tag)
        size = self._tail_bytes_max if stream == "out" else self._tail_bytes_max // 4
        return OutputStream(fd, files, lines, tail_bytes_max=size)


def tail_bytes_max(tasks: int) -> int:
    """Return the size of the part of a command's stdout that becomes its result, in bytes.

    The state is in memory, so with many tasks each result is shorter.
    """
    return max(_TAIL_BYTES_MIN, min(_TAIL_BYTES_MAX, _ALL_TAILS_BYTES // max(tasks, 1)))


def _exit_problem(code: int | None, command: Command) -> str:
    """Return a text for an exit code other than 0, and "" for 0."""
    if code is None and command.exited.done():
        return "exited, but other code of the runner's process has taken its exit code"
    if code is None:
        return "did not exit"
    if code >= 0:
        return f"exit {code}" if code else ""
    try:
        return f"killed by {Signals(-code).name}"
    except ValueError:  # real-time signals have no names
        return f"killed by signal {-code}"


def _survivors(command: Command) -> str:
    """Return a text that names the processes that could not be killed, or ""."""
    pids = command.left_running
    if not pids:
        return ""
    one, runs = ("process", "runs") if len(pids) == 1 else ("processes", "run")
    return f"{one} {', '.join(map(str, pids))} could not be killed, and still {runs}"


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _last_lines(stdout: Printed, stderr: Printed) -> str:
    """Return the end of what the command printed: of stderr if there is any, or else of stdout."""
    lines = (stderr.tail or stdout.tail).splitlines()
    return "\n".join(lines[-_REASON_LINES:])[-_REASON_CHARS:]
