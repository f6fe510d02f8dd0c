"""Process: a command as a process group of its own, which no end of the runner leaves behind.

A command is started by a shell of two lines that waits for a word before it becomes the command.
In between the guard is told of the group. So a runner killed at any moment leaves a shell that
finds its input closed and ends, or a group that the guard knows.

A command that makes a session or group of its own (setsid, a daemon) is out of reach.
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

_EXEC_WHEN_TOLD = 'read -r _ || exit 125; exec "$@" </dev/null'
_LOCK_TIMEOUT_S = 10.0
_DRAIN_TIMEOUT_S = 1.0


class GuardError(ManagerError):
    """The guard is gone: commands that were started now could outlive their runner."""


class Guard:
    """The runner's end of its guard. Start it before the journal is opened: what is started
    later holds the journal's lock between its fork and its exec."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own file, by our own interpreter
            [sys.executable, "-I", "-S", guard.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        self._tells = cast(IO[bytes], self._process.stdin)
        self._answers = cast(IO[bytes], self._process.stdout)

    @property
    def pid(self) -> int:
        return self._process.pid

    def lock(self, path: str) -> None:
        """Wait until the guard of an earlier runner that locked the file `path` has done its work.

        Raises TimeoutError, GuardError.
        """
        self._tell(f"lock {os.fsencode(path).hex()}")
        try:
            if not select.select([self._answers], [], [], _LOCK_TIMEOUT_S)[0]:
                raise TimeoutError(
                    f"{path}: commands of an earlier run were killed over {_LOCK_TIMEOUT_S:.0f} s "
                    "ago and still have not ended; look for processes that wait for a device, or "
                    "that this user can't kill"
                )
        except BaseException:
            self._process.kill()  # it waits, and watches nothing yet
            raise
        if not self._answers.read(3):
            self._raise_dead()

    def watch(self, group: int) -> None:
        """From now on, kill this process group if the runner goes away. Cheap: a pipe keeps it."""
        self._tell(f"+{group}")

    def forget(self, group: int) -> None:
        self._tell(f"-{group}")

    def close(self) -> None:
        """End it; what it was told of and not to forget is killed."""
        self._tells.close()
        self._process.wait()
        self._answers.close()

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tell(self, line: str) -> None:
        try:
            os.write(self._tells.fileno(), f"{line}\n".encode())  # whole: it is short
        except BrokenPipeError:
            self._raise_dead()

    def _raise_dead(self) -> None:
        raise GuardError(
            f"the guard, process {self.pid}, has died: without it a killed runner would leave "
            "its commands running; run again"
        )


class Command(asyncio.SubprocessProtocol):
    """A running command; made by `launch`. Keeps the last bytes of what it prints."""

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
        """Start `argv` with no input, both outputs merged. Raises OSError, GuardError."""
        transport, command = await asyncio.get_running_loop().subprocess_exec(
            partial(cls, output_bytes_max),
            *("/bin/sh", "-c", _EXEC_WHEN_TOLD, "subagents", *argv),
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
        word = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
        word.write(b"\n")
        word.close()
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
        """To all of its process group that is left."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._transport.get_pid(), number)

    async def terminate(self, *, grace_s: float, hurry: asyncio.Future[None]) -> None:
        """TERM; until it has exited, `grace_s` seconds have passed, or `hurry` is done."""
        self.signal(signal.SIGTERM)
        await asyncio.wait(
            (self.exited, hurry), timeout=grace_s, return_when=asyncio.FIRST_COMPLETED
        )

    async def finish(self) -> int:
        """Kill all that is left of it; its exit code, or -N if signal N ended it."""
        self.signal(signal.SIGKILL)
        await self.exited
        # A process out of reach may hold the output open for ever.
        await asyncio.wait((self._drained,), timeout=_DRAIN_TIMEOUT_S)
        self._transport.close()
        self._guard.forget(self._transport.get_pid())
        code = self._transport.get_returncode()
        assert code is not None
        return code

    @property
    def output(self) -> str:
        """What it printed, or the end of that after a line that says so."""
        text = self._output.decode(errors="replace")
        if self._output_bytes == len(self._output):
            return text
        return f"[{self._output_bytes} bytes, cut to the last ones]\n{text.lstrip(chr(0xFFFD))}"
