"""Runner: runs commands as durable, resumable sub-agents.

The start of a command is durable before the command runs, and its outcome is durable before it is
reported. So in the state, each command completes exactly once. In the real world it runs *at least*
once: if the runner is killed, a command whose end was not yet durable runs again, and so does a
command that was killed with the runner. SUBAGENT_ID is the same each time, so a command that must
not do its work twice can use it to find traces of an earlier run.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

from journal import JournalError, LockedError, UnsafePathError
from manager import records
from manager._control.runners import Runners
from manager._run.admission import admit
from manager._run.execution import Executor
from manager._run.joblog import JobLog
from manager._run.options import RunOptions
from manager._run.printer import Printer
from manager._run.process import Guard
from manager._run.report import RunReport
from manager._run.run import OnChange, Run
from manager._run.signals import StopSignals
from manager._run.tasks import DEPTH_MAX, Task
from manager.errors import TasksError
from manager.limits import Limits
from manager.manager import SubAgentManager
from manager.outputs import OutputDirectory

_UNBOUNDED = 1 << 30  # the file of tasks limits the number of agents
_LOCKED_FOR_S = 1.0
_POLL_S = 0.02
_CLOSE_S = 15.0  # more than the time that a close gives a mirror that can't be reached
_GIVEN_UP_S = 2.0
_log = logging.getLogger("manager")


def run_tasks(
    workspace: str,
    tasks: list[Task] | None,
    options: RunOptions,
    *,
    state_dir: str = ".subagents",
    printer: Printer | None = None,
    on_start: Callable[[], None] = lambda: None,
    on_change: OnChange = lambda report: None,
) -> RunReport:
    """Run `tasks` (None: the unfinished tasks in the state) until all end.

    Call this in the main thread. During the run, SIGINT, SIGTERM and SIGHUP stop the commands, and
    their agents become durably interrupted; just before and after it, they raise SystemExit.
    `printer` prints what the commands print. `on_start` is called once the agents of all tasks
    are known, and `on_change` after every change.

    Raises ImportError, before the state is opened, without a package that `options.on` needs,
    TasksError if another agent in the state has a task's name, FileNotFoundError if there is
    no state to continue, TimeoutError if commands of an earlier run can't be killed, GuardError,
    and the errors of opening and using a manager.
    """
    path = os.path.join(workspace, state_dir)
    if tasks is None and options.mirror is None and not os.path.lexists(path):
        raise FileNotFoundError(errno.ENOENT, "no state to continue; give a file of tasks", path)
    limits = Limits(
        max_running=options.jobs,
        max_admitted=_UNBOUNDED,
        max_depth=DEPTH_MAX,
        # A task whose end was dropped would be run again.
        keep_ended_s=None,
        keep_ended_max=None,
    )
    if options.on is not None:
        return _run_elsewhere(workspace, tasks, options, state_dir, limits, on_start, on_change)
    with (
        StopSignals() as signals,
        closing(JobLog(options.joblog)) as log,
        Guard() as guard,
        _opened(signals, workspace, state_dir, limits, options) as manager,
        closing(OutputDirectory.open(manager.path, write=True)) as outputs,
    ):
        guard.lock(os.path.join(manager.path, "LOCK"))
        for agent in manager.agents(status="running"):  # on workers of an earlier run, with --on
            manager.interrupt(agent.agent_id, records.RESTARTED)
        report = admit(manager, tasks, retry_failed=options.retry_failed)
        executor = Executor(
            os.path.realpath(workspace),
            guard,
            outputs,
            printer,
            options,
            tasks=len(report.agents),
        )
        on_start()
        log.begin(report, partial(manager.agents, include_archived=True))
        run = Run(manager, executor, report, log, options, on_change)
        asyncio.run(run.run_all(signals, partial(_serve_control, manager)))
        if printer is not None and report.signal is not None:
            printer.hurry()
    return report


def _run_elsewhere(
    workspace: str,
    tasks: list[Task] | None,
    options: RunOptions,
    state_dir: str,
    limits: Limits,
    on_start: Callable[[], None],
    on_change: OnChange,
) -> RunReport:
    """Run tasks on workers elsewhere, as `run_tasks` does here."""
    from manager._remote.link import import_packages
    from manager._run.remote import RemoteRun  # takes 10 ms

    # An open binds the state to its mirror, and can't be undone.
    import_packages(needs_keys=options.credentials is not None)
    with (
        StopSignals() as signals,
        closing(JobLog(options.joblog)) as log,
        _opened(signals, workspace, state_dir, limits, options) as manager,
    ):
        report = admit(manager, tasks, retry_failed=options.retry_failed)
        on_start()
        log.begin(report, partial(manager.agents, include_archived=True))
        run = RemoteRun(manager, report, log, options, on_change)
        asyncio.run(run.run_all(signals, partial(_serve_control, manager)))
    return report


@contextmanager
def _opened(
    signals: StopSignals, workspace: str, state_dir: str, limits: Limits, options: RunOptions
) -> Iterator[SubAgentManager]:
    """Open the manager of a run for the block. Once the run was stopped, the close waits no longer
    than `_CLOSE_S` for the disk, which may be full, and `_GIVEN_UP_S` if the run has given up."""
    manager = _open(workspace, state_dir, limits, options)
    try:
        yield manager
    except BaseException:
        try:
            _close(manager, signals)
        except JournalError as error:  # the first error says more
            _log.error("%s: the state was not closed cleanly: %s", manager.path, error)
        raise
    _close(manager, signals)


def _close(manager: SubAgentManager, signals: StopSignals) -> None:
    if not signals.has_come:
        manager.close()
        return
    try:
        manager.close(timeout_s=_GIVEN_UP_S if signals.has_given_up else _CLOSE_S)
    except TimeoutError:
        _log.error("%s: the last changes are not durable; the disk takes none", manager.path)


def _open(workspace: str, state_dir: str, limits: Limits, options: RunOptions) -> SubAgentManager:
    until = time.monotonic() + _LOCKED_FOR_S
    while True:
        try:
            return SubAgentManager.open(
                workspace,
                state_dir=state_dir,
                limits=limits,
                mirror=options.mirror,
                takeover=options.takeover,
            )
        except ValueError as error:  # the address of the mirror
            raise TasksError(f"--mirror: {error}") from error
        except LockedError as error:
            if error.host is not None:
                raise  # a writer on another machine holds the mirror
            # If a runner is killed while it starts a command, the command's process holds a copy of
            # the runner's lock until its exec.
            if time.monotonic() > until:
                raise
            time.sleep(_POLL_S)


def _serve_control(manager: SubAgentManager, runners: Runners) -> None:
    """Take requests of other processes. A run goes on without that, as on a full disk, or where no
    thread can be started."""
    try:
        manager._serve_control(runners)
    except (OSError, RuntimeError, UnsafePathError) as error:
        _log.warning("no other process can cancel or pause tasks of this run: %s", error)
