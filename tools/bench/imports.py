"""Measure how long a process takes to import the packages, or to show the inspector's help.

Each is a process of its own, with compiled bytecode as an installed package has it, beside a bare
interpreter that does nothing. Rounds of all of them alternate. The result is the median of the
rounds' differences.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.figures import Bar, at_most
from bench.machine import about
from bench.output import parsed, show

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "bare": ("-c", "pass"),
    "import journal": ("-c", "import journal"),
    "from journal import DurableState": ("-c", "from journal import DurableState"),
    "import manager": ("-c", "import manager"),
    "from manager import SubAgentManager": ("-c", "from manager import SubAgentManager"),
    "journal-inspect --help": ("-m", "journal_inspect", "--help"),
}


@dataclass(frozen=True)
class Row:
    """The time from the start of a process to its end.

    `over_ms` is the difference to the bare interpreter.
    """

    what: str
    wall_ms: float
    over_ms: float


def environment() -> dict[str, str]:
    """Return an environment with this checkout's packages, in which Python keeps bytecode."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tools")))}


def wall_ms(command: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-P", *COMMANDS[command]],
        env=environment(),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return (time.perf_counter() - began) * 1e3


def measure(rounds: int) -> list[Row]:
    for command in COMMANDS:  # the first run compiles
        wall_ms(command)
    times_ms = [{command: wall_ms(command) for command in COMMANDS} for _ in range(rounds)]
    return [
        Row(
            command,
            statistics.median(of_round[command] for of_round in times_ms),
            statistics.median(of_round[command] - of_round["bare"] for of_round in times_ms),
        )
        for command in COMMANDS
    ]


def table(rows: list[Row]) -> Iterator[str]:
    yield f"{'':38}{'total':>10}{'over bare':>12}"
    for row in rows:
        yield f"{row.what:38}{row.wall_ms:7.1f} ms{row.over_ms:9.1f} ms"


def bars(rows: list[Row]) -> Iterator[Bar]:
    rows_by_command = {row.what: row for row in rows}
    for command, row in rows_by_command.items():
        if "import " in command:  # also those that load a module at the first use of a name
            most = 40 if "journal" in command else 60
            yield at_most(f"{command}, over the bare interpreter", row.over_ms, most, "ms")
    command = "journal-inspect --help"
    yield at_most(f"{command}, in all", rows_by_command[command].wall_ms, 110, "ms")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python tools/bench imports", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parsed(parser, arguments)
    rows = measure(options.rounds)
    results = {"rows": [asdict(row) for row in rows]}
    return show("imports", options, about("msgpack", "crc32c"), results, table(rows), bars(rows))
