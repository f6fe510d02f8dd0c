"""Text: the messages of journal-inspect, and its commands to type."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress

from _journal_console import text
from _journal_console.text import escaped, terminal_width

PROGRAM = "journal-inspect"


def say(message: str) -> None:
    """Print a message to stderr, after the data that was printed before it."""
    text.say(PROGRAM, message)


def showing_log_messages() -> AbstractContextManager[None]:
    """Print the engine's warnings. Only verbs that write use this."""
    return text.showing_log_messages(PROGRAM, "journal")


def say_commands(steps: Sequence[tuple[str, str]]) -> None:
    """Print commands to stderr, each in a line of its own with what it does, or below what it does
    if that is too wide for a terminal."""
    width = max((len(line) for line, _ in steps), default=0)
    rows = [
        f"  {line:<{width}}  # {purpose}" if purpose else f"  {line}" for line, purpose in steps
    ]
    columns = terminal_width(sys.stderr)
    if columns is not None and max(map(len, rows), default=0) > columns:
        rows = []
        for line, purpose in steps:
            rows += [f"  # {purpose}"] * bool(purpose) + [f"  {line}"]
    with suppress(OSError):
        for row in rows:
            print(escaped(row), file=sys.stderr)


def command(*words: object) -> str:
    """Return a command line of journal-inspect, quoted for a shell."""
    from shlex import join

    return join([PROGRAM, *map(str, words)])
