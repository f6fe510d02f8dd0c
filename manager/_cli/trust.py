"""Trust: asks before `subagents run` runs the commands of a state that others may have written."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from manager._cli.options import state_path
from manager._cli.output import say
from manager._cli.table import cell

if TYPE_CHECKING:
    from manager._run.tasks import Task

_SHOWN = 5
_OTHERS_ACCESS = stat.S_IRWXG | stat.S_IRWXO


def may_run(workspace: str, state_dir: str, *, retry_failed: bool) -> bool:
    """Return whether the commands in the state may be run. If it may not be the user's, ask.

    `subagents` makes each state for its owner alone. So a state to which others have access came
    here in another way, for example in an archive or a checkout.
    """
    doubt = doubt_of(workspace, state_dir)
    commands = (
        _commands(state_path(workspace, state_dir), retry_failed=retry_failed) if doubt else []
    )
    if not commands:
        return True
    count = f"{len(commands)} command{'' if len(commands) == 1 else 's'}"
    say(f"{doubt}; this run would run {count}, which it contains:")
    for command in commands[:_SHOWN]:
        say(f"  {cell(command)}")
    if len(commands) > _SHOWN:
        say(f"  ... and {len(commands) - _SHOWN} more; subagents list")
    if not sys.stdin.isatty():
        say("nothing was run; check that the state is yours, and add --yes")
        return False
    return click.confirm("Run them?", err=True)


def hint_at_continued_lines(tasks: Sequence[Task]) -> None:
    """Warn of a line that ends in a backslash, because it does not continue on the next one."""
    continued = [
        task.where
        for task in tasks
        if isinstance(task.command, str) and task.command.endswith("\\")
    ]
    if continued:
        more = f" and {len(continued) - 1} more" if len(continued) > 1 else ""
        say(
            f"{continued[0]}{more}: ends in a backslash, but a line is a whole command; write the "
            "command in one line, or as JSON with \\n between its lines"
        )


def doubt_of(workspace: str, state_dir: str) -> str:
    """Return why the state may not be the user's, or "" if nothing says so."""
    path = state_path(workspace, state_dir)
    try:
        state = os.stat(path, follow_symlinks=False)
        mode = stat.S_IMODE(state.st_mode)
        if mode & _OTHERS_ACCESS:
            what = f"others have access to this state (mode {mode:04o})"
            return f"{path}: {what}, so it may not be yours"
        if _is_of_another(state):
            return f"{path}: user {state.st_uid} owns this state, so it may not be yours"
        for directory in _directories(workspace, path):
            above = os.stat(directory)
            if _is_of_another(above):
                what = f"user {above.st_uid} owns this directory"
                return f"{directory}: {what}, so its state may not be yours"
            is_own_group = above.st_gid == os.getegid()  # often, nobody else is in it
            writers = stat.S_IWOTH if is_own_group else stat.S_IWGRP | stat.S_IWOTH
            if above.st_mode & writers and not above.st_mode & stat.S_ISVTX:
                mode = stat.S_IMODE(above.st_mode)
                what = f"others can write here (mode {mode:04o})"
                return f"{directory}: {what}, so its state may not be yours"
    except FileNotFoundError:
        pass
    return ""


def _is_of_another(status: os.stat_result) -> bool:
    return status.st_uid not in (os.geteuid(), 0)  # root may do anything anyway


def _directories(workspace: str, path: str) -> Iterator[str]:
    """Yield the workspace and the directories between it and the state at `path`."""
    yield workspace
    *between, _ = os.path.relpath(path, os.path.realpath(workspace)).split(os.sep)
    directory = workspace
    for name in between:
        directory = os.path.join(directory, name)
        yield directory


def _commands(path: str, *, retry_failed: bool) -> list[str]:
    from manager._run.admission import planned_commands
    from manager._run.joblog import command_text
    from manager.view import read_fleet

    agents = read_fleet(path).agents(include_archived=True)
    return list(map(command_text, planned_commands(agents, None, retry_failed=retry_failed)))
