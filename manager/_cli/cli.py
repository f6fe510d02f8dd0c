"""The command line of `subagents`.

Data goes to stdout, and messages and progress go to stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import click
from _journal_console import release_stdout
from _journal_console.exits import (
    CANT_OPEN,
    CORRUPT,
    FINE,
    LOCKED,
    NEGATIVE,
    READER_GONE,
    STOPPED_BY_SIGNAL,
    TIMED_OUT,
    WRONG_USAGE,
)
from _journal_console.text import flush_stdout

from journal import (
    CorruptionError,
    JournalError,
    LockedError,
    __version__,
)
from manager._cli.changes import VERBS
from manager._cli.completion import complete_ref, completion
from manager._cli.mcp import mcp
from manager._cli.messages import message_of
from manager._cli.options import (
    check_takeover,
    form_option,
    mirror_option,
    state_dir_option,
    state_path,
    takeover_option,
    workspace_option,
)
from manager._cli.output import (
    PROGRAM,
    as_json,
    description,
    find_agent,
    print_lines,
    say,
    show_warnings,
)
from manager._cli.run import run
from manager._cli.show_output import output
from manager._cli.signs import signs_of
from manager._cli.states import changes_at, fleet_at
from manager._cli.table import follow_line, table
from manager._cli.worker import worker
from manager._control.errors import ClosedToRequestsError
from manager.agent import STATUSES, Status
from manager.errors import DispatchError, LegacyError, ManagerError, TasksError
from manager.view import FleetView


def run_cli(args: list[str]) -> int:
    """Run a command line and return its exit code. No error that a user can cause ends in a
    traceback.
    """
    stdout = sys.stdout
    try:
        code = app.main(args, prog_name=PROGRAM, standalone_mode=False)
        flush_stdout()
        return code if isinstance(code, int) else FINE
    except click.ClickException as error:
        error.show()
        return WRONG_USAGE
    except click.Abort:
        return STOPPED_BY_SIGNAL + signal.SIGINT
    except (JournalError, ManagerError, TasksError, OSError, ImportError) as error:
        release_stdout()
        say(message_of(error))
        return _exit_code(error)
    except MemoryError:
        release_stdout()
        say(message_of(MemoryError()))
        return CANT_OPEN
    except RuntimeError as error:
        if not str(error).startswith("can't start new thread"):
            raise
        say(f"{error}; allow this process more threads or memory")
        return CANT_OPEN
    except SystemExit as error:
        if error.code != 1:
            raise
        sys.stdout = stdout  # click replaced it, because the pipe was closed
        release_stdout()
        return READER_GONE


def _exit_code(error: Exception) -> int:
    codes: tuple[tuple[type[Exception], int], ...] = (
        (LockedError, LOCKED),
        (ClosedToRequestsError, LOCKED),
        (CorruptionError, CORRUPT),
        (TasksError, WRONG_USAGE),
        (TimeoutError, TIMED_OUT),
        (DispatchError, CANT_OPEN),
        (LegacyError, CANT_OPEN),
        (ManagerError, NEGATIVE),
    )
    return next((code for kind, code in codes if isinstance(error, kind)), CANT_OPEN)


_EXIT_CODES = """\b
Exit codes:
  0         success
  1         a task failed, no agent was found, or a request was refused
  2         wrong usage of the command line
  3         the state is damaged
  4         the state can't be opened, a file can't be read or imported,
            an extra is not installed, or the servers of workers can't be used
  5         another process has the state open for writing
  124       timed out
  129, 130, 143
            stopped by SIGHUP, SIGINT, SIGTERM
  141       the reader of the output has gone
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXIT_CODES)
@click.version_option(__version__, "--version")
def app() -> None:
    """Run commands as durable, resumable sub-agents."""


app.add_command(run)
app.add_command(worker)


@app.command("list", short_help="List the sub-agents.")
@workspace_option
@state_dir_option
@click.option("--status", type=click.Choice(STATUSES), help="List only agents with this status.")
@form_option(type=click.Choice(["text", "json", "jsonl"]))
@click.option(
    "-f", "--follow", is_flag=True, help="Continue with each agent that changes, until stopped."
)
def list_(workspace: str, state_dir: str, status: Status | None, output: str, follow: bool) -> int:
    """List the sub-agents of a workspace, oldest first. This also works during a run.

    SECONDS is the time that an agent has run since it was last started. In JSON, exit_code and
    signal state how its command ended; both are null until then, and one of them stays null.
    attempt numbers the agents of a task, because each retry is an agent of its own.

    WORKER is the worker elsewhere that runs an agent, or ran it last. While the process with the
    state has a connection to the workers, MACHINE is the worker's machine, and HEARD is the time
    since its last sign of life. In JSON, these are worker, machine and worker_silent_s.
    """
    if follow:
        if output == "json":
            raise click.UsageError("--follow can't complete a JSON array; use -o jsonl")
        changes = changes_at(state_path(workspace, state_dir))
        selected = (agent for agent in changes if status in (None, agent.status))
        as_line = follow_line if output == "text" else lambda agent: json.dumps(as_json(agent))
        return print_lines(map(as_line, selected), each_at_once=True)
    agents = _fleet(workspace, state_dir).agents(status=status, include_archived=True)
    signs = signs_of(state_path(workspace, state_dir), agents)
    if output == "json":
        code = print_lines([json.dumps([as_json(agent, signs) for agent in agents], indent=2)])
    elif output == "jsonl":
        code = print_lines(json.dumps(as_json(agent, signs)) for agent in agents)
    else:
        code = print_lines(table(agents, signs) if agents else ())
    if not agents:
        say("no sub-agents found" if status is None else f"no {status} sub-agents found")
    return code or int(not agents)


