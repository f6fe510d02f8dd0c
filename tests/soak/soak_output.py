"""A soak of the output of `subagents run`: its processes are killed at random while commands print.

    python -m tests.soak.soak_output --tasks 200 --kills 60 --seed 7

Each round kills the runner, its guard or one of its commands with SIGKILL, and runs the same file
again. In the end, each task has one agent that has completed. Each file is the beginning of what
its command printed, and after an open, no file is left without its agent.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from manager import SubAgentManager, read_fleet
from manager.outputs import OutputDirectory, Part
from tests.soak.soak_runner import environment

KINDS = ("runner", "guard", "command")
LINES = 6000


@dataclass
class Result:
    """The result of a soak: violations, kills by kind, and the number of files."""

    faults: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    files: int = 0


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def victim(runner: int, kind: str) -> int | None:
    """Return the pid of a process of this kind, or None if there is none now."""
    if kind == "runner":
        return runner
    for pid in children(runner):
        with suppress(OSError):
            is_guard = b"guard.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
            if is_guard == (kind == "guard"):
                return pid
    return None


def run(workspace: Path, *, tasks: int, kills: int, seed: int) -> Result:
    """Kill and run again until a run has completed, after at most `kills` kills."""
    dice, result = random.Random(seed), Result()
    script = f"seq {LINES}; seq {LINES} >&2; sleep 0.02"
    (workspace / "tasks").write_text(f"{script}\n" * tasks)
    command = [sys.executable, "-P", "-m", "manager", "run", "tasks", "-j4", "--retry-failed"]
    while True:
        child = subprocess.Popen(
            command, cwd=workspace, env=environment(), stderr=subprocess.DEVNULL
        )
        while result.kills.total() < kills and child.poll() is None:
            time.sleep(dice.uniform(0.15, 0.6))
            kind = dice.choice(KINDS)
            pid = None if child.poll() is not None else victim(child.pid, kind)
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    result.kills[kind] += 1
        if child.wait() == 0:
            break
    check(workspace, tasks, result)
    return result


def check(workspace: Path, tasks: int, result: Result) -> None:
    state = workspace / ".subagents"
    (state / "output" / Part("agent_0123456789ab", 1, "out", 0).name).touch()  # an orphan
    with SubAgentManager.open(workspace):
        pass
    whole = b"".join(b"%d\n" % number for number in range(1, LINES + 1))
    known = {a.agent_id: a for a in read_fleet(state).agents(include_archived=True)}
    completed = Counter(a.metadata["task"] for a in known.values() if a.status == "completed")
    if sorted(completed.values()) != [1] * tasks:
        result.faults.append(f"completions of a task: {Counter(completed.values())}")
    with closing(OutputDirectory.open(str(state))) as directory:
        for part in directory.parts():
            result.files += 1
            data = (state / "output" / part.name).read_bytes()
            agent = known.get(part.owner)
            if agent is None:
                result.faults.append(f"{part.name} has no agent")
            elif not whole.startswith(data):
                result.faults.append(f"{part.name} is no beginning of the output")
            elif agent.status == "completed" and part.start == agent.starts and data != whole:
                result.faults.append(f"{part.name} lacks the end of the output")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), tasks=options.tasks, kills=options.kills, seed=options.seed)
    print(f"seed {options.seed}: killed {dict(result.kills)}, {result.files} files")
    print(*result.faults, sep="\n")
    return bool(result.faults)


if __name__ == "__main__":
    sys.exit(main())
