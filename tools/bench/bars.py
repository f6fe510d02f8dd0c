"""Every number to reach beside what is found, in one table, from short runs of all benchmarks.

Each runs in a process of its own. Short runs on a machine that does other things are rough: what
is close to its bar is to be measured again, longer, by its own benchmark. With -o what each found
is kept, too, for `plot`.
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

ALL = "sqlite sqlite-batched lmdb rocksdict zodb coopy"
RUNS: dict[str, str] = {
    "imports": "imports --rounds 9",
    "inspector": "inspector --mib 256 --rounds 2 --seconds 2",
    "legacy": "legacy --rounds 3",
    "append": "append --rounds 10 --seconds 6",
    "recover": "recover --rounds 3",
    "compact": "compact --rounds 3 --seconds 2",
    "fanout-json": "fanout --agents 1000 --threads 64 --ways rewrite journal --seconds 2",
    "fanout-size": "fanout --agents 100 10000 100000 --threads 64 --ways journal --rounds 3",
    "burn": "burn --threads 64 --rounds 2",
    "commits": f"commits --threads 1 64 --rounds 4 --peers {ALL}",
    "commits-pinned": f"commits --threads 64 --rounds 4 --cpu 0 --peers {ALL}",
    "commits-slow": f"commits --threads 64 256 --rounds 3 --delay-ms 5 --peers {ALL}",
    "commits-loop": "commits --threads 64 --coroutines 10000 --rounds 3 --seconds 1",
}


def found_by(run: str, directory: Path | None) -> dict[str, Any]:
    arguments = [*RUNS[run].split(), "--json"]
    if directory:
        arguments += ["--dir", str(directory)]
    command = [sys.executable, sys.argv[0], *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python tools/bench bars",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"of {', '.join(RUNS)}")
    parser.add_argument("--dir", type=Path, help="on the disk to measure; default: $TMPDIR")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="keep RUN.json here")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if unknown := set(options.runs) - RUNS.keys():
        parser.error(f"no such run: {', '.join(sorted(unknown))}")
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
    bars: list[dict[str, Any]] = []
    for run in options.runs or RUNS:
        print(f"python tools/bench {RUNS[run]}", file=sys.stderr, flush=True)
        found = found_by(run, options.dir)
        bars += found["bars"]
        if options.output:
            (options.output / f"{run}.json").write_text(json.dumps(found))
    where = about("lmdb", "rocksdict", "ZODB", "coopy")
    if options.json:
        print(json.dumps({"bench": "bars", **where, "bars": bars}))
        return 0
    print(" ".join(f"{key} {value}" for key, value in where.items()))
    for bar in bars:
        del bar["met"]
    for line in bars_table(Bar(**bar) for bar in bars):
        print(line)
    return 0
