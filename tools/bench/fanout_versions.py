"""Compare the manager's calls in two versions, for `fanout --before CHECKOUT`.

Each round of a version is a process of its own, which runs that version's own benchmark. Rounds of
the two versions alternate, and begin with the other one each time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.figures import Bar, at_least, at_most

ROOT = Path(__file__).resolve().parents[2]
Cell = tuple[int, int, str]  # agents, threads, way
Rounds = list[tuple[dict[str, Any], dict[str, Any]]]  # rows of the version before, and of this one


def measure(options: argparse.Namespace, cells: list[Cell]) -> dict[Cell, Rounds]:
    """Return the rows of each cell's rounds."""
    rounds: dict[Cell, Rounds] = {cell: [] for cell in cells}
    for number in range(options.rounds):
        for cell, measured in rounds.items():
            checkouts = [options.before, ROOT]
            first, second = checkouts if number % 2 else checkouts[::-1]
            rows = {at: _row(at, cell, options) for at in (first, second)}
            measured.append((rows[options.before], rows[ROOT]))
    return rounds


def lines(rounds: dict[Cell, Rounds]) -> Iterator[str]:
    """Yield a line for each cell, with the ratios of this version to the one before, by round."""
    for (agents, threads, way), pairs in rounds.items():
        yield f"{way}, {agents:,} agents, {threads} threads, this version to the one before:"
        for title, figure in _FIGURES.items():
            ratios = [figure(now) / figure(before) for before, now in pairs]
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            yield f"    {title:12} {statistics.median(ratios):.2f} x ({each})"


def bars(rounds: dict[Cell, Rounds]) -> Iterator[Bar]:
    """Yield bars for the medians: no worse, but for the noise of a busy machine."""
    for (agents, threads, way), pairs in rounds.items():
        where = f"{way}, {agents:,} agents, {threads} threads"
        for title, figure in _FIGURES.items():
            ratio = statistics.median(figure(now) / figure(before) for before, now in pairs)
            if title == "updates/s":
                yield at_least(f"{title} to before, {where}", ratio, 0.9)
            elif title == "hold p50":
                yield at_most(f"{title} to before, {where}", ratio, 1.2)


def _row(checkout: Path, cell: Cell, options: argparse.Namespace) -> dict[str, Any]:
    agents, threads, way = cell
    command = [sys.executable, "-P", str(checkout / "tools" / "bench"), "fanout", "--json"]
    command += ["--agents", str(agents), "--threads", str(threads), "--ways", way]
    command += ["--rate", str(options.rate), "--seconds", str(options.seconds)]
    command += ["--dir", str(options.dir)] if options.dir else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout)["rows"][0]
    return row


_FIGURES: dict[str, Callable[[dict[str, Any]], float]] = {
    "updates/s": lambda row: row["updates_per_s"],
    "hold p50": lambda row: row["hold"]["p50"],
    "hold p99": lambda row: row["hold"]["p99"],
    "due p50": lambda row: row["due"]["p50"],
}
