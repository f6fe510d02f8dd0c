"""The entry point of the console script, `python -m journal_inspect` and `python -m journal`."""

from __future__ import annotations

import gc
import signal
import sys

from _journal_console import (
    LACKS_EXTRA,
    lost_help,
    missing_extra,
    release_stderr,
    release_stdout,
    repair_streams,
)
from _journal_console.exits import STOPPED_BY_SIGNAL

from journal_inspect.exits import explain
from journal_inspect.rendering.messages import say

# The garbage collector runs after this many new objects. Records contain no cycles, and with the
# default of 700 objects, it would take a fifth of the time to read a fleet of a million records;
# with 100,000, a twentieth.
_COLLECTED_OBJECTS = 1_000_000


def main() -> int:
    """Run the command line in `sys.argv`, and return the exit code."""
    repair_streams()
    try:
        signal.signal(signal.SIGTERM, _stop)
        if advice := missing_extra():
            say(advice)
            return LACKS_EXTRA
        if note := lost_help():
            say(note)
        gc.disable()  # imports create no garbage
        from journal_inspect.commands.cli import cli

        gc.freeze()
        gc.set_threshold(_COLLECTED_OBJECTS)
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
        release_stderr()
        gc.freeze()  # a collection at exit would only cost time


def _stop(number: int, _: object) -> None:
    raise SystemExit(STOPPED_BY_SIGNAL + number)


if __name__ == "__main__":
    sys.exit(main())
