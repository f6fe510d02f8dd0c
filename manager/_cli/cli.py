"""The `subagents` command line: run, list, show, import, demo.

Data goes to stdout, messages and progress to stderr. What others wrote (names, prompts, output of
commands) is shown with its control characters escaped: a terminal would obey them.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from journal import CorruptionError, JournalError, LockedError, __version__
from manager.agent import LIVE, STATUSES, Agent, Status
from manager.errors import LegacyError, ManagerError, TasksError
from manager.view import FleetView, follow_fleet, read_fleet

if TYPE_CHECKING:  # asyncio, which it needs, takes longer to import than `list` to run
    from manager._run.runner import Report

_LINE_EVERY_S = 5.0
_CELL_CHARS = 48
_FAILED_SHOWN = 10
_BLOCKS = ("prompt", "reason", "result")


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
        _let_go_of_stdout()
        _say(_what_is_wrong(error))
        return _exit_code(error)
    except SystemExit as error:
        if error.code != 1:
            raise
        sys.stdout = stdout  # click put another there, for a pipe was closed
        _let_go_of_stdout()
        return 141


def _let_go_of_stdout() -> None:
    """What it can not take the interpreter would write at exit, and then tell of."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _what_is_wrong(error: Exception) -> str:
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
    from manager._run.runner import run_tasks
    from manager._run.tasks import read_tasks

    _say_what_is_logged()
    parsed = None
    if tasks is not None:
        with click.open_file(tasks, "rb") as file:
            parsed = read_tasks(file.read(), "stdin" if tasks == "-" else tasks)
    began = time.monotonic()
    with _progress() as tell:
        report = run_tasks(
            workspace,
            parsed,
            state_dir=state_dir,
            jobs=jobs or os.cpu_count() or 1,
            timeout_s=timeout_s,
            retry_failed=retry_failed,
            tell=tell,
        )
    _sum_up(report, time.monotonic() - began)
    return report.exit_code


@app.command("list", short_help="List the sub-agents.")
@_workspace
@_state_dir
@click.option("--status", type=click.Choice(STATUSES), help="Only those with this status.")
@click.option("-o", "output", type=click.Choice(["text", "json", "jsonl"]), default="text")
@click.option("-f", "--follow", is_flag=True, help="Go on with each that changes, until stopped.")
def list_(workspace: str, state_dir: str, status: Status | None, output: str, follow: bool) -> int:
    """List the sub-agents of a workspace, oldest first, whether a run is going on or not."""
    if follow:
        if output == "json":
            raise click.UsageError("--follow has no end, and an array has: use -o jsonl")
        changes = follow_fleet(_path(workspace, state_dir))
        chosen = (agent for agent in changes if status in (None, agent.status))
        as_line = _follow_line if output == "text" else lambda agent: json.dumps(_as_json(agent))
        return _print(map(as_line, chosen), each_at_once=True)
    agents = _fleet(workspace, state_dir).agents(status=status, include_archived=True)
    if output == "json":
        code = _print([json.dumps([_as_json(agent) for agent in agents], indent=2)])
    elif output == "jsonl":
        code = _print(json.dumps(_as_json(agent)) for agent in agents)
    else:
        code = _print(_table(agents) if agents else ())
    if not agents:
        _say("no sub-agents" if status is None else f"no sub-agents that are {status}")
    return code or int(not agents)


@app.command(short_help="Show one sub-agent.")
@click.argument("ref")
@_workspace
@_state_dir
@click.option("-o", "output", type=click.Choice(["text", "json"]), default="text")
def show(ref: str, workspace: str, state_dir: str, output: str) -> int:
    """Show all of the sub-agent whose id or name is REF."""
    agent = _as_json(_fleet(workspace, state_dir).get(ref))
    return _print(_description(agent) if output == "text" else [json.dumps(agent, indent=2)])


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
    _say_what_is_logged()
    with SubAgentManager.open(workspace, state_dir=state_dir) as manager:
        imported = manager.import_legacy(file)
    _say(f"{len(imported)} sub-agents imported from {file}")
    return 0


@app.command(short_help="See it survive a kill -9.")
def demo() -> int:
    """Hash files with 64 sub-agents, kill their process half-way, and finish what it left.

    In a new directory under the system's temporary one, which stays for a look at it.
    """
    from manager._cli.demo import run_demo

    _say_what_is_logged()
    return run_demo(lambda line: print(line, flush=True))


# --- what is read ---


def _path(workspace: str, state_dir: str) -> str:
    return os.path.join(os.path.realpath(workspace), state_dir)


def _fleet(workspace: str, state_dir: str) -> FleetView:
    return read_fleet(_path(workspace, state_dir))


def _as_json(agent: Agent) -> dict[str, Any]:
    return {"schema_version": 1} | {f.name: getattr(agent, f.name) for f in fields(agent)}


# --- what is shown ---


