"""Dry run: says what `subagents run` would run now."""

from __future__ import annotations

import errno

from _journal_console.text import escaped

from manager._cli.options import state_path
from manager._cli.output import print_lines, say
from manager._run.admission import planned_commands
from manager._run.joblog import command_text
from manager._run.tasks import Task
from manager.view import read_fleet


def dry_run(workspace: str, state_dir: str, tasks: list[Task] | None, *, retry_failed: bool) -> int:
    """Print the commands that a run would run now, one a line, in the order of the file.

    Nothing is changed. Raises FileNotFoundError if there is neither a state nor a file of tasks.
    """
    path = state_path(workspace, state_dir)
    try:
        agents = read_fleet(path).agents(include_archived=True)
    except FileNotFoundError:
        if tasks is None:
            message = "no state to continue; give a file of tasks"
            raise FileNotFoundError(errno.ENOENT, message, path) from None
        agents = []
    commands = planned_commands(agents, tasks, retry_failed=retry_failed)
    code = print_lines(escaped(command_text(command)) for command in commands)
    total = "" if tasks is None else f" of {len(tasks)}"
    count = len(commands) if tasks is None else len(tasks)
    say(f"{len(commands)}{total} task{'' if count == 1 else 's'} would run now")
    return code
