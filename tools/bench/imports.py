"""How long a process takes that imports the packages, or shows the inspector's help, beside one
that does nothing.

Each is a process of its own, with compiled bytecode as an installed package has it. Rounds of all
of them alternate; what counts is the median of the rounds' differences.
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
    """From the start of the process to its end; `over_ms` beside the bare interpreter."""

    what: str
    wall_ms: float
    over_ms: float


def environment() -> dict[str, str]:
    """This checkout's packages, and a Python that may keep its bytecode."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tools")))}


def wall_ms(what: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-P", *COMMANDS[what]],
        env=environment(),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return (time.perf_counter() - began) * 1e3


def measure(rounds: int) -> list[Row]:
    for what in COMMANDS:  # the first compiles
        wall_ms(what)
    times = [{what: wall_ms(what) for what in COMMANDS} for _ in range(rounds)]
    return [
        Row(
            what,
            statistics.median(found[what] for found in times),
            statistics.median(found[what] - found["bare"] for found in times),
        )
        for what in COMMANDS
    ]


def table(rows: list[Row]) -> Iterator[str]:
    yield f"{'':38}{'in all':>10}{'over bare':>12}"
    for row in rows:
        yield f"{row.what:38}{row.wall_ms:7.1f} ms{row.over_ms:9.1f} ms"


def bars(rows: list[Row]) -> Iterator[Bar]:
    by = {row.what: row for row in rows}
    for what, row in by.items():
        if "import " in what:  # what is loaded at first use counts, too
            most = 40 if "journal" in what else 60
            yield at_most(f"{what}, over the bare interpreter", row.over_ms, most, "ms")
    what = "journal-inspect --help"
    yield at_most(f"{what}, in all", by[what].wall_ms, 110, "ms")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python tools/bench imports", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parsed(parser, arguments)
    rows = measure(options.rounds)
    found = {"rows": [asdict(row) for row in rows]}
    return show("imports", options, about("msgpack", "crc32c"), found, table(rows), bars(rows))
