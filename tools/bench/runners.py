"""Measure how many commands a second `subagents run` runs, beside other runners of commands.

Each runs the same file of short commands in a new directory. The time is that from the start of the
runner to the end of the last command. `subagents run` syncs the start and the end of each command,
and keeps what it prints in files; the others sync nothing. A runner that is not installed is
skipped.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.figures import Bar, at_least
from bench.imports import environment
from bench.machine import about
from bench.output import parsed, show

OURS = "subagents run"
_PARALLEL = "exec parallel --will-cite -a tasks -j{jobs} --joblog log"
# A runner's name begins with its program. Each script runs the commands in the file `tasks`, and
# counts the lines that they print.
SCRIPTS = {
    OURS: f"exec {sys.executable} -P -m manager run tasks -j{{jobs}}",
    "parallel --joblog": _PARALLEL,
    "parallel --joblog --results": f"{_PARALLEL} --results results",
    "xargs -P": "exec xargs -a tasks -d '\\n' -P {jobs} -I{{}} sh -c {{}}",
    # A client only enqueues its command. The last commands to start are waited for, and then what
    # an earlier one still prints.
    "tsp": """
        tsp -S {jobs}
        while read -r line; do tsp sh -c "$line"; done <tasks
        for back in $(seq {jobs}); do tsp -w $(({tasks} - back)); done
        while [ "$(wc -l <done)" -lt {tasks} ]; do sleep 0.01; done
        tsp -K
    """,
}
# The least speed, as a multiple of another runner's.
BARS = {"parallel --joblog": 1.0, "xargs -P": 0.1}


@dataclass(frozen=True)
class Row:
    """The speed of one runner: the medians over the rounds.

    `ratio` is the speed of `subagents run` in the same round, as a multiple of this one's. `cpu_ms`
    is the processor time for each command, and None for a runner with a server, whose is unknown.
    """

    runner: str
    commands_per_s: float
    ratio: float
    cpu_ms: float | None


def installed() -> list[str]:
    """Return the runners that can be measured."""
    return [name for name in SCRIPTS if name == OURS or shutil.which(name.split()[0])]


def run(runner: str, directory: Path, *, tasks: int, jobs: int) -> tuple[float, float]:
    """Return the seconds and the processor seconds that a runner takes for `tasks` commands."""
    (directory / "tasks").write_text("".join(f"echo {n} >>done\n" for n in range(tasks)))
    settings = {
        "SHELL": "/bin/sh",  # which parallel uses
        "TMPDIR": str(directory),
        "TS_SOCKET": f"/tmp/bench-tsp-{os.getpid()}",  # the path of a socket is short
        "TS_MAXFINISHED": str(tasks),
    }
    began, cpu_s = time.perf_counter(), _children_cpu_s()
    subprocess.run(
        ["/bin/sh", "-c", SCRIPTS[runner].format(jobs=jobs, tasks=tasks)],
        cwd=directory,
        env=environment() | settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    took = time.perf_counter() - began, _children_cpu_s() - cpu_s
    done = sorted(map(int, (directory / "done").read_text().split()))
    assert done == list(range(tasks)), f"{runner} has not run each command once"
    return took


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(where: Path | None, *, tasks: int, jobs: int, rounds: int) -> list[Row]:
    """Return the results of all installed runners, which alternate within each round."""
    took: list[dict[str, tuple[float, float]]] = []
    for _ in range(rounds):
        of_round = {}
        for runner in installed():
            with tempfile.TemporaryDirectory(dir=where) as directory:
                of_round[runner] = run(runner, Path(directory), tasks=tasks, jobs=jobs)
        took.append(of_round)
    return [
        Row(
            runner,
            statistics.median(tasks / of_round[runner][0] for of_round in took),
            statistics.median(of_round[runner][0] / of_round[OURS][0] for of_round in took),
            None
            if runner == "tsp"
            else statistics.median(of_round[runner][1] / tasks * 1e3 for of_round in took),
        )
        for runner in took[0]
    ]


def table(rows: list[Row]) -> Iterator[str]:
    yield f"{'':30}{'commands/s':>12}{'subagents run to it':>22}{'CPU a command':>16}"
    for row in rows:
        cpu = "" if row.cpu_ms is None else f"{row.cpu_ms:.1f} ms"
        yield f"{row.runner:30}{row.commands_per_s:12,.0f}{row.ratio:20.2f} x{cpu:>16}"


def bars(rows: list[Row]) -> Iterator[Bar]:
    for row in rows:
        if row.runner in BARS:
            yield at_least(f"{OURS} to {row.runner}", row.ratio, BARS[row.runner])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python tools/bench runners", description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000, help="the number of commands")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="the number that run at a time"
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parsed(parser, arguments)
    sizes = {"tasks": options.tasks, "jobs": options.jobs}
    rows = measure(options.dir, rounds=options.rounds, **sizes)
    results = {**sizes, "rows": [asdict(row) for row in rows]}
    return show("runners", options, about(), results, table(rows), bars(rows))
