"""The `subagents` command line: run, list, show, import, demo.

Data goes to stdout, messages and progress to stderr.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from functools import partial

import click
from _journal_console import release_stdout

from journal import CorruptionError, JournalError, LockedError, __version__
from manager._cli.output import (
    as_json,
    description,
    follow_line,
    print_lines,
    say,
    say_what_is_logged,
    table,
)
from manager.agent import STATUSES, Status
from manager.errors import LegacyError, ManagerError, TasksError
from manager.view import FleetView, follow_fleet, read_fleet


def run_cli(args: list[str]) -> int:
    """Carry out a command line; its exit code. What a user can cause is never a traceback."""
    stdout = sys.stdout
    try:
        code = app.main(args, prog_name="subagents", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return 2
    except click.Abort:
        return 130
    except (JournalError, ManagerError, TasksError, OSError) as error:
        release_stdout()
        say(_error_message(error))
        return _exit_code(error)
    except SystemExit as error:
        if error.code != 1:
            raise
        sys.stdout = stdout  # click put another there, for a pipe was closed
        release_stdout()
        return 141


def _error_message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def _exit_code(error: Exception) -> int:
    codes: tuple[tuple[type[Exception], int], ...] = (
        (LockedError, 5),
        (CorruptionError, 3),
        (TasksError, 2),
        (TimeoutError, 124),
        (LegacyError, 4),
        (ManagerError, 1),
    )
    return next((code for kind, code in codes if isinstance(error, kind)), 4)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version")
def app() -> None:
    """Run commands as durable, resumable sub-agents.

    Exit codes: 0 fine; 1 a task failed, or nothing was found; 2 usage; 3 the state is damaged;
    4 it can't be opened; 5 another process has it open for writing; 124 timed out; 130, 143
    stopped by SIGINT, SIGTERM; 141 who read the output has gone.
    """


_workspace = click.option(
    "--workspace",
    default=".",
    show_default=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, readable=False),
    help="The directory that commands run in.",
)
_state_dir = click.option(
    "--state-dir",
    default=".subagents",
    show_default=True,
    metavar="DIR",
    help="The state's directory, below the workspace.",
)
_form = partial(click.option, "-o", "output", default="text", help="Text for people, or JSON.")


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number of seconds")
    return value


@app.command(short_help="Run commands, each as a sub-agent.")
@click.argument(
    "tasks", required=False, type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
@_workspace
@_state_dir
@click.option("-j", "--jobs", type=click.IntRange(1), help="At once.  [default: one a CPU]")
@click.option(
    "--timeout-s",
    type=click.FloatRange(0, min_open=True),
    callback=lambda context, option, value: _finite(value),
    help="Seconds until a task without a timeout_s of its own is stopped.  [default: none]",
)
@click.option("--retry-failed", is_flag=True, help="Run the tasks that failed before, too.")
def run(
    tasks: str | None,
    workspace: str,
    state_dir: str,
    jobs: int | None,
    timeout_s: float | None,
    retry_failed: bool,
) -> int:
    """Run the commands of the file TASKS (-: stdin), each as a sub-agent whose state is durable.

    A line is a shell command, or a JSON object with "command" (a string for /bin/sh, or an array)
    and, if wanted, "name", "prompt", "parent" (another task's name) and "timeout_s". Blank lines
    and lines that begin with # are skipped. A parent is only who a task belongs to: neither waits
    for the other.

    Commands run in the workspace, with no input and their two outputs merged; the end of the
    output is the result. Exit 0 is completed, anything else failed. What a command leaves running
    when it ends is killed, unless it left its process group.

    Run it again over the same state, and what completed is not run again; what was queued or
    interrupted is; what failed only with --retry-failed. A task is the same if it has the same
    name, else if its line says the same (and is the first, second, ... to say so). Lines may be
    added, moved, and, where they have a name and have not completed, edited. Without TASKS, all
    that the state holds unfinished is run.

    In the state a command completes exactly once. It runs at least once: one that was cut off is
    run again from its beginning, and so is one whose end was not durable yet when this process
    was killed. SUBAGENT_ID and SUBAGENT_NAME tell it who it is, the same each time.

    SIGINT and SIGTERM stop the commands (TERM, 5 s later or at a second signal KILL) and mark them
    interrupted. If this process is killed with SIGKILL, its commands are too.
    """
    from manager._cli.progress import progress, sum_up
    from manager._run.runner import run_tasks
    from manager._run.tasks import read_tasks

    say_what_is_logged()
    parsed = None
    if tasks is not None:
        with click.open_file(tasks, "rb") as file:
            parsed = read_tasks(file.read(), "stdin" if tasks == "-" else tasks)
    began = time.monotonic()
    with progress() as tell:
        report = run_tasks(
            workspace,
            parsed,
            state_dir=state_dir,
            jobs=jobs or os.cpu_count() or 1,
            timeout_s=timeout_s,
            retry_failed=retry_failed,
            tell=tell,
        )
    sum_up(report, time.monotonic() - began)
    return report.exit_code


@app.command("list", short_help="List the sub-agents.")
@_workspace
@_state_dir
@click.option("--status", type=click.Choice(STATUSES), help="Only those with this status.")
@_form(type=click.Choice(["text", "json", "jsonl"]))
@click.option("-f", "--follow", is_flag=True, help="Go on with each that changes, until stopped.")
def list_(workspace: str, state_dir: str, status: Status | None, output: str, follow: bool) -> int:
    """List the sub-agents of a workspace, oldest first, whether a run is going on or not."""
    if follow:
        if output == "json":
            raise click.UsageError("--follow has no end, and an array has: use -o jsonl")
        changes = follow_fleet(_path(workspace, state_dir))
        chosen = (agent for agent in changes if status in (None, agent.status))
        as_line = follow_line if output == "text" else lambda agent: json.dumps(as_json(agent))
        return print_lines(map(as_line, chosen), each_at_once=True)
    agents = _fleet(workspace, state_dir).agents(status=status, include_archived=True)
    if output == "json":
        code = print_lines([json.dumps([as_json(agent) for agent in agents], indent=2)])
    elif output == "jsonl":
        code = print_lines(json.dumps(as_json(agent)) for agent in agents)
    else:
        code = print_lines(table(agents) if agents else ())
    if not agents:
        say("no sub-agents" if status is None else f"no sub-agents that are {status}")
    return code or int(not agents)


@app.command(short_help="Show one sub-agent.")
@click.argument("ref")
@_workspace
@_state_dir
@_form(type=click.Choice(["text", "json"]))
def show(ref: str, workspace: str, state_dir: str, output: str) -> int:
    """Show all of the sub-agent whose id or name is REF."""
    agent = as_json(_fleet(workspace, state_dir).get(ref))
    return print_lines(description(agent) if output == "text" else [json.dumps(agent, indent=2)])


@app.command("import", short_help="Take over the agents of an older state file.")
@click.argument("file", type=click.Path())
@_workspace
@_state_dir
def import_(file: str, workspace: str, state_dir: str) -> int:
    """Take over the agents of FILE, a JSON object that an older tool kept all of them in.

    One that is there already is left as it is, so the same file may be imported again. One that
    ran is interrupted. A file that is not right in every part is refused as a whole.
    """
    from journal import Options
    from manager.legacy import read_legacy
    from manager.limits import Limits
    from manager.manager import SubAgentManager

    if not os.path.lexists(_path(workspace, state_dir)):  # a file that is refused begins no state
        bound = Options().record_bytes_max
        read_legacy(file, at_ms=0, limits=Limits(), record_bytes_max=bound)
    say_what_is_logged()
    with SubAgentManager.open(workspace, state_dir=state_dir) as manager:
        imported = manager.import_legacy(file)
    say(f"{len(imported)} sub-agents imported from {file}")
    return 0


@app.command(short_help="See it survive a kill -9.")
def demo() -> int:
    """Hash files with 64 sub-agents, kill their process half-way, and finish what it left.

    In a new directory under the system's temporary one, which stays for a look at it.
    """
    from manager._cli.demo import run_demo

    say_what_is_logged()
    return run_demo(lambda line: print(line, flush=True))


def _path(workspace: str, state_dir: str) -> str:
    return os.path.join(os.path.realpath(workspace), state_dir)


def _fleet(workspace: str, state_dir: str) -> FleetView:
    return read_fleet(_path(workspace, state_dir))
