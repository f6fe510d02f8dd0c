"""completion: print the script that completes the command line in a shell."""

from __future__ import annotations

import click
from _journal_console.completion import completion_script
from _journal_console.exits import FINE

from journal_inspect.rendering.messages import PROGRAM


def show_completion(cli: click.Command, shell: str) -> int:
    print(completion_script(cli, PROGRAM, shell))
    return FINE
