"""Worker: runs the commands of a manager on another machine, in a directory of this one."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from signal import Signals

from journal import UnsafePathError
from manager import records
from manager._remote import messages
from manager._remote.address import Address
from manager._remote.context import RemoteContext
from manager._remote.link import NatsLink
from manager._remote.serving import machine_name, run_station
from manager._remote.shelf import Shelf
from manager._remote.spool import Spool
from manager._remote.station import ORPHAN_S, Station
from manager._run import task_fields
from manager._run.execution import Executor, Stop
from manager._run.options import OUTPUT_BYTES_MAX, RunOptions
from manager._run.process import Guard, GuardError
from manager._run.signals import StopSignals
from manager._run.tasks import Settings, argv_of
from manager.again import TASK_TYPE
from manager.companion import open_companion
from manager.errors import DispatchError
from manager.outputs import OutputDirectory
from manager.result import AgentResult

STATE_DIR = ".subagents-worker"
"""The directory of a worker's own files, below its directory."""

_NO_FILE = "is not a regular file; move it away"
_TAILS = 1000  # a result is as long as in a run of this many tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The options of a worker that runs commands."""

    url: str
    """The address of the servers."""

    directory: str
    """The directory in which commands run."""

    queues: Sequence[str]
    """The queues that are served."""

    slots: int
    """The largest number of commands that run at a time."""

    name: str | None = None
    """The name of this machine's credential, or None for that of the machine."""

    orphan_s: float = ORPHAN_S
    """The time without any answer after which commands are stopped, in seconds."""

    output_bytes_max: int = OUTPUT_BYTES_MAX
    """The size up to which each stream of a command is kept in files, in bytes; 0 keeps none."""

    insecure: bool = False
    """True to use servers on other machines that do not encrypt or ask for no login."""

    credentials: str | None = None
    """The path of a file with NATS credentials, or None."""


def run_worker(options: WorkerOptions) -> int:
    """Run commands until a signal stops the worker, and return its exit code.

    Call this in the main thread. At the first signal, no more commands are started, and those that
    run are stopped and handed back. Raises ValueError for a bad URL, queue or name, DispatchError,
    OSError, UnsafePathError, TimeoutError if commands of an earlier worker can't be killed, and
    GuardError, after the agents were handed back.
    """
    address = Address.of(options.url)
    for queue in options.queues:
        task_fields.queue("--queue", queue)
    name = machine_name() if options.name is None else options.name
    worker = messages.worker_id(name, os.urandom(6).hex())
    workspace = os.path.realpath(options.directory)
    state = os.path.join(workspace, STATE_DIR)
    with StopSignals() as signals, Guard() as guard, ExitStack() as stack:
        os.close(open_companion(workspace, STATE_DIR, write=True))
        stack.enter_context(_lock(os.path.join(state, "WORKER")))
        outputs = stack.enter_context(closing(OutputDirectory.open(state, write=True)))
        lock = os.path.join(state, "LOCK")
        os.close(_open_file(lock))
        guard.lock(lock)
        spool = stack.enter_context(closing(Spool.open(os.path.join(state, "results"))))
        run_options = RunOptions(jobs=options.slots, output_bytes_max=options.output_bytes_max)
        executor = Executor(workspace, guard, outputs, None, run_options, tasks=_TAILS)
        shelf = Shelf(outputs)
        return asyncio.run(_run(options, address, worker, executor, spool, shelf, signals))