@app.command(short_help="Show one sub-agent.")
@click.argument("ref", shell_complete=complete_ref)
@workspace_option
@state_dir_option
@form_option(type=click.Choice(["text", "json"]))
def show(ref: str, workspace: str, state_dir: str, output: str) -> int:
    """Show all fields of the sub-agent REF: its id, the beginning of its id, or its name.

    A name means the newest attempt.
    """
    agent = find_agent(_fleet(workspace, state_dir), ref)
    shown = as_json(agent, signs_of(state_path(workspace, state_dir), [agent]))
    return print_lines(description(shown) if output == "text" else [json.dumps(shown, indent=2)])


for verb in VERBS:
    app.add_command(verb)
app.add_command(mcp)
app.add_command(output)
app.add_command(completion)


@app.command("import", short_help="Import the agents of an older tool's file.")
@click.argument("file", type=click.Path())
@workspace_option
@state_dir_option
@click.option(
    "--skip-unknown", is_flag=True, help="Leave out agents of unknown statuses, and name them."
)
@mirror_option
@takeover_option
def import_(
    file: str,
    workspace: str,
    state_dir: str,
    skip_unknown: bool,
    mirror: str | None,
    takeover: bool,
) -> int:
    """Import the agents of FILE, a JSON file in which an older tool kept all its agents.

    Agents that the state already contains are skipped, so a file may be imported again. Agents that
    were running become interrupted. If one value in the file is wrong, the whole file is refused.
    While the disk is full, the import waits for space; Ctrl-C gives up within 2 s.
    """
    from journal import Options
    from manager._cli.giving_up import closing_in_time
    from manager.legacy import read_legacy
    from manager.limits import Limits
    from manager.manager import SubAgentManager

    check_takeover(takeover, mirror)
    if not os.path.lexists(state_path(workspace, state_dir)):  # create none for a refused file
        bound = Options().record_bytes_max
        read_legacy(
            file,
            at_ms=0,
            limits=Limits(),
            record_bytes_max=bound,
            skip_unknown=skip_unknown,
        )
    show_warnings()
    keep_all = Limits(keep_ended_s=None, keep_ended_max=None)
    try:
        manager = SubAgentManager.open(
            workspace, state_dir=state_dir, limits=keep_all, mirror=mirror, takeover=takeover
        )
    except ValueError as error:  # the address of the mirror
        raise click.UsageError(f"--mirror: {error}") from error
    doubt = "interrupted before all agents were durable; import the file again"
    with closing_in_time(manager, doubt):
        imported = manager.import_legacy(file, skip_unknown=skip_unknown)
    say(f"{len(imported)} sub-agent{'' if len(imported) == 1 else 's'} imported from {file}")
    return 0


@app.command(short_help="Export the agents in an older tool's format.")
@click.argument("file", type=click.Path(allow_dash=True))
@workspace_option
@state_dir_option
def export(file: str, workspace: str, state_dir: str) -> int:
    """Write all agents to FILE (-: stdout), in the format that `import` reads.

    This also works during a run. FILE must not exist. What the format can't express is left out:
    a queued or running agent becomes interrupted, and progress and counted sources are lost.
    """
    from manager.legacy_export import exported

    agents = _fleet(workspace, state_dir).agents(include_archived=True)
    content = json.dumps(exported(agents), indent=2)
    if file == "-":
        return print_lines([content])
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as written:
        written.write(f"{content}\n")
    say(f"{len(agents)} sub-agent{'' if len(agents) == 1 else 's'} exported to {file}")
    return 0


@app.command(short_help="See sub-agents survive a kill -9.")
def demo() -> int:
    """Hash files with 64 sub-agents, kill their process half-way, and complete their work.

    The demo creates a new directory in the system's temporary directory, and keeps it.
    """
    from manager._cli.demo import run_demo

    show_warnings()
    return run_demo(lambda line: print(line, flush=True))


def _fleet(workspace: str, state_dir: str) -> FleetView:
    return fleet_at(state_path(workspace, state_dir))
