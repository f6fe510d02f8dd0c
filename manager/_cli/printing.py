"""Printing: passes the output of commands on to the standard streams."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from _journal_console.text import escaped

from manager._cli.output import say
from manager._run.printer import Printer
from manager.outputs import Stream


@contextmanager
def printing(*, is_tagged: bool) -> Iterator[Printer]:
    """Yield a printer to stdout and stderr. At the end, wait until it has printed everything."""
    fds: dict[Stream, int] = {}
    with suppress(OSError, ValueError):  # a stream that is not a file
        fds["out"] = sys.stdout.fileno()
        fds["err"] = sys.stderr.fileno()
    with Printer(fds, tag=escaped if is_tagged else None) as printer:
        yield printer
    if printer.error is not None:
        problem = f"not everything was printed: {printer.error.strerror}"
        say(f"{problem}; subagents output REF prints what a command has printed")
