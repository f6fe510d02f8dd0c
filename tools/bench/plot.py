"""Draw what the benchmarks printed with --json: RESULTS.svg for each RESULTS.json.

The same figures make the same file, byte for byte; so a README's plots are made again from the
results that are kept, without measuring again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench import plots


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python tools/bench plot", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS.json")
    parser.add_argument("-o", "--output", type=Path, default=Path(), metavar="DIR")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    for results in options.results:
        found = json.loads(results.read_text())
        bench = found.get("bench") if isinstance(found, dict) else None
        if bench not in plots.DRAWN:
            parser.error(f"{results} is of no benchmark that can be drawn")
        path = options.output / f"{results.stem}.svg"
        plots.draw(found, path)
        print(path)
    return 0
