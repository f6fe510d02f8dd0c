"""Benchmarks: `python tools/bench NAME [options]`.

Each measures all that it compares within one run, in alternating rounds.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

# Put the checkout first, so that an installed copy is not measured instead.
sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

NAMES = (
    *("commits", "append", "hold", "fanout", "compact", "recover", "burn", "flushes"),
    *("imports", "inspector", "legacy", "runners", "tables", "growth", "mirror", "restore"),
    *("standby", "resumed", "verbs", "adapters", "workers", "bars", "plot"),
)


def main(arguments: list[str]) -> int:
    """Run the benchmark that the first argument names, and return its exit code."""
    if not arguments or arguments[0] not in NAMES:
        print(f"usage: python tools/bench {{{','.join(NAMES)}}} [options]", file=sys.stderr)
        return 2
    code: int = import_module(f"bench.{arguments[0]}").main(arguments[1:])
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
