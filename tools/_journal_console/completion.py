"""Completion: the script with which a shell completes the command line of a program."""

from __future__ import annotations

import click
from click.shell_completion import FishComplete, get_completion_class


class _Fish(FishComplete):
    """The script for fish. Click's own cuts a help text, or a name, at its first comma."""

    source_template = FishComplete.source_template.replace(
        'string split "," ', 'string split --max 1 "," '
    )


def completion_script(command: click.Command, program: str, shell: str) -> str:
    """Return the script that completes `command`, which is installed as `program`."""
    kind = _Fish if shell == "fish" else get_completion_class(shell)
    assert kind is not None
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    return kind(command, {}, program, variable).source()
