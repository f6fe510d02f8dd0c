"""Process: runs each command as a process group of its own, which never outlives the runner.

A command is started as a small shell that waits for a line of input and then executes the command.
Before the runner sends that line, it names the group to the guard. So a runner that is killed at
any moment leaves either a shell that finds its input closed and exits, or a group that the guard
knows and kills.

A command that creates its own session or process group (setsid, a daemon) is not killed.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import IO, cast

from manager._run import guard
from manager.errors import ManagerError

_EXEC_AFTER_LINE = 'read -r _ || exit 125; exec "$@" </dev/null'
_LOCK_TIMEOUT_S = 10.0
_DRAIN_TIMEOUT_S = 1.0


class GuardError(ManagerError):
    """The guard has died, so a command could outlive its runner. No more commands are started."""


class Guard:
    """The runner's connection to its guard process.

    Make it before the journal is opened, because a process that is started later holds a copy of
    the journal's lock between its fork and its exec.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own file, by our own interpreter
            [sys.executable, "-I", "-S", guard.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        self._requests = cast(IO[bytes], self._process.stdin)
        self._answers = cast(IO[bytes], self._process.stdout)

    @property
    def pid(self) -> int:
        return self._process.pid

    def lock(self, path: str) -> None:
        """Lock the file `path` in the guard. This waits until the guard of an earlier runner that
        holds the lock has killed that runner's commands.

        Raise TimeoutError or GuardError.
        """
        self._send(f"lock {os.fsencode(path).hex()}")
        try:
            if not select.select([self._answers], [], [], _LOCK_TIMEOUT_S)[0]:
                raise TimeoutError(
                    f"{path}: commands of an earlier run were killed more than "
                    f"{_LOCK_TIMEOUT_S:.0f} s ago and still have not ended; look for processes "
                    "that wait for a device, or that this user can't kill"
                )
        except BaseException:
            self._process.kill()  # it waits for the lock, and has no groups yet
            raise
        if not self._answers.read(3):
            self._raise_dead()

    def watch(self, group: int) -> None:
        """Kill this process group if the runner ends before it calls `forget`.

        This is only a write to a pipe, and does not wait for the guard.
        """
        self._send(f"+{group}")

    def forget(self, group: int) -> None:
        self._send(f"-{group}")

    def close(self) -> None:
        """End the guard. It kills the groups that it watches."""
        self._requests.close()
        self._process.wait()
        self._answers.close()

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, line: str) -> None:
        try:
            os.write(self._requests.fileno(), f"{line}\n".encode())  # short, so written as a whole
        except BrokenPipeError:
            self._raise_dead()

    def _raise_dead(self) -> None:
        raise GuardError(
            f"the guard, process {self.pid}, has died, and without it a killed runner would leave "
            "its commands running; run the same command again"
        )


class Command(asyncio.SubprocessProtocol):
    """A running command, started by `launch`. It keeps the last bytes of the command's output."""

    def __init__(self, output_bytes_max: int) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self._drained: asyncio.Future[None] = loop.create_future()
        self._output = b""
        self._output_bytes = 0
        self._output_bytes_max = output_bytes_max
        self._transport: asyncio.SubprocessTransport
        self._guard: Guard

    @classmethod
    async def launch(
        cls,
        argv: Sequence[str],
        guard: Guard,
        *,
        cwd: str,
        env: Mapping[str, str],
        output_bytes_max: int,
    ) -> Command:
        """Start `argv` without input, and with stdout and stderr merged.

        Raise OSError or GuardError.
        """
        transport, command = await asyncio.get_running_loop().subprocess_exec(
            partial(cls, output_bytes_max),
            *("/bin/sh", "-c", _EXEC_AFTER_LINE, "subagents", *argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
        command._transport, command._guard = transport, guard
        try:
            guard.watch(transport.get_pid())
        except BaseException:
            await command.finish()
            raise
        stdin = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
        stdin.write(b"\n")
        stdin.close()
        return command

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._output = (self._output + data)[-self._output_bytes_max :]
        self._output_bytes += len(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1 and not self._drained.done():
            self._drained.set_result(None)

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._transport.get_pid(), number)

    async def terminate(self, *, grace_s: float, hurry: asyncio.Future[None]) -> None:
        """Send SIGTERM, and wait until the command has exited, `grace_s` seconds have passed, or
        `hurry` is done.
        """
        self.signal(signal.SIGTERM)
        await asyncio.wait(
            (self.exited, hurry), timeout=grace_s, return_when=asyncio.FIRST_COMPLETED
        )

    async def finish(self) -> int:
        """Kill the processes that are left, and return the exit code, or -N if signal N ended the
        command.
        """
        self.signal(signal.SIGKILL)
        await self.exited
        # A process that left the group may keep the output open forever.
        await asyncio.wait((self._drained,), timeout=_DRAIN_TIMEOUT_S)
        self._transport.close()
        self._guard.forget(self._transport.get_pid())
        code = self._transport.get_returncode()
        assert code is not None
        return code

    @property
    def output(self) -> str:
        """The output, or its end after a line that says so."""
        text = self._output.decode(errors="replace")
        if self._output_bytes == len(self._output):
            return text
        return f"[{self._output_bytes} bytes, cut to the last ones]\n{text.lstrip(chr(0xFFFD))}"
