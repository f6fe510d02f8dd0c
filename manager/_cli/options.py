"""Options: the arguments that several commands of `subagents` share."""

from __future__ import annotations

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
mirror_option = click.option(
    "--mirror",
    metavar="URL",
    help="Copy the state to this address, such as s3://bucket/fleet, and get from there what the "
    "directory lacks.",
)
takeover_option = click.option(
    "--takeover",
    is_flag=True,
    help="Take the mirror over from a writer that has not released it.",
)
output_bytes_option = click.option(
    "--output-bytes",
    type=click.IntRange(0),
    default=64 << 20,
    show_default=True,
    help="Bytes of each stream of a command that are kept; 0 keeps none.",
)
form_option = partial(click.option, "-o", "output", default="text", help="Output format.")


def check_takeover(takeover: bool, mirror: str | None) -> None:
    """Check the values of --takeover and --mirror. Raises UsageError."""
    if takeover and mirror is None:
        raise click.UsageError("--takeover takes a mirror over; add --mirror URL")


def check_servers(url: str | None, credentials: str | None) -> None:
    """Check the values of --on and --creds. Raises UsageError."""
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
    return os.path.join(os.path.realpath(workspace), state_dir)
