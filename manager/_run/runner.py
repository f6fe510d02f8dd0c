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
from collections.abc import Callable
from signal import Signals

from journal import LockedError
from manager._run.admission import admit
from manager._run.process import Command, Guard
from manager._run.report import RunReport
from manager._run.signals import StopSignals
from manager._run.tasks import DEPTH_MAX, Task, argv_of
from manager.agent import LIVE, Agent
from manager.limits import Limits
from manager.manager import SubAgentManager
from manager.result import AgentResult

_UNBOUNDED = 1 << 30  # the file of tasks limits the number of agents
_OUTPUT_BYTES = 64 << 10
_REASON_LINES = 5
_REASON_CHARS = 1000
_GRACE_S = 5.0
_LOCKED_FOR_S = 1.0
_POLL_S = 0.02


OnChange = Callable[[RunReport], None]


def run_tasks(
    workspace: str,
    tasks: list[Task] | None,
    *,
    state_dir: str = ".subagents",
    jobs: int,
    timeout_s: float | None = None,
    retry_failed: bool = False,
    on_change: OnChange = lambda report: None,
) -> RunReport:
    """Run `tasks` (None: the unfinished tasks in the state), `jobs` at a time, until all end.

    Call this in the main thread. During the run, SIGINT and SIGTERM stop the commands, and their
    agents become durably interrupted; just before and after the run, the signals raise SystemExit.
    `timeout_s` applies to tasks without a timeout of their own. `on_change` is called after every
    change.

    Raise TasksError if another agent in the state has a task's name, FileNotFoundError if there is
    no state to continue, TimeoutError if commands of an earlier run can't be killed, GuardError,
    and the errors of opening and using a manager.
    """
    if tasks is None and not os.path.lexists(path := os.path.join(workspace, state_dir)):
        raise FileNotFoundError(errno.ENOENT, "no state to continue; give a file of tasks", path)
    limits = Limits(
        max_running=jobs,
        max_admitted=_UNBOUNDED,
        max_depth=DEPTH_MAX,
        # A task whose end was dropped would be run again.
        keep_ended_s=None,
        keep_ended_max=None,
    )
    with StopSignals() as signals, Guard() as guard, _open(workspace, state_dir, limits) as manager:
        guard.lock(os.path.join(manager.path, "LOCK"))
        report = admit(manager, tasks, retry_failed=retry_failed)
        run = _Run(manager, guard, report, os.path.realpath(workspace), timeout_s, on_change)
        asyncio.run(run.run_all(jobs, signals))
    return report


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
        guard: Guard,
        report: RunReport,
        workspace: str,
        timeout_s: float | None,
        on_change: OnChange,
    ) -> None:
        self._manager = manager
        self._guard = guard
        self._report = report
        self._workspace = workspace
        self._timeout_s = timeout_s
        self._on_change = on_change
        self._output_bytes_max = min(_OUTPUT_BYTES, manager.limits.result_bytes_max)
        self._waiting = deque(a for a in report.agents.values() if a.status in LIVE)
        self._stop: asyncio.Future[None]
        self._hurry: asyncio.Future[None]

    async def run_all(self, jobs: int, signals: StopSignals) -> None:
        loop = asyncio.get_running_loop()
        self._stop, self._hurry = loop.create_future(), loop.create_future()

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
        if not self._stop.done():
            self._report.note_stop(number)
            self._stop.set_result(None)
        elif not self._hurry.done():
            self._hurry.set_result(None)

    async def _work(self) -> None:
        while self._waiting and not self._stop.done():
            await self._run_agent(self._waiting.popleft())

    async def _run_agent(self, agent: Agent) -> None:
        manager, ref = self._manager, agent.agent_id
        begin = manager.resume if agent.status == "interrupted" else manager.start
        await self._journal(lambda: begin(ref))
        result = await self._result(agent)
        if result is None:
            assert self._report.signal is not None
            reason = f"stopped by {self._report.signal.name}"
            await self._journal(lambda: manager.interrupt(ref, reason))
        else:
            await self._journal(lambda: manager.update_from_result(ref, result))

    async def _journal(self, change: Callable[[], Agent]) -> None:
        await self._manager.room()
        agent = change()
        await self._manager.durable(agent.lsn)
        self._report.put(agent)
        self._on_change(self._report)

    async def _result(self, agent: Agent) -> AgentResult | None:
        """Run the agent's command and return its result.

        Return None if the run was stopped before the command had exited.
        """
        argv = argv_of(agent.metadata)
        assert argv is not None
        try:
            command = await Command.launch(
                argv,
                self._guard,
                cwd=self._workspace,
                env=os.environ | {"SUBAGENT_ID": agent.agent_id, "SUBAGENT_NAME": agent.name},
                output_bytes_max=self._output_bytes_max,
            )
        except (OSError, ValueError) as error:
            return AgentResult(None, status="failed", reason=f"could not be started: {error}")
        timeout_s = agent.metadata.get("timeout_s") or self._timeout_s
        try:
            await asyncio.wait(
                (command.exited, self._stop),
                timeout=timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            is_stopped, is_cut_off = self._stop.done(), not command.exited.done()
            if is_cut_off:
                await command.terminate(grace_s=_GRACE_S, hurry=self._hurry)
        finally:
            code = await command.finish()
        if is_cut_off and is_stopped:
            return None
        reason = f"timed out after {timeout_s:g} s" if is_cut_off else _exit_reason(code)
        return _as_result(reason, command.output)


def _exit_reason(code: int) -> str:
    """Return a text for an exit code other than 0, and "" for 0."""
    if code >= 0:
        return f"exit {code}" if code else ""
    try:
        return f"killed by {Signals(-code).name}"
    except ValueError:  # real-time signals have no names
        return f"killed by signal {-code}"


def _as_result(reason: str, output: str) -> AgentResult:
    if not reason:
        return AgentResult(output)
    last_lines = "\n".join(output.splitlines()[-_REASON_LINES:])[-_REASON_CHARS:]
    return AgentResult(output, status="failed", reason=f"{reason}\n{last_lines}".rstrip())
