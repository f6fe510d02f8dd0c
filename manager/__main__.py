"""`python -m manager`, and the console script `subagents`."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    try:
        sys.exit(_main())
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()  # nothing is to be collected any more: to look takes a tenth of a listing


def _main() -> int:
    try:
        import rich  # noqa: F401 - imported again when a bar is drawn, too late to be missed

        from manager.cli import run_cli
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        what = f"needs {error.name}: python -m pip install 'journal-engine[cli]'"
        print(f"subagents: the command line {what}", file=sys.stderr)
        return 1
    for stream in (sys.stdout, sys.stderr):
        # Whatever the locale can't show is escaped instead of being an error.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    return run_cli(sys.argv[1:])


if __name__ == "__main__":
    main()
