"""Benchmarks: `python tools/bench NAME [options]`.

Each compares in one run, side by side.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

# The checkout first, or an installed copy would be measured.
sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

NAMES = (
    *("commits", "append", "hold", "fanout", "compact", "recover", "burn", "imports"),
    *("inspector", "legacy", "bars", "plot"),
)


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in NAMES:
        print(f"usage: python tools/bench {{{','.join(NAMES)}}} [options]", file=sys.stderr)
        return 2
    code: int = import_module(f"bench.{arguments[0]}").main(arguments[1:])
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
