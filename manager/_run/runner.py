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
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from signal import Signals

from journal import LockedError
from manager._run.admission import admit
from manager._run.execution import Executor, Stop
from manager._run.joblog import JobLog
from manager._run.options import RunOptions
from manager._run.printer import Printer
from manager._run.process import Guard
from manager._run.report import RunReport
from manager._run.signals import StopSignals
from manager._run.tasks import DEPTH_MAX, Task
from manager.agent import LIVE, Agent
from manager.limits import Limits
from manager.manager import SubAgentManager
from manager.outputs import OutputDirectory

_UNBOUNDED = 1 << 30  # the file of tasks limits the number of agents
_LOCKED_FOR_S = 1.0
_POLL_S = 0.02


OnChange = Callable[[RunReport], None]


def run_tasks(
    workspace: str,
    tasks: list[Task] | None,
    options: RunOptions,
    *,
    state_dir: str = ".subagents",
    printer: Printer | None = None,
    on_change: OnChange = lambda report: None,
) -> RunReport:
    """Run `tasks` (None: the unfinished tasks in the state) until all end.

    Call this in the main thread. During the run, SIGINT, SIGTERM and SIGHUP stop the commands, and
    their agents become durably interrupted; just before and after it, they raise SystemExit.
    `printer` prints what the commands print. `on_change` is called after every change.

    Raise TasksError if another agent in the state has a task's name, FileNotFoundError if there is
    no state to continue, TimeoutError if commands of an earlier run can't be killed, GuardError,
    and the errors of opening and using a manager.
    """
    if tasks is None and not os.path.lexists(path := os.path.join(workspace, state_dir)):
        raise FileNotFoundError(errno.ENOENT, "no state to continue; give a file of tasks", path)
    limits = Limits(
        max_running=options.jobs,
        max_admitted=_UNBOUNDED,
        max_depth=DEPTH_MAX,
        # A task whose end was dropped would be run again.
        keep_ended_s=None,
        keep_ended_max=None,
    )
    with (
        StopSignals() as signals,
        Guard() as guard,
        _open(workspace, state_dir, limits) as manager,
        closing(OutputDirectory.open(manager.path, write=True)) as outputs,
    ):
        guard.lock(os.path.join(manager.path, "LOCK"))
        report = admit(manager, tasks, retry_failed=options.retry_failed)
        executor = Executor(os.path.realpath(workspace), guard, outputs, printer, options)
        with _job_log(options.joblog, report) as log:
            run = _Run(manager, executor, report, log, on_change)
            asyncio.run(run.run_all(options.jobs, signals))
    return report


@contextmanager
def _job_log(path: str | None, report: RunReport) -> Iterator[JobLog | None]:
    if path is None:
        yield None
        return
    tasks = (agent.metadata["task"] for agent in report.agents.values())
    with closing(JobLog(path, {task: number for number, task in enumerate(tasks, 1)})) as log:
        log.add(report.agents.values())
        yield log
        report.joblog_error = log.error


def _open(workspace: str, state_dir: str, limits: Limits) -> SubAgentManager:
    until = time.monotonic() + _LOCKED_FOR_S
    while True:
        try:
            return SubAgentManager.open(workspace, state_dir=state_dir, limits=limits)
        except LockedError:
            # If a runner is killed while it starts a command, the command's process holds a copy of
            # the runner's lock until its exec.
            if time.monotonic() > until:
                raise
            time.sleep(_POLL_S)


class _Run:
    """A run of commands in one event loop."""

    def __init__(
        self,
        manager: SubAgentManager,
        executor: Executor,
        report: RunReport,
        log: JobLog | None,
        on_change: OnChange,
    ) -> None:
        self._manager = manager
        self._executor = executor
        self._report = report
        self._log = log
        self._on_change = on_change
        self._waiting = deque(a for a in report.agents.values() if a.status in LIVE)
        self._stop: Stop

    async def run_all(self, jobs: int, signals: StopSignals) -> None:
        """Run the waiting agents, `jobs` at a time."""
        loop = asyncio.get_running_loop()
        self._stop = Stop()

        def deliver(number: Signals) -> None:
            loop.call_soon_threadsafe(self._on_signal, number)

        with signals.delivered_to(deliver):
            try:
                self._on_change(self._report)
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(jobs, len(self._waiting))):
                        group.create_task(self._work())
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None  # the first error cancelled the other tasks

    def _on_signal(self, number: Signals) -> None:
        self._stop.request(number)
        self._report.signal = self._stop.signal
        self._on_change(self._report)

    async def _work(self) -> None:
        while self._waiting and self._stop.signal is None:
            await self._run_agent(self._waiting.popleft())

    async def _run_agent(self, agent: Agent) -> None:
        manager, ref = self._manager, agent.agent_id
        begin = manager.resume if agent.status == "interrupted" else manager.start
        running = await self._journal(lambda: begin(ref))
        result = await self._executor.run(running, self._stop)
        await self._journal(lambda: manager.update_from_result(ref, result))

    async def _journal(self, change: Callable[[], Agent]) -> Agent:
        await self._manager.room()
        agent = change()
        await self._manager.durable(agent.lsn)
        self._report.put(agent)
        if self._log is not None:
            self._log.add((agent,))
        self._on_change(self._report)
        return agent
