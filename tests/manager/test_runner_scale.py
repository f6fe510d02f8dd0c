"""Runs of many tasks: their memory, and the start of a resumed one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from manager import AgentResult, Limits, SubAgentManager
from manager._run.admission import admit
from manager._run.execution import tail_bytes_max
from manager._run.process import Command, Guard
from manager._run.tasks import read_tasks
from manager.outputs import OutputDirectory
from tests.manager.runner_support import agents, run, watchdog

__all__ = ["watchdog"]  # a fixture for every test here

TASKS = 100_000
MEASURED = """
import resource, sys
from manager.__main__ import main
from manager._run import runner
from manager._cli import run as cli

def stop() -> None:
    times = resource.getrusage(resource.RUSAGE_SELF)
    # Their maximum of memory would include this test's own process.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    peak_kib = int(status["VmHWM"].split()[0])
    print(times.ru_utime + times.ru_stime, peak_kib >> 10, flush=True)
    raise SystemExit(0)

cli.resume_collector = stop
main()
"""


def test_results_of_many_tasks_are_short() -> None:
    """The results of all tasks of a run take 64 MiB at most, and 1 KiB each at least."""
    assert [tail_bytes_max(n) >> 10 for n in (0, 1, 1024, 2048, 65536, 10**6)] == [
        *(64, 64, 64, 32, 1, 1)
    ]


def test_a_sweep_makes_no_object_for_known_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open of a state with many files reads their names alone, once."""
    run(tmp_path, *(f"echo {n}" for n in range(4)))
    monkeypatch.setattr("manager.outputs.part_named", None)
    listed: list[int] = []
    names = OutputDirectory.names

    def count(directory: OutputDirectory) -> list[str]:
        listed.append(1)
        return names(directory)

    monkeypatch.setattr(OutputDirectory, "names", count)
    with SubAgentManager.open(tmp_path):
        assert len(listed) == 1


def test_many_commands_get_enough_descriptors(tmp_path: Path) -> None:
    """With many jobs, the limit of open files is raised for the runner, and stays for commands."""
    lines = ["ulimit -n"] * 40
    (tmp_path / "tasks").write_text("\n".join(lines))
    command = f"ulimit -Sn 128; exec {sys.executable} -P -m manager run tasks -j40 --print"
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.split()) == (0, ["128"] * 40)


@pytest.mark.slow
def test_a_large_run_is_resumed_soon(tmp_path: Path) -> None:
    """A run of 100,000 tasks, half of which have ended, begins with 2.5 s of CPU time and 350 MiB.

    The bound here is twice that, for slow machines.
    """
    text = "\n".join(f"echo {n}" for n in range(TASKS))
    (tmp_path / "tasks").write_text(text)
    limits = Limits(max_admitted=1 << 30)
    with SubAgentManager.open(tmp_path, limits=limits) as manager:
        report = admit(manager, read_tasks(text.encode(), "tasks"), retry_failed=False)
        for number, agent_id in enumerate(list(report.agents)[: TASKS // 2]):
            manager.start(agent_id)
            manager.update_from_result(agent_id, AgentResult("x" * 20))
            if number % 1000 == 0:
                manager.wait_durable()
    done = subprocess.run(
        [sys.executable, "-P", "-c", MEASURED, "run", "tasks"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    cpu_s, rss_mib = done.stdout.split()
    assert float(cpu_s) < 5
    assert int(rss_mib) < 700


def lack_until(place: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the start of each `echo` fail with this error until `place` exists."""
    launch = Command.launch

    async def fail(argv: Sequence[str], guard: Guard, **more: Any) -> Command:
        if argv[-1].startswith("echo") and not place.exists():
            raise OSError(number, os.strerror(number))
        return await launch(argv, guard, **more)

    monkeypatch.setattr(Command, "launch", fail)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_command_that_finds_no_place_waits_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A command for which no process or descriptor is left starts once another one has ended. If no
    other one runs, it has failed."""
    lack_until(tmp_path / "done", monkeypatch, number)
    waited = run(tmp_path, "sleep 0.2; touch done", *["echo 1"] * 3)
    assert [agent.status for agent in agents(waited)] == ["completed"] * 4
    (tmp_path / "done").unlink()
    alone = agents(run(tmp_path, "echo 2"))[0]
    assert (alone.status, alone.reason) == (
        "failed",
        f"could not be started: [Errno {number}] {os.strerror(number)}",
    )


def test_a_stop_ends_the_wait_for_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that still waits for a place when the run stops is interrupted."""
    lack_until(tmp_path / "done", monkeypatch, errno.EAGAIN)
    report = run(tmp_path, "sleep 0.2; exit 1", "sleep 1000", "echo 1", halt="now")
    assert [agent.status for agent in agents(report)] == ["failed", "interrupted", "interrupted"]
    assert agents(report)[2].checkpoint == {}
