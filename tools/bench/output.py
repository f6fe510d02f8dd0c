"""The options that all benchmarks of speed share, and the output of their results."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import plots
from bench.figures import Bar, bars_table


def parser_of(bench: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help keeps the line breaks of the description."""
    return argparse.ArgumentParser(
        prog=f"python tools/bench {bench}",
        description=description,
        formatter_class=argparse.RawTextHelpFormatter,
    )


def parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Add the shared options, and return the parsed arguments.

    With --cpu, pin this process and its later children to that CPU.
    """
    parser.add_argument(
        "--dir", type=Path, help="a folder on the disk to measure; default: $TMPDIR"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="also plot the results")
    parser.add_argument("--cpu", type=int, help="pin the benchmark to the CPU with this number")
    options = parser.parse_args(arguments)
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    return options


def show(
    bench: str,
    options: argparse.Namespace,
    environment: dict[str, Any],
    results: dict[str, Any],
    lines: Iterable[str],
    bars: Iterable[Bar],
) -> int:
    """Print the environment, the results and the bars, and return the exit code.

    The results are printed as `lines`, or as JSON with --json. With --plot, they are also plotted.
    """
    bars = list(bars)
    report = {"bench": bench, **environment, **results, "bars": [bar.as_json() for bar in bars]}
    if options.json:
        print(json.dumps(report))
    else:
        print(" ".join(f"{key} {value}" for key, value in environment.items()))
        for line in lines:
            print(line)
        for line in ("", *bars_table(bars)) if bars else ():
            print(line)
    if options.plot:
        plots.draw(report, options.plot)
    return 0
