"""What every benchmark of speed has in common: where it writes, and how it tells what it found."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import plots
from bench.figures import Bar, bars_table


def parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """With the options that all have; pins the process, and children that it starts, if asked."""
    parser.add_argument("--dir", type=Path, help="on the disk to measure; default: $TMPDIR")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw it, too")
    parser.add_argument("--cpu", type=int, help="pin to this one")
    options = parser.parse_args(arguments)
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    return options


def show(
    bench: str,
    options: argparse.Namespace,
    where: dict[str, Any],
    found: dict[str, Any],
    lines: Iterable[str],
    bars: Iterable[Bar],
) -> int:
    """`where` it ran, what was `found`, as JSON or as `lines`, and the bars; the exit code."""
    bars = list(bars)
    everything = {"bench": bench, **where, **found, "bars": [bar.as_json() for bar in bars]}
    if options.json:
        print(json.dumps(everything))
    else:
        print(" ".join(f"{key} {value}" for key, value in where.items()))
        for line in lines:
            print(line)
        for line in ("", *bars_table(bars)) if bars else ():
            print(line)
    if options.plot:
        plots.draw(everything, options.plot)
    return 0
