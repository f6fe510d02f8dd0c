"""Proofs and searches for what breaks the promises: `python tools/proof NAME [options]`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

# The checkout comes first, or an installed copy would be examined.
sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

NAMES = ("model", "crashsim", "mutants")


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in NAMES:
        print(f"usage: python tools/proof {{{','.join(NAMES)}}} [options]", file=sys.stderr)
        return 2
    code: int = import_module(f"proof.{arguments[0]}").main(arguments[1:])
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
