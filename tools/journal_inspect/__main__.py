"""The entry point of the console script and of `python -m journal_inspect`."""

from __future__ import annotations

import gc
import signal
import sys
from importlib.util import find_spec

from _journal_console import release_stdout, repair_streams

from journal_inspect.exits import CANT_OPEN, STOPPED_BY_SIGNAL, explain
from journal_inspect.rendering.text import say

_NEEDED = ("click", "rich")


def main() -> int:
    """Run the command line in `sys.argv`, and return the exit code."""
    repair_streams()
    try:
        signal.signal(signal.SIGTERM, _stop)
        missing = [name for name in _NEEDED if find_spec(name) is None]
        if missing:
            say(
                f"needs {' and '.join(missing)}, which is not installed; "
                "install it with: python -m pip install 'journal-engine[cli]'"
            )
            return CANT_OPEN
        gc.disable()  # imports create no garbage
        from journal_inspect.commands.cli import cli

        gc.enable()
        stdout = sys.stdout
        try:
            cli.main(prog_name="journal-inspect")
        finally:
            sys.stdout = stdout  # click replaces it with one that hides a closed pipe
            try:
                sys.stdout.flush()
            except OSError:
                release_stdout()
                raise
    except (Exception, KeyboardInterrupt) as error:  # raised before click handles errors
        code, message = explain(error)
        if message:
            say(message)
        return code
    finally:
        gc.freeze()  # a collection at exit would only cost time


def _stop(number: int, _: object) -> None:
    raise SystemExit(STOPPED_BY_SIGNAL + number)


if __name__ == "__main__":
    sys.exit(main())
