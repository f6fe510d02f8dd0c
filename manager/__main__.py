"""Entry point of `python -m manager` and of the console script `subagents`."""

from __future__ import annotations

import gc
import sys
from importlib.util import find_spec

from _journal_console import repair_streams

_NEEDED = ("click", "rich")


def main() -> None:
    repair_streams()
    try:
        sys.exit(_main())
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()  # skip the collection at exit, which takes a tenth of the time of a listing


def _main() -> int:
    for name in _NEEDED:
        if find_spec(name) is None:
            advice = "install it with: python -m pip install 'journal-engine[cli]'"
            print(f"subagents: the command line needs {name}; {advice}", file=sys.stderr)
            return 1
    gc.disable()  # imports make no garbage
    from manager._cli.cli import run_cli

    gc.enable()
    return run_cli(sys.argv[1:])


if __name__ == "__main__":
    main()
