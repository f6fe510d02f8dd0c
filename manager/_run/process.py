"""Process: runs each command as a process group of its own, which never outlives the runner.

A command is started as a small shell that waits for a line of input and then executes the command.
Before the runner sends that line, it names the group to the guard. So a runner that is killed at
any moment leaves either a shell that finds its input closed and exits, or a group that the guard
knows and kills.

A command that creates its own session or process group (setsid, a daemon) is not killed. One that
has become another user's can't be killed; then its process is named, and the run goes on.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from threading import Thread
from typing import IO, cast

from manager._run import guard as guard_script
from manager._run.descriptors import Limits, give_limits
from manager._run.streams import OutputStream
from manager.errors import ManagerError
from manager.outputs import Stream

_EXEC_AFTER_LINE = 'read -r _ || exit 125; exec "$@" </dev/null'
_LOCK_TIMEOUT_S = 10.0
_DRAIN_TIMEOUT_S = 1.0
_KILL_TIMEOUT_S = 5.0
_THREADS_MAX = 64  # the number of threads that `ExitWatch` uses


class GuardError(ManagerError):
    """The guard has died, so a command could outlive its runner. No more commands are started."""


class Guard:
    """The runner's connection to its guard process.

    Make it before the journal is opened, because a process that is started later holds a copy of
    the journal's lock between its fork and its exec.
    """

    def __init__(self) -> None:
        """Start the guard. Raises OSError."""
        self._process = subprocess.Popen(  # noqa: S603 - our own file, by our own interpreter
            [sys.executable, "-I", "-S", _guard_path()],
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

        Raises TimeoutError or GuardError.
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


def _guard_path() -> str:
    """Return the path of the guard's script. Raises FileNotFoundError if Python can't run it."""
    path, problem = guard_script.__file__, ""
    if not sys.executable:
        problem = "sys.executable is empty; start this program with the path of a Python"
    elif hasattr(sys, "frozen"):  # it would start itself
        problem = "this program is frozen, as by PyInstaller; run it with an installed Python"
    elif not os.path.isfile(path):
        problem = "the package is in an archive; install it, so that its modules are files"
    if problem:
        raise FileNotFoundError(errno.ENOENT, f"no guard can be started: {problem}", path)
    return path


class ExitWatch:
    """A wait for the exit of a child process, which does not reap it.

    It takes a thread, as long as there are few. A thread that waits goes on where the process has
    just ended, but the reader of a pidfd queues for a processor. Beside other programs, 300
    commands at -j2 took 4.0 s with threads and 6.3 s with pidfds, and the same processor time
    (medians of 5 interleaved rounds).
    """

    _threads = 0  # of all commands; changed in the event loop only

    def __init__(self, pid: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._pid = pid
        self._pidfd: int | None = None
        self._has_thread = False
        self.exited: asyncio.Future[None] = self._loop.create_future()
        """Done once the process has exited."""

        if ExitWatch._threads < _THREADS_MAX:
            with suppress(RuntimeError):  # no thread is left
                self._start_thread()
        if not self._has_thread:
            try:
                self._pidfd = os.pidfd_open(pid)
                self._loop.add_reader(self._pidfd, self._note_exit)
            except (AttributeError, OSError):  # macOS, an old kernel, or no descriptor is left
                self._start_thread()

    def look(self) -> None:
        """Note at once if the process has exited. After this process was stopped, as by Ctrl-Z, its
        time limits come before its threads."""
        if sys.platform != "darwin" and not self.exited.done():  # see _wait
            with suppress(ChildProcessError):
                if os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                    self._note_exit()

    def close(self) -> None:
        """Close the handle of the process."""
        if self._has_thread:
            ExitWatch._threads -= 1
            self._has_thread = False
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _start_thread(self) -> None:
        Thread(target=self._wait, daemon=True).start()
        ExitWatch._threads += 1
        self._has_thread = True

    def _wait(self) -> None:
        if sys.platform == "darwin":  # before 3.13, Python has no waitid there
            import select

            queue = select.kqueue()
            event = select.kevent(self._pid, select.KQ_FILTER_PROC, fflags=select.KQ_NOTE_EXIT)
            with suppress(ProcessLookupError):  # it has exited already
                queue.control([event], 1)
            queue.close()
        else:
            with suppress(ChildProcessError):  # SIGCHLD is ignored, so the system has reaped it
                os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._note_exit)

    def _note_exit(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
        if not self.exited.done():
            self.exited.set_result(None)


class Command:
    """A running command, started by `launch`, with what it prints.

    Its process is reaped only after the rest of its group was killed. Until then the kernel gives
    the group's number to no other process, so no signal can reach a stranger.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        guard: Guard,
        stdout: OutputStream,
        stderr: OutputStream,
    ) -> None:
        self._process = process
        self._guard = guard
        self._exit_watch = ExitWatch(process.pid)
        self._returncode: int | None = None
        self.stdout = stdout
        """The output of the command on stdout."""

        self.stderr = stderr
        """The output of the command on stderr."""

        self.exited = self._exit_watch.exited
        """Done once the command has exited."""

        self.left_running: list[int] = []
        """The processes of the group that could not be killed, once `finish` has returned. Except
        for the command itself, they are known only where the system lists processes."""

    @classmethod
    async def launch(
        cls,
        argv: Sequence[str],
        guard: Guard,
        *,
        cwd: str,
        env: Mapping[str, str],
        read: Callable[[Stream, int], OutputStream],
        limits: Limits | None = None,
    ) -> Command:
        """Start `argv` without input. `read` makes the streams that read its two pipes. `limits`
        are those of its descriptors, if they are not this process's.

        Raises OSError, ValueError or GuardError.
        """
        with ExitStack() as ours:
            with ExitStack() as theirs:
                gate_read, gate = _pipe(theirs, ours)
                out, out_write = _pipe(ours, theirs)
                err, err_write = _pipe(ours, theirs)
                process = subprocess.Popen(  # noqa: S603 - the user's own command
                    ["/bin/sh", "-c", _EXEC_AFTER_LINE, "subagents", *argv],
                    stdin=gate_read,
                    stdout=out_write,
                    stderr=err_write,
                    cwd=cwd,
                    env=env,
                    start_new_session=True,
                )
            ours.pop_all()
        try:
            command = cls(process, guard, read("out", out), read("err", err))
            try:
                guard.watch(process.pid)
                if limits is not None:
                    give_limits(process.pid, limits)
                with suppress(BrokenPipeError):  # somebody has killed it already
                    os.write(gate, b"\n")
            except BaseException:
                await command.finish()
                raise
        finally:
            os.close(gate)
        return command

    @property
    def has_exited(self) -> bool:
        """True if the command has exited, even if `exited` does not say so yet."""
        self._exit_watch.look()
        return self.exited.done()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the group."""
        assert self._process.returncode is None, "it was reaped, so its number may be a stranger's"
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def terminate(self, *, grace_s: float, hurry: asyncio.Future[None]) -> None:
        """Send SIGTERM, and wait until the command has exited, `grace_s` seconds have passed, or
        `hurry` is done.
        """
        self.signal(signal.SIGTERM)
        await asyncio.wait(
            (self.exited, hurry), timeout=grace_s, return_when=asyncio.FIRST_COMPLETED
        )

    async def finish(self) -> int | None:
        """Kill the processes that are left, and return the exit code, or -N if signal N ended the
        command.

        Return None if the command could not be killed, because it has become another user's or
        waits for a device. Then it is left running. Return None, too, if other code of this process
        has reaped it, as a handler of SIGCHLD may do.
        """
        self.signal(signal.SIGKILL)
        try:
            if not self.exited.done():
                await asyncio.wait((self.exited,), timeout=_KILL_TIMEOUT_S)
            streams = self.stdout, self.stderr
            pipes = [stream.drained for stream in streams if not stream.drained.done()]
            if self.exited.done() and pipes:
                for stream in streams:
                    stream.end()
                # A process that left the group may keep the output open forever.
                await asyncio.wait(pipes, timeout=_DRAIN_TIMEOUT_S)
        finally:
            self._release()
        return self._returncode

    def _release(self) -> None:
        self.stdout.close()
        self.stderr.close()
        self._exit_watch.close()
        pid = self._process.pid
        try:
            if not self.exited.done():
                self.left_running = sorted(guard_script.running_pids({pid})) or [pid]
            self._guard.forget(pid)  # first: a reaped process's number may become a stranger's
        finally:
            if self.exited.done():
                with suppress(ChildProcessError):  # `Popen.wait` would return 0
                    self._returncode = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                self.left_running = _unkillable(pid)
            self._process.returncode = self._returncode or 0  # nobody waits for it any more


def _unkillable(group: int) -> list[int]:
    """Return the processes that this user can't kill in a group whose leader was reaped.

    To list all processes takes milliseconds, so it is done only if the group is not empty.
    """
    try:
        os.getpriority(os.PRIO_PGRP, group)
    except OSError:
        return []
    pids = set(guard_script.running_pids({group}))
    # A process with the number of the leader is a stranger, and so is its group.
    return [] if group in pids else sorted(pid for pid in pids if not _may_signal(pid))


def _may_signal(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return False
    except ProcessLookupError:
        pass
    return True


def _pipe(readers: ExitStack, writers: ExitStack) -> tuple[int, int]:
    """Return a pipe's ends for reading and writing. The stacks close them."""
    read, write = os.pipe()
    readers.callback(os.close, read)
    writers.callback(os.close, write)
    return read, write
