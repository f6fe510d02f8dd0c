"""Benchmarks: `python tools/bench NAME`. Each compares in one run, side by side."""

from __future__ import annotations

import sys
from pathlib import Path

# The checkout first, or an installed copy would be measured.
sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from bench import commits, fanout, mutants  # noqa: E402 - only importable once the path is set

BENCHMARKS = {"commits": commits.main, "fanout": fanout.main, "mutants": mutants.main}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in BENCHMARKS:
        print(f"usage: python tools/bench {{{','.join(BENCHMARKS)}}} [options]", file=sys.stderr)
        return 2
    return BENCHMARKS[arguments[0]](arguments[1:])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
