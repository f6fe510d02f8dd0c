"""Measure how soon a resumed run of many tasks starts its first command, beside GNU parallel.

Half of the tasks have ended before. Each round starts `subagents run` and, if it is installed,
`parallel --resume --joblog` in a fresh copy of its directory, and kills it once its first command
has begun. The commands of both are short.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.figures import Bar, at_most
from bench.imports import environment
from bench.machine import about
from bench.output import parsed, show
from manager import AgentResult, Limits, SubAgentManager
from manager._run.admission import admit
from manager._run.tasks import read_tasks

OURS = "subagents run"
COMMANDS = {
    OURS: [sys.executable, "-P", "-m", "manager", "run", "tasks", "-j2"],
    "parallel --resume": [
        *("parallel", "--will-cite", "-a", "tasks", "-j2", "--resume", "--joblog", "log"),
    ],
}
BAR_S = 3.0
_COMMIT_TASKS = 1000
_POLL_S = 0.002
_LIMIT_S = 600
_LOG_HEAD = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"


@dataclass(frozen=True)
class Row:
    """The start of one runner: the medians over the rounds.

    `start_s` lasts until the first command has begun. `cpu_s` and `peak_mib` are those of the
    runner's own process up to then.
    """

    runner: str
    start_s: float
    cpu_s: float
    peak_mib: float


def prepare(directory: Path, tasks: int) -> None:
    """Make the state, and the job log of parallel, of a run whose first half has ended."""
    lines = [f"echo {number} >>begun" for number in range(tasks)]
    text = "".join(f"{line}\n" for line in lines)
    (directory / "tasks").write_text(text)
    ended = tasks // 2
    with SubAgentManager.open(directory, limits=Limits(max_admitted=1 << 30)) as manager:
        report = admit(manager, read_tasks(text.encode(), "tasks"), retry_failed=False)
        for number, agent_id in enumerate(list(report.agents)[:ended]):
            manager.start(agent_id)
            manager.update_from_result(agent_id, AgentResult(""))
            if number % _COMMIT_TASKS == 0:
                manager.wait_durable()
    (directory / "log").write_text(
        _LOG_HEAD
        + "".join(
            f"{number}\t:\t1700000000.000\t     0.001\t0\t0\t0\t0\t{line}\n"
            for number, line in enumerate(lines[:ended], start=1)
        )
    )


def start(runner: str, directory: Path) -> tuple[float, float, float]:
    """Return the seconds until a runner's first command, its CPU seconds, and its peak in MiB."""
    begun = directory / "begun"
    began = time.perf_counter()
    with subprocess.Popen(
        COMMANDS[runner],
        cwd=directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            while not begun.exists():
                if process.poll() is not None or time.perf_counter() - began > _LIMIT_S:
                    raise SystemExit(f"bench: {runner} started no command")
                time.sleep(_POLL_S)
            took_s = time.perf_counter() - began
            facts = Path(f"/proc/{process.pid}")
            times = (facts / "stat").read_text().rpartition(")")[2].split()[11:13]
            cpu_s = sum(map(int, times)) / os.sysconf("SC_CLK_TCK")  # of all threads
            status = dict(line.split(":", 1) for line in (facts / "status").open())
        finally:
            process.kill()
    return took_s, cpu_s, int(status["VmHWM"].split()[0]) / 1024


def remove(directory: Path) -> None:
    """Remove a directory in which a command of the killed runner may still write."""
    until = time.perf_counter() + _LIMIT_S
    while directory.exists() and time.perf_counter() < until:
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(_POLL_S)


def measure(where: Path | None, *, tasks: int, rounds: int) -> list[Row]:
    """Return the results of all installed runners, which alternate within each round."""
    runners = [name for name in COMMANDS if name == OURS or shutil.which(name.split()[0])]
    took: dict[str, list[tuple[float, float, float]]] = {runner: [] for runner in runners}
    with tempfile.TemporaryDirectory(dir=where) as made:
        prepare(Path(made), tasks)
        for _ in range(rounds):
            for runner in runners:
                copy = Path(tempfile.mkdtemp(dir=where))
                try:
                    shutil.copytree(made, copy, dirs_exist_ok=True)
                    took[runner].append(start(runner, copy))
                finally:
                    remove(copy)
    return [
        Row(runner, *map(statistics.median, zip(*of_runner, strict=True)))
        for runner, of_runner in took.items()
    ]


def table(rows: list[Row]) -> Iterator[str]:
    yield f"{'':24}{'first command':>16}{'CPU':>12}{'peak':>12}"
    for row in rows:
        yield f"{row.runner:24}{row.start_s:14.2f} s{row.cpu_s:10.2f} s{row.peak_mib:8.0f} MiB"


def bars(rows: list[Row], tasks: int) -> Iterator[Bar]:
    yield at_most(f"{OURS}: first command of {tasks:,} tasks", rows[0].start_s, BAR_S, "s")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python tools/bench resumed", description=__doc__)
    parser.add_argument(
        "--tasks", type=int, default=100_000, help="half of them have ended; default: 100000"
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parsed(parser, arguments)
    rows = measure(options.dir, tasks=options.tasks, rounds=options.rounds)
    results = {"tasks": options.tasks, "rows": [asdict(row) for row in rows]}
    return show("resumed", options, about(), results, table(rows), bars(rows, options.tasks))
