"""Entry point of `python -m manager` and of the console script `subagents`."""

from __future__ import annotations

import gc
import sys

from _journal_console import (
    LACKS_EXTRA,
    lost_help,
    missing_extra,
    release_stderr,
    repair_streams,
)


def main() -> None:
    repair_streams()
    try:
        sys.exit(_main())
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        release_stderr()
        gc.freeze()  # skip the collection at exit, which takes a tenth of the time of a listing


def _main() -> int:
    if advice := missing_extra():
        print(f"subagents: {advice}", file=sys.stderr)
        return LACKS_EXTRA
    if note := lost_help():
        print(f"subagents: {note}", file=sys.stderr)
    gc.disable()  # imports make no garbage
    from manager._cli.cli import run_cli

    gc.enable()
    return run_cli(sys.argv[1:])


if __name__ == "__main__":
    main()
