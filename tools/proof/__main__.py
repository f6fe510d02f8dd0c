"""Proofs, and searches for states that break the promises: `python tools/proof NAME [options]`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

# Put the checkout first, so that an installed copy is not examined instead.
sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

NAMES = ("model", "mirror", "leases", "failover", "workers", "crashsim", "mutants", "clients")


def main(arguments: list[str]) -> int:
    """Run the program that the first argument names, and return its exit code."""
    if not arguments or arguments[0] not in NAMES:
        print(f"usage: python tools/proof {{{','.join(NAMES)}}} [options]", file=sys.stderr)
        return 2
    code: int = import_module(f"proof.{arguments[0]}").main(arguments[1:])
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