async def _run(
    options: WorkerOptions,
    address: Address,
    worker: str,
    executor: Executor,
    spool: Spool,
    shelf: Shelf,
    signals: StopSignals,
) -> int:
    commands = _Commands(executor)
    station = Station(
        {TASK_TYPE: commands.run},
        options.queues,
        options.slots,
        orphan_s=options.orphan_s,
        spool=spool,
    )
    link = await NatsLink.connect(
        address,
        inbox=messages.name_of(worker),
        credentials=options.credentials,
        insecure=options.insecure,
    )
    loop, stopped_by = asyncio.get_running_loop(), list[Signals]()
    serving = run_station(station, link, address.fleet, worker, shelf=shelf)
    work = asyncio.create_task(serving)

    def end() -> None:
        if not work.cancelling():  # a second cancellation would cut off the handing back
            work.cancel()

    def stop(number: Signals) -> None:
        if stopped_by:
            commands.hurry()
        else:
            end()
        stopped_by.append(number)

    def deliver(number: Signals) -> None:
        loop.call_soon_threadsafe(stop, number)

    commands.on_error = end
    try:
        with signals.delivered_to(deliver), suppress(asyncio.CancelledError):
            await work
    finally:
        await link.close()
    if commands.error is not None:
        raise commands.error
    return 128 + stopped_by[0]


class _Commands:
    """The commands that run in one worker."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._stops: set[Stop] = set()
        self.error: GuardError | None = None
        """The error because of which no more commands can run, or None."""

        self.on_error: Callable[[], object] = lambda: None
        """A function that is called when there is an error. It ends the worker."""

    async def run(self, context: RemoteContext) -> AgentResult:
        """Run the command of an agent, and return its result. Without a guard, the agent is handed
        back, and the worker ends."""
        try:
            return await self._run(context)
        except GuardError as error:
            self.error = error
            self.on_error()
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                # The worker's end cancels this once its request for agents, which could bring this
                # one back here, has been withdrawn.
                with suppress(asyncio.CancelledError):
                    await asyncio.get_running_loop().create_future()
            return AgentResult(None, status="interrupted", reason=records.HANDED_BACK)

    async def _run(self, context: RemoteContext) -> AgentResult:
        agent = context.agent
        if argv_of(agent) is None:
            return AgentResult(None, status="failed", reason="it has no command")
        directory = Settings.of(agent.metadata).cwd
        # Normalized, so that ".." after a symlink does not lead to the parent of its target.
        agent.metadata["cwd"] = cwd = os.path.normpath(directory)
        if os.path.isabs(cwd) or cwd.split(os.sep)[0] == os.pardir:
            what = f"its cwd {directory!r} is not at or below the directory of the worker"
            return AgentResult(None, status="failed", reason=f"could not be started: {what}")
        if Settings.of(agent.metadata).timeout_s is None:
            agent.metadata["timeout_s"] = context.options.get("timeout_s")
        if agent.checkpoint:
            await context.checkpoint({}, steps_taken=0)  # the facts of its last start are over
        stop = Stop()
        self._stops.add(stop)
        execution = asyncio.create_task(self._executor.run(agent, stop))
        over = asyncio.create_task(context.cancelled.wait())
        try:
            await asyncio.wait((execution, over), return_when=asyncio.FIRST_COMPLETED)
            stop.request("its lease is over")  # no effect on a command that has exited
            return await execution
        except asyncio.CancelledError:
            stop.request(records.HANDED_BACK)
            result = await execution
            is_stopped = result.status == "interrupted"
            return replace(result, reason=records.HANDED_BACK) if is_stopped else result
        finally:
            over.cancel()
            self._stops.discard(stop)

    def hurry(self) -> None:
        """Kill the commands that are being stopped."""
        for stop in self._stops:
            stop.request("")


@contextmanager
def _lock(path: str) -> Iterator[None]:
    """Lock a worker's directory. Raises DispatchError if another worker uses it, and OSError."""
    fd = _open_file(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DispatchError(
            f"{os.path.dirname(path)}: another worker uses this directory; stop it, or choose "
            "another --dir"
        ) from None
    finally:
        os.close(fd)


def _open_file(path: str) -> int:
    """Return a handle of a file that is locked. Make a missing one.

    Raises OSError, and UnsafePathError for a symlink or another kind of file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ELOOP, errno.ENXIO):
            raise UnsafePathError(_NO_FILE, path=path) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UnsafePathError(_NO_FILE, path=path)
    return fd
