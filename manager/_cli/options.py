"""Options: the arguments that several commands of `subagents` share."""

from __future__ import annotations

import math
import os
from functools import partial

import click

workspace_option = click.option(
    "--workspace",
    default=".",
    show_default=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, readable=False),
    help="Directory in which commands run.",
)
state_dir_option = click.option(
    "--state-dir",
    default=".subagents",
    show_default=True,
    metavar="DIR",
    help="Directory of the state, relative to the workspace and below it.",
)
form_option = partial(click.option, "-o", "output", default="text", help="Output format.")


def finite(value: float | None) -> float | None:
    """Return `value`. Raise BadParameter if it is infinite or not a number."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a number of seconds")
    return value


def check_servers(url: str | None, credentials: str | None) -> None:
    """Check the values of --on and --creds. Raise UsageError."""
    if url is None:
        if credentials is not None:
            raise click.UsageError("--creds is for the servers of --on; add --on URL")
        return
    from manager._remote.address import Address

    try:
        Address.of(url)
    except ValueError as error:
        raise click.UsageError(f"--on: {error}") from error


def state_path(workspace: str, state_dir: str) -> str:
    """Return the path of the state directory."""
    return os.path.join(os.path.realpath(workspace), state_dir)
