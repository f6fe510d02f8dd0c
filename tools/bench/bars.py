"""Run all benchmarks briefly, and show each measured value with its bar in one table.

Each benchmark runs in a process of its own. Short runs on a machine with other load are imprecise:
if a value is close to its bar, run its own benchmark for longer. With -o, the results of each run
are kept for `plot`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.figures import Bar, bars_table
from bench.machine import about

ALL = "sqlite sqlite-batched sqlite-gated lmdb lmdb-gated rocksdict rocksdict-gated zodb coopy"
RUNS: dict[str, str] = {
    "imports": "imports --rounds 9",
    "inspector": "inspector --mib 256 --rounds 2 --seconds 2",
    "legacy": "legacy --rounds 3",
    "runners": "runners --rounds 3",
    "resumed": "resumed --rounds 3",
    "workers": "workers --rounds 1",
    "tables": "tables --rounds 5",
    "tables-large": "tables --rows --keys 1000000",
    "mirror": "mirror --rounds 5",
    "adapters": "adapters --rounds 3",
    "adapters-large": "adapters --delay-ms --live-mb 250",
    "append": "append --rounds 10 --seconds 6",
    "recover": "recover --rounds 3",
    "compact": "compact --rounds 3 --seconds 2",
    "fanout-json": "fanout --agents 1000 --threads 64 --ways rewrite journal --seconds 2",
    "fanout-size": "fanout --agents 100 10000 100000 --threads 64 --ways journal --rounds 3",
    "flushes": "flushes",
    "restore": "restore --seconds 10",
    "standby": "standby --rounds 1",
    "burn": "burn --threads 64 --rounds 2",
    "commits": f"commits --threads 1 64 --rounds 4 --peers {ALL}",
    "commits-pinned": f"commits --threads 64 --rounds 4 --cpu 0 --peers {ALL}",
    "commits-slow": f"commits --threads 64 256 --rounds 3 --delay-ms 2 5 --peers {ALL}",
    "commits-loop": (
        "commits --threads 64 --coroutines 100 1000 10000 --rounds 3 --seconds 1 "
        "--peers aiosqlite-batched"
    ),
}


def results_of(run: str, directory: Path | None) -> dict[str, Any]:
    arguments = [*RUNS[run].split(), "--json"]
    if directory:
        arguments += ["--dir", str(directory)]
    command = [sys.executable, sys.argv[0], *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    results: dict[str, Any] = json.loads(done.stdout)
    return results


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python tools/bench bars",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help=f"any of {', '.join(RUNS)}; default: all"
    )
    parser.add_argument(
        "--dir", type=Path, help="a folder on the disk to measure; default: $TMPDIR"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="write the results to DIR/RUN.json"
    )
    parser.add_argument("--json", action="store_true", help="print the bars as JSON")
    options = parser.parse_args(arguments)
    if unknown := set(options.runs) - RUNS.keys():
        parser.error(f"unknown run: {', '.join(sorted(unknown))}; --help lists all")
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
    bars: list[dict[str, Any]] = []
    for run in options.runs or RUNS:
        print(f"python tools/bench {RUNS[run]}", file=sys.stderr, flush=True)
        results = results_of(run, options.dir)
        bars += results["bars"]
        if options.output:
            (options.output / f"{run}.json").write_text(json.dumps(results))
    environment = about(
        "lmdb", "rocksdict", "ZODB", "coopy", "sqlitedict", "diskcache", "persist-queue"
    )
    if options.json:
        print(json.dumps({"bench": "bars", **environment, "bars": bars}))
        return 0
    print(" ".join(f"{key} {value}" for key, value in environment.items()))
    for bar in bars:
        del bar["met"]
    for line in bars_table(Bar(**bar) for bar in bars):
        print(line)
    return 0
