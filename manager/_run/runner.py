"""Runner: real commands as sub-agents, durable and resumable.

That a command begins to run is durable before it does, and how it came out before anybody is
told. So in the state each command completes exactly once. In the world it runs *at least* once:
one that ended when its runner was killed, but before that was durable, is run again, as is any
that was cut off half-way. A command that must not do its work twice can look for traces of
SUBAGENT_ID, which is the same each time.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from signal import Signals
from types import FrameType
from typing import Any, Self

from journal import LockedError
from manager._run.process import Command, Guard
from manager._run.tasks import AGENT_TYPE, DEPTH_MAX, Task, argv_of, parents_first
from manager.agent import LIVE, Agent
from manager.errors import NameInUseError, TasksError
from manager.limits import Limits
from manager.manager import SubAgentManager
from manager.result import AgentResult

_UNBOUNDED = 1 << 30  # a file of tasks is its own bound
_OUTPUT_BYTES = 64 << 10
_REASON_LINES = 5
_REASON_CHARS = 1000
_GRACE_S = 5.0
_LOCKED_FOR_S = 1.0
_POLL_S = 0.02


@dataclass
class RunReport:
    """How a run stands, or has ended. Of a task that was retried, its newest agent counts.

    `agents`: those of this run by id, and `counts` of their statuses; `others`: unfinished tasks
    of the state that this run was not asked for; `signal`: what stopped it.
    """

    agents: dict[str, Agent] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    others: int = 0
    signal: Signals | None = None

    def put(self, agent: Agent) -> None:
        """Note how `agent` stands now."""
        old = self.agents.get(agent.agent_id)
        if old is not None:
            self.counts[old.status] -= 1
        self.agents[agent.agent_id] = agent
        self.counts[agent.status] += 1

    def note_stop(self, number: Signals) -> None:
        """Note the signal that stops the run."""
        self.signal = number

    @property
    def exit_code(self) -> int:
        if self.signal is not None:
            return 128 + self.signal
        return 0 if self.counts["completed"] == len(self.agents) else 1


Tell = Callable[[RunReport], None]


def run_tasks(
    workspace: str,
    tasks: list[Task] | None,
    *,
    state_dir: str = ".subagents",
    jobs: int,
    timeout_s: float | None = None,
    retry_failed: bool = False,
    tell: Tell = lambda report: None,
) -> RunReport:
    """Run `tasks`, or what the state holds unfinished (None), `jobs` at a time, to their ends.

    For the main thread: until it returns, SIGINT and SIGTERM stop the commands, mark them
    interrupted and make that durable; before and after the run itself they are a SystemExit.
    `timeout_s` is for tasks without one of their own. `tell` is called at every change.

    Raises TasksError if the state has another use for a task's name, FileNotFoundError if there
    is no state to go on with, TimeoutError if commands of an earlier run can't be killed,
    GuardError, and what opening and using a manager raises.
    """
    if tasks is None and not os.path.lexists(path := os.path.join(workspace, state_dir)):
        raise FileNotFoundError(errno.ENOENT, "no state to go on with; give a file of tasks", path)
    limits = Limits(max_running=jobs, max_admitted=_UNBOUNDED, max_depth=DEPTH_MAX)
    with _Signals() as signals, Guard() as guard, _open(workspace, state_dir, limits) as manager:
        guard.lock(os.path.join(manager.path, "LOCK"))
        report = admit(manager, tasks, retry_failed=retry_failed)
        run = _Run(manager, guard, report, os.path.realpath(workspace), timeout_s, tell)
        asyncio.run(run.run_all(jobs, signals))
    return report


def admit(manager: SubAgentManager, tasks: list[Task] | None, *, retry_failed: bool) -> RunReport:
    """Find each task's agent in the state, or spawn one, queued; the report of all of them."""
    held = {
        agent.metadata["task"]: agent  # the newest of each task
        for agent in manager.agents(include_archived=True)
        if argv_of(agent.metadata) is not None
    }
    if tasks is None:
        report = RunReport()
        for agent in held.values():
            again = retry_failed and agent.status == "failed"
            report.put(_spawn_again(manager, agent) if again else agent)
        return report
    admitted: dict[str, Agent] = {}
    ids: dict[str, str] = {}
    for task in parents_first(tasks):
        parent_id = None if task.parent is None else ids[task.parent]
        agent = _admit(manager, task, held.pop(task.key, None), parent_id, retry_failed)
        admitted[task.key] = agent
        if task.name is not None:
            ids[task.name] = agent.agent_id
    report = RunReport(others=sum(agent.status in LIVE for agent in held.values()))
    for task in tasks:
        report.put(admitted[task.key])
    return report


