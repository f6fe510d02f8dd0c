"""Plot results that benchmarks printed with --json: RESULTS.svg for each RESULTS.json.

The same results give the same file, byte for byte. So the plots of a README can be recreated from
kept results, without measuring again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench import plots


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python tools/bench plot", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS.json")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(), metavar="DIR", help="default: the current one"
    )
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    for source in options.results:
        results = json.loads(source.read_text())
        bench = results.get("bench") if isinstance(results, dict) else None
        if bench not in plots.DRAWN:
            parser.error(f"{source} holds no results that can be plotted; pass a --json output")
        path = options.output / f"{source.stem}.svg"
        plots.draw(results, path)
        print(path)
    return 0
