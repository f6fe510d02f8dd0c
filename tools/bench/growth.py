"""Measure how each cost grows with the number of items, for tables and for rows of plain tuples.

Items have some 270 bytes. For each size, and in each round, processes of their own measure a state
that grows from nothing, its updates, snapshots and collections of garbage, a checkpoint while it is
idle, the open, and the disk space under 8 threads that never wait. A bare dict with the same rows,
and with a lock but no journal, shows what no state can go below. Rounds of the states
alternate. With --agents N, the open of a manager with N ended agents, and a list of those that run,
are measured as well. Opens are measured without the extra `fast`, and with it if that matters. The
results are the medians of the rounds, and the least and the most.

Each item contains a word that all of them have. The state `interned` keeps it once, and `tuples`
with each row.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import fleet_opened, growing
from bench.figures import Bar, at_most
from bench.machine import about
from bench.output import parsed, parser_of, show

ROOT = Path(__file__).resolve().parents[2]
MILLION = 1_000_000
KINDS = tuple(growing.SUBJECTS)
AGENTS = "agents"
FIGURES = {  # what each figure is, in the order of the table
    "line_bytes": "a line of a checkpoint, B",
    "item_bytes": "memory an item, grown, B",
    "open_item_bytes": "memory an item, opened, B",
    "bare_item_bytes": "the same rows in a bare dict, B",
    "insert_us": "insert, CPU, us",
    "update_us": "update, CPU, us",
    "freeze_us": "snapshot, us",
    "hold_p50_us": "hold, growing, p50, CPU, us",
    "hold_p99_us": "hold, growing, p99, CPU, us",
    "hold_max_ms": "hold, growing, longest, CPU, ms",
    "host_hold_max_ms": "the same beside 400,000 objects, ms",
    "collection_max_ms": "collection, growing, longest, CPU, ms",
    "process_collection_ms": "full collection without items, CPU, ms",
    "collection_ms": "added to a full collection, CPU, ms",
    "checkpoint_s": "checkpoint while idle, s",
    "checkpoint_cpu_us": "checkpoint, CPU an item, us",
    "open_s": "open, s",
    "open_cpu_s": "open, CPU, s",
    "open_fast_s": "open with the extra `fast`, s",
    "open_fast_cpu_s": "open with the extra `fast`, CPU, s",
    "list_ms": "list of one running agent, ms",
    "counts_ms": "counts, ms",
    "busy_per_s": "8 threads that never wait, updates/s",
    "busy_stall_ms": "their longest update, ms",
    "bare_stall_ms": "the same of a bare dict and a lock, ms",
    "disk_mib": "disk under them, MiB",
    "disk_to_bound": "disk under them to its bound",
}
# The most that a state may take. A small one is compacted so fast that updates wait for the whole
# compaction.
OF_A_MILLION = {"checkpoint_s": 10.0, "busy_stall_ms": 50.0}
MOST = {
    ("tables", MILLION): {"item_bytes": 450.0, **OF_A_MILLION, "open_cpu_s": 1.1},
    ("tuples", MILLION): {
        "item_bytes": 550.0,
        **OF_A_MILLION,
        "open_cpu_s": 2.5,
        "open_fast_cpu_s": 2.0,
    },
    ("interned", MILLION): {"item_bytes": 550.0},
    (AGENTS, 100_000): {"open_s": 0.5, "open_fast_s": 0.5, "list_ms": 1.0, "counts_ms": 1.0},
}
OF_ANY_SIZE = {"hold_max_ms": 2.0, "host_hold_max_ms": 2.0, "disk_to_bound": 1.0}

Cell = tuple[int, str]  # items, kind


@dataclass(frozen=True)
class Row:
    """One figure of a state with `items` items: the median of the rounds, the least, the most."""

    state: str
    items: int
    what: str
    median: float
    least: float
    most: float


def run(what: str, cell: Cell, directory: Path, seed: int, extent: float) -> dict[str, float]:
    items, kind = cell
    return child(growing.__file__, what, kind, directory, items, seed, extent)


def child(*command: object) -> dict[str, float]:
    path = os.pathsep.join((str(ROOT), str(ROOT / "tools")))
    done = subprocess.run(
        [sys.executable, "-P", *map(str, command)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def round_of(cell: Cell, options: argparse.Namespace, seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        folder = Path(name)
        figures = run("grown", cell, folder / "grown", seed, 0)
        figures |= run("opened", cell, folder / "grown", seed, 0)
        if cell[1] == "tuples":  # an open of tables decodes no rows
            figures |= run("opened_fast", cell, folder / "grown", seed, 0)
        figures |= run("busy", cell, folder / "grown", seed, options.seconds)
        figures |= run("bare", cell, folder, seed, options.seconds)
        figures |= run("held", cell, folder / "held", seed, 0)
        figures |= run("held", cell, folder / "beside", seed, growing.HOST_OBJECTS)
    return figures


def round_of_agents(agents: int, options: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        fleet = Path(name) / "fleet"
        figures = child(fleet_opened.__file__, "made", fleet, agents)
        for measure in ("opened_fast", "opened"):  # the latter adds an agent
            figures |= child(fleet_opened.__file__, measure, fleet, agents)
        return figures


def measure(options: argparse.Namespace) -> list[Row]:
    cells = [(items, kind) for items in sorted(options.items) for kind in options.states]
    cells += [(agents, AGENTS) for agents in sorted(options.agents)]
    rounds: dict[Cell, list[dict[str, float]]] = {cell: [] for cell in cells}
    for number in range(options.rounds):
        for (items, kind), measured in rounds.items():
            if kind == AGENTS:
                measured.append(round_of_agents(items, options))
            else:
                measured.append(round_of((items, kind), options, options.seed + number))
    return [
        Row(kind, items, what, statistics.median(values), min(values), max(values))
        for (items, kind), measured in rounds.items()
        for what in FIGURES
        if what in measured[0]
        for values in [[figures[what] for figures in measured]]
    ]


def table(rows: list[Row]) -> Iterator[str]:
    for state in dict.fromkeys(row.state for row in rows):
        sizes = dict.fromkeys(row.items for row in rows if row.state == state)
        yield f"{state}, items:".ljust(40) + "".join(f"{size:>26,}" for size in sizes)
        for what, title in FIGURES.items():
            cells = [row for row in rows if (row.state, row.what) == (state, what)]
            if not cells:
                continue
            texts = (f"{short(c.median)} ({short(c.least)}-{short(c.most)})" for c in cells)
            yield title.ljust(40) + "".join(f"{text:>26}" for text in texts)


def short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def bars(rows: list[Row]) -> Iterator[Bar]:
    """Yield bars for the largest size of each state. Some of them are of one size only."""
    largest = {row.state: row.items for row in rows}
    for row in rows:
        if row.items == largest[row.state]:
            most = (OF_ANY_SIZE | MOST.get((row.state, row.items), {})).get(row.what)
            if most is not None:
                name = f"{row.state}, {row.items:,} items: {FIGURES[row.what]}"
                yield at_most(name, row.median, most, "")


def main(arguments: list[str]) -> int:
    parser = parser_of("growth", __doc__)
    parser.add_argument(
        "--items", type=int, nargs="+", default=[10**power for power in range(3, 7)]
    )
    parser.add_argument("--states", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--agents", type=int, nargs="*", default=[], help="numbers of agents")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="of threads that never wait")
    parser.add_argument("--seed", type=int, default=0, help="of the items that are updated")
    options = parsed(parser, arguments)
    rows = measure(options)
    environment = {**about(), "seed": options.seed, "load": round(os.getloadavg()[0])}
    results = {"rows": [asdict(row) for row in rows]}
    return show("growth", options, environment, results, table(rows), bars(rows))
