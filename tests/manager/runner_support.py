"""Helpers for tests of the runner: runs in this process and in others, and their pids."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manager import Agent, SubAgentManager
from manager._run.options import RunOptions
from manager._run.printer import Printer
from manager._run.report import RunReport
from manager._run.runner import run_tasks
from manager._run.tasks import read_tasks
from manager.again import TASK_TYPE

TIMEOUT_S = 60
PYTHON = (sys.executable, "-P")


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    """Fail a test that hangs. Most tests here run in the main thread, which a signal reaches.

    Runners begin without an ignored SIGHUP, even if the tests run under `nohup`.
    """

    def fail(number: int, frame: object) -> None:
        raise TimeoutError(f"over {TIMEOUT_S} s")

    before = signal.signal(signal.SIGALRM, fail)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.alarm(TIMEOUT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGHUP, hangup)
    signal.signal(signal.SIGALRM, before)


def run(
    workspace: Path,
    *lines: str,
    jobs: int = 4,
    timeout_s: float | None = None,
    retry_failed: bool = False,
    printer: Printer | None = None,
    tell: Callable[[RunReport], None] = lambda report: None,
    **more: Any,
) -> RunReport:
    """Run these lines, or the tasks that the state holds if there are no lines. `more` are other
    options of the run."""
    tasks = read_tasks("\n".join(lines).encode(), "tasks.txt") if lines else None
    options = RunOptions(jobs=jobs, timeout_s=timeout_s, retry_failed=retry_failed, **more)
    return run_tasks(str(workspace), tasks, options, printer=printer, on_change=tell)


def agents(report: RunReport) -> list[Agent]:
    return list(report.agents.values())


def only(report: RunReport) -> Agent:
    (agent,) = agents(report)
    return agent


def is_running(pid: int) -> bool:
    """Return whether the process runs. A zombie does not."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:  # no /proc: macOS
        return True
    except ProcessLookupError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def until(condition: Callable[[], object], awaited: str) -> None:
    """Wait until `condition` is true. Fail if it never becomes so."""
    deadline = time.monotonic() + TIMEOUT_S / 2
    while not condition():
        assert time.monotonic() < deadline, f"never: {awaited}"
        time.sleep(0.005)


def pids(path: Path, count: int) -> list[int]:
    """Return the pids that commands wrote to `path`, once there are `count`."""

    def written_pids() -> list[int]:
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [int(line) for line in lines if line.endswith("\n")]

    until(lambda: len(written_pids()) >= count, f"{count} pids in {path}")
    return written_pids()


def as_seen_later(agent: Agent) -> Agent:
    return replace(agent, from_prior_session=True)


def spawn_task(manager: SubAgentManager, command: str, **more: Any) -> Agent:
    """Spawn a queued agent as the runner does."""
    return manager.spawn(command, agent_type=TASK_TYPE, queued=True, **more)


def put_in_state(workspace: Path, *agents: tuple[str, str, str]) -> None:
    """Store tasks by name as an earlier run leaves them: queued or interrupted."""
    with SubAgentManager.open(workspace) as manager:
        for name, command, status in agents:
            metadata = {"task": f"name:{name}", "command": command, "timeout_s": None}
            spawn_task(manager, command, name=name, metadata=metadata)
            if status == "interrupted":
                manager.start(name)
                manager.interrupt(name, "gone")


class Runner:
    """A `subagents run` in its own process, which runs the Python code of `prelude` first."""

    def __init__(
        self,
        workspace: Path,
        *lines: str,
        jobs: int = 4,
        prelude: str = "",
        args: tuple[str, ...] = (),
    ) -> None:
        tasks = workspace / "tasks.txt"
        tasks.write_text("\n".join(lines))
        code = f"{textwrap.dedent(prelude)}\nfrom manager.__main__ import main\nmain()"
        more = ("--workspace", str(workspace), f"-j{jobs}", *args)
        self.process = subprocess.Popen(
            [*PYTHON, "-c", code, "run", str(tasks), *more],
            stderr=subprocess.PIPE,
            text=True,
        )

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        _, messages = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, messages

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