def _admit(
    manager: SubAgentManager, task: Task, agent: Agent | None, parent_id: str | None, retry: bool
) -> Agent:
    """The agent that the task has; or a new one if there is none, to retry, or if the line of an
    unfinished one (its name tells which it is) has been edited."""
    if agent is not None:
        edited = (agent.prompt, agent.metadata) != (task.prompt, task.metadata)
        again = retry if agent.status == "failed" else edited and agent.status != "completed"
        if not again:
            return agent
        manager.cancel(agent.agent_id)  # one that has ended stays as it is
    try:
        return manager.spawn(
            task.prompt,
            name=task.name,
            agent_type=AGENT_TYPE,
            parent_id=parent_id,
            metadata=task.metadata,
            queued=True,
        )
    except NameInUseError as error:
        raise TasksError(f"{task.where}: {error}") from error


def _spawn_again(manager: SubAgentManager, agent: Agent) -> Agent:
    return manager.spawn(
        agent.prompt,
        name=None if agent.name == agent.agent_id else agent.name,
        agent_type=agent.agent_type,
        parent_id=agent.parent_id,
        metadata=agent.metadata,
        queued=True,
    )


def _open(workspace: str, state_dir: str, limits: Limits) -> SubAgentManager:
    until = time.monotonic() + _LOCKED_FOR_S
    while True:
        try:
            return SubAgentManager.open(workspace, state_dir=state_dir, limits=limits)
        except LockedError:
            # A command that was being started when its runner was killed has a copy of the
            # runner's lock until its exec.
            if time.monotonic() > until:
                raise
            time.sleep(_POLL_S)


class _Signals:
    """SIGINT and SIGTERM during a run. They raise SystemExit, except within `delivered_to`."""

    def __init__(self) -> None:
        self._deliver: Callable[[Signals], object] | None = None
        self._before: dict[Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def delivered_to(self, deliver: Callable[[Signals], object]) -> Iterator[None]:
        """Call `deliver` with each signal that comes meanwhile."""
        self._deliver = deliver
        try:
            yield
        finally:
            self._deliver = None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._deliver is None:
            raise SystemExit(128 + number)
        self._deliver(Signals(number))


class _Run:
    """One run, in one event loop."""

    def __init__(
        self,
        manager: SubAgentManager,
        guard: Guard,
        report: RunReport,
        workspace: str,
        timeout_s: float | None,
        tell: Tell,
    ) -> None:
        self._manager = manager
        self._guard = guard
        self._report = report
        self._workspace = workspace
        self._timeout_s = timeout_s
        self._tell = tell
        self._output_bytes_max = min(_OUTPUT_BYTES, manager.limits.result_bytes_max)
        self._waiting = deque(a for a in report.agents.values() if a.status in LIVE)
        self._stop: asyncio.Future[None]
        self._hurry: asyncio.Future[None]

    async def run_all(self, jobs: int, signals: _Signals) -> None:
        loop = asyncio.get_running_loop()
        self._stop, self._hurry = loop.create_future(), loop.create_future()

        def deliver(number: Signals) -> None:
            loop.call_soon_threadsafe(self._on_signal, number)

        with signals.delivered_to(deliver):
            try:
                self._tell(self._report)
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(jobs, len(self._waiting))):
                        group.create_task(self._work())
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None  # the first; it cancelled the others

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
        self._tell(self._report)

    async def _result(self, agent: Agent) -> AgentResult | None:
        """Run its command; None if the run was stopped before that had ended."""
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
            stopped, cut_off = self._stop.done(), not command.exited.done()
            if cut_off:
                await command.terminate(grace_s=_GRACE_S, hurry=self._hurry)
        finally:
            code = await command.finish()
        if cut_off and stopped:
            return None
        reason = f"timed out after {timeout_s:g} s" if cut_off else _exit_reason(code)
        return _as_result(reason, command.output)


def _exit_reason(code: int) -> str:
    """ "" for success."""
    if code >= 0:
        return f"exit {code}" if code else ""
    try:
        return f"killed by {Signals(-code).name}"
    except ValueError:  # a real-time one has no name
        return f"killed by signal {-code}"


def _as_result(reason: str, output: str) -> AgentResult:
    if not reason:
        return AgentResult(output)
    last_lines = "\n".join(output.splitlines()[-_REASON_LINES:])[-_REASON_CHARS:]
    return AgentResult(output, status="failed", reason=f"{reason}\n{last_lines}".rstrip())
