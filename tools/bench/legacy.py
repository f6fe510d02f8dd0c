"""Measure how long `subagents import` takes to import the agents of an older state file.

Each import is a process of its own and into a new state. Beside it, a process only reads the same
file as JSON. Rounds of the two alternate, and the result is the median. The benchmark checks that
each import has every agent.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.figures import Bar, at_most
from bench.imports import environment
from bench.machine import about
from bench.output import parsed, show
from manager import read_fleet

STATUSES = "Completed", "Running", "Cancelled", {"Failed": "exit 1"}, {"Interrupted": "restarted"}


@dataclass(frozen=True)
class Row:
    """The time of a process from its start to its end."""

    what: str
    wall_ms: float


def agent(number: int) -> dict[str, Any]:
    return {
        "id": f"old_{number}",
        "session_name": f"session {number}",
        "agent_type": "worker",
        "prompt": "find the cause of the crash, fix it. " * 4,
        "assignment": {"objective": "fix it", "role": "worker"},
        "model": "large",
        "status": STATUSES[number % len(STATUSES)],
        "result": "all is well " * 8,
        "steps_taken": number % 50,
        "checkpoint": {"step": number % 50, "files": ["a.py", "b.py"]},
        "duration_ms": 1000 + number,
        "allowed_tools": ["read", "write"],
        "updated_at_ms": 1_700_000_000_000 + number,
        "session_boot_id": "boot_1",
    }


def wall_ms(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-P", *arguments],
        env=environment(),
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return (time.perf_counter() - began) * 1e3


def measure(directory: Path, agents: int, rounds: int) -> list[Row]:
    file = directory / "subagents.json"
    state = {"schema_version": 1, "agents": [agent(n) for n in range(agents)], "workers": []}
    file.write_text(json.dumps(state))
    times: dict[str, list[float]] = {"read as JSON": [], "subagents import": []}
    for number in range(rounds):
        workspace = directory / f"{number}"
        workspace.mkdir()
        read = "import json, sys; json.load(open(sys.argv[1]))"
        times["read as JSON"].append(wall_ms("-c", read, str(file)))
        command = ("-m", "manager", "import", str(file), "--workspace", str(workspace))
        times["subagents import"].append(wall_ms(*command))
        assert len(read_fleet(workspace / ".subagents").agents(include_archived=True)) == agents
    return [Row(name, statistics.median(of_rounds)) for name, of_rounds in times.items()]


def lines(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        yield f"{row.what:22}{row.wall_ms:9.1f} ms"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python tools/bench legacy", description=__doc__)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parsed(parser, arguments)
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        rows = measure(Path(directory), options.agents, options.rounds)
    results = {"agents": options.agents, "rows": [asdict(row) for row in rows]}
    name = f"subagents import of {options.agents:,} agents"
    bars: list[Bar] = [at_most(name, rows[-1].wall_ms, 2000, "ms")]
    return show("legacy", options, about("msgpack", "crc32c"), results, lines(rows), bars)