def _print(lines: Iterable[str], *, each_at_once: bool = False) -> int:
    """The exit code: of who read the output and has gone, the one that shells have for it."""
    try:
        for line in lines:
            print(line, flush=each_at_once)
        sys.stdout.flush()
    except BrokenPipeError:
        _let_go_of_stdout()
        return 141  # 128 + SIGPIPE
    return 0


def _say(message: str) -> None:
    with suppress(BrokenPipeError):
        click.echo(f"subagents: {_plain(message)}", err=True)


def _say_what_is_logged() -> None:
    """From here to the end of the command, on stderr as it then is: a live bar may stand there."""
    import logging  # takes a twentieth of a listing, which logs nothing

    class Messages(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with suppress(OSError):  # who logs has better to do than to fail for want of a reader
                print(f"{record.name}: {_plain(record.getMessage())}", file=sys.stderr)

    messages, loggers = Messages(logging.WARNING), map(logging.getLogger, ("journal", "manager"))
    for logger in loggers:
        logger.addHandler(messages)
        click.get_current_context().call_on_close(partial(logger.removeHandler, messages))


def _moment(at_ms: int) -> str:
    from datetime import UTC, datetime

    with suppress(ValueError, OverflowError, OSError):  # what was imported may lie anywhere
        return f" ({datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()})"
    return ""


def _plain(text: str) -> str:
    """`text` in one line, with what a terminal would not print as it stands escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _cell(text: str) -> str:
    line = _plain(text.strip().partition("\n")[0])
    return line if len(line) <= _CELL_CHARS else f"{line[: _CELL_CHARS - 3]}..."


def _table(agents: list[Agent]) -> Iterator[str]:
    head = ("AGENT", "STATUS", "SECONDS", "NAME", "PROMPT", "REASON")
    rows: list[tuple[str, ...]] = [head]
    rows += map(_cells, agents)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield "  ".join(cell.ljust(width) for cell, width in cells).rstrip()


def _cells(agent: Agent) -> tuple[str, ...]:
    ended = agent.ended_at_ms or agent.updated_at_ms
    took = "" if agent.started_at_ms is None else f"{(ended - agent.started_at_ms) / 1000:.1f}"
    name = "" if agent.name == agent.agent_id else agent.name
    reason = "; ".join((agent.reason or "").splitlines())
    shown = map(_cell, (name, agent.prompt, reason))
    return (_cell(agent.agent_id), agent.status, took, *shown)


def _follow_line(agent: Agent) -> str:
    """What comes later can't widen what is printed: these are the usual widths."""
    cells = zip(_cells(agent), (18, 16, 7, 16, 32, 0), strict=True)
    return "  ".join(cell.ljust(width) for cell, width in cells).rstrip()


def _description(agent: dict[str, Any]) -> Iterator[str]:

    for name, value in agent.items():
        if value is None or name == "schema_version":
            continue
        if name in _BLOCKS:
            lines = [_plain(line) for line in value.removesuffix("\n").split("\n")]
            yield from [f"{name}: {lines[0]}"] if len(lines) == 1 else [f"{name}:"]
            yield from (f"  {line}" for line in lines if len(lines) > 1)
        elif name.endswith("_at_ms"):
            yield f"{name}: {value}{_moment(value)}"
        else:
            yield f"{name}: {_plain(value) if isinstance(value, str) else json.dumps(value)}"


# --- how a run goes ---


@contextmanager
def _progress() -> Iterator[Callable[[Report], None]]:
    """Who is told how a run goes: a live bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task_id = bar.add_task("", total=None)

        def tell(report: Report) -> None:
            ended = len(report.agents) - _unfinished(report)
            text = _standing(report)
            bar.update(task_id, total=len(report.agents), completed=ended, description=text)

        yield tell


class _Lines:
    def __init__(self) -> None:
        self._due = time.monotonic() + _LINE_EVERY_S

    def __call__(self, report: Report) -> None:
        if time.monotonic() >= self._due:
            _say(_standing(report))
            self._due = time.monotonic() + _LINE_EVERY_S


def _unfinished(report: Report) -> int:
    return sum(report.counts[status] for status in LIVE)


def _standing(report: Report) -> str:
    counts = ", ".join(f"{report.counts[s]} {s}" for s in STATUSES if report.counts[s])
    total = len(report.agents)
    return f"{total} task{'' if total == 1 else 's'}: {counts or 'nothing to run'}"


def _sum_up(report: Report, took_s: float) -> None:
    failed = [agent for agent in report.agents.values() if agent.status == "failed"]
    for agent in failed[:_FAILED_SHOWN]:
        reason = "; ".join((agent.reason or "").splitlines())
        _say(f"failed: {agent.name}: {_cell(agent.prompt)}: {reason}")
    if len(failed) > _FAILED_SHOWN:
        _say(f"failed: {len(failed) - _FAILED_SHOWN} more; subagents list --status failed")
    if report.signal is not None:
        _say(f"stopped by {report.signal.name}; the same command goes on from here")
    if report.others:
        _say(f"{report.others} unfinished from elsewhere are left alone; without TASKS they run")
    _say(f"{_standing(report)}; {took_s:.1f} s")
