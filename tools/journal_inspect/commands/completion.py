"""completion: print the script that completes the command line in a shell."""

from __future__ import annotations

import click
from _journal_console.exits import FINE
from click.shell_completion import get_completion_class

_PROGRAM = "journal-inspect"


def show_completion(cli: click.Command, shell: str) -> int:
    kind = get_completion_class(shell)
    assert kind is not None
    print(kind(cli, {}, _PROGRAM, "_JOURNAL_INSPECT_COMPLETE").source())
    return FINE
