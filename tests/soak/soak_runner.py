"""A soak of `subagents run`: many tasks under parents, killed and inspected again and again.

    python -m tests.soak.soak_runner --tasks 500 --kills 20 --seed 7

Each runner is killed with SIGKILL at a random moment, and the next one continues, until `--kills`
runners were killed and one has finished. Meanwhile another process lists the fleet and shows one of
its agents, over and over, and must always get an answer. The soak prints how long each answer took,
and how much of that was computing: a query waits for no writer, so the rest is a wait for a
processor or, while no runner lives, for the kernel's list of locks. In the end, each task has
completed under its parent, and its command ran once, or once more for each kill.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from manager import read_fleet

ROOT = Path(__file__).resolve().parents[2]
A_FAMILY = 25  # tasks per family: a parent and its children
WITHIN_MS = 100
NOTHING_YET = (
    "No such file or directory",
    "not a journal",
    "no state is there",
    "no sub-agents",
    "no agent ",
)


class Answer(NamedTuple):
    """The time that a query took, and the part of it that was spent computing."""

    took_s: float
    cpu_s: float


@dataclass
class Result:
    """The result of a soak: violations, and each query's answer, in order."""

    kills: int = 0
    faults: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)


def write_tasks(path: Path, tasks: int, task_s: float) -> None:
    lines = []
    for number in range(tasks):
        task = {"name": f"task {number}", "command": f"echo >>ran.{number}; sleep {task_s}"}
        if number % A_FAMILY:
            task["parent"] = f"task {number - number % A_FAMILY}"
        lines.append(json.dumps(task))
    path.write_text("\n".join(lines) + "\n")


def environment() -> dict[str, str]:
    """Return an environment with this checkout's packages, and with bytecode, as if installed."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tools")))}


def start(workspace: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start `subagents` in a process of its own, with its stderr captured."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "manager", *arguments],
        cwd=workspace,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def query(workspace: Path, result: Result, over: threading.Event) -> None:
    """List the fleet and show an agent in turn, each in a process of its own, until `over` is
    set."""
    turn = 0
    while not over.is_set():
        verb = ("list",) if turn % 2 else ("show", "task 0")
        turn += 1
        began = time.perf_counter()
        with start(workspace, *verb) as process:
            assert process.stderr is not None
            messages = process.stderr.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        took_s = time.perf_counter() - began
        result.answers.append(Answer(took_s, used.ru_utime + used.ru_stime))
        if process.returncode and not any(text in messages for text in NOTHING_YET):
            result.faults.append(f"{verb[0]} exited {process.returncode}: {messages}")
        over.wait(0.05)


def run(workspace: Path, tasks: int, kills: int, seed: int, task_s: float = 0.02) -> Result:
    """Run `tasks` tasks. Kill the runner `kills` times, if the tasks take that long."""
    chance, result, over = random.Random(seed), Result(), threading.Event()
    write_tasks(workspace / "tasks.txt", tasks, task_s)
    about_s = task_s * tasks / 10 / (kills + 1)
    querying = threading.Thread(target=query, args=(workspace, result, over))
    querying.start()
    try:
        while True:
            with start(workspace, "run", "tasks.txt") as runner:
                if result.kills < kills:
                    try:
                        runner.wait(0.3 + chance.random() * 2 * about_s)
                    except subprocess.TimeoutExpired:
                        runner.kill()
                        result.kills += 1
                        continue
                messages = runner.stderr.read() if runner.stderr else ""
            if runner.returncode:
                result.faults.append(f"the last run exited {runner.returncode}: {messages}")
            break
    finally:
        over.set()
        querying.join()
    result.faults += list(judge(workspace, tasks, result.kills))
    return result


def judge(workspace: Path, tasks: int, kills: int) -> list[str]:
    faults = []
    fleet = read_fleet(workspace / ".subagents")
    agents = {agent.name: agent for agent in fleet.agents(include_archived=True)}
    statuses = Counter(agent.status for agent in agents.values())
    if statuses != {"completed": tasks}:
        faults.append(f"not all have completed: {dict(statuses)}")
    for number in range(tasks):
        agent = agents.get(f"task {number}")
        parent = agents.get(f"task {number - number % A_FAMILY}") if number % A_FAMILY else None
        if agent and parent and agent.parent_id != parent.agent_id:
            faults.append(f"task {number} is below {agent.parent_id}")
        times = len((workspace / f"ran.{number}").read_text().splitlines())
        if not 1 <= times <= kills + 1:
            faults.append(f"task {number} ran {times} times")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--task-s", type=float, default=0.3, help="how long each task sleeps")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = run(Path(name), options.tasks, options.kills, options.seed, options.task_s)
    times_ms = sorted((1000 * answer.took_s, 1000 * answer.cpu_s) for answer in result.answers)
    p50, p99 = (times_ms[int(len(times_ms) * part)] for part in (0.5, 0.99))
    print(
        f"seed {options.seed}: {options.tasks} tasks, {result.kills} kills, "
        f"{len(times_ms)} queries: p50 {p50[0]:.0f} ms ({p50[1]:.0f} of it computing), "
        f"p99 {p99[0]:.0f} ({p99[1]:.0f}), max {times_ms[-1][0]:.0f} ({times_ms[-1][1]:.0f})"
    )
    late = [f"{took:.0f} ({cpu:.0f})" for took, cpu in times_ms if took > WITHIN_MS]
    print(f"{len(late)} over {WITHIN_MS} ms{':' if late else ''} {', '.join(late)}".rstrip())
    for fault in result.faults:
        print(fault)
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
