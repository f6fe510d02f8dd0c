"""run: run commands, each as a sub-agent."""

from __future__ import annotations

import gc
import os
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import click
from _journal_console.options import finite

from manager._cli.options import (
    check_servers,
    check_takeover,
    mirror_option,
    output_bytes_option,
    state_dir_option,
    takeover_option,
    workspace_option,
)
from manager._cli.output import show_warnings
from manager._cli.trust import doubt_of, hint_at_continued_lines, may_run

if TYPE_CHECKING:
    from manager._run.tasks import Task

_ANY = 1 << 30  # commands at a time: the workers' slots decide


@click.command(short_help="Run commands, each as a sub-agent.")
@click.argument(
    "tasks", required=False, type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
@workspace_option
@state_dir_option
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, _ANY),
    help="Number of commands that run at a time.  [default: number of CPUs]",
)
@click.option(
    "--timeout-s",
    type=click.FloatRange(0, min_open=True),
    callback=finite,
    help="Time limit, in seconds, of tasks without a timeout_s of their own.  [default: none]",
)
@click.option("--retry-failed", is_flag=True, help="Run failed tasks again, too.")
@click.option(
    "--retries",
    type=click.IntRange(0, 1_000_000),
    default=0,
    show_default=True,
    metavar="N",
    help="Run a task that fails up to N more times, after 1, 2, 4, ... s, at most 60 s.",
)
@click.option(
    "--halt",
    type=click.Choice(["soon", "now", "never"]),
    default="never",
    show_default=True,
    help="When a task has failed for good: start no more, or also stop the others.",
)
@click.option("--dry-run", is_flag=True, help="Print the commands that would run now.")
@click.option(
    "--print", "prints", is_flag=True, help="Print what the commands print, line by line."
)
@click.option("--tag", is_flag=True, help="Begin each printed line with its task. Implies --print.")
@output_bytes_option
@click.option("--yes", is_flag=True, help="Run a state that may not be yours without asking.")
@mirror_option
@takeover_option
@click.option(
    "--on",
    metavar="URL",
    help="Run the commands on the workers of these servers, such as nats://host,host.",
)
@click.option(
    "--creds",
    "credentials",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="File with NATS credentials for --on.",
)
@click.option(
    "--joblog",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write a line for each attempt of a task that has ended, as GNU parallel does.",
)
def run(
    tasks: str | None,
    workspace: str,
    state_dir: str,
    jobs: int | None,
    timeout_s: float | None,
    retry_failed: bool,
    dry_run: bool,
    prints: bool,
    tag: bool,
    output_bytes: int,
    yes: bool,
    **others: Any,
) -> int:
    """Run the commands in the file TASKS (-: stdin), each as a sub-agent whose state is durable.

    A line is a shell command, or a JSON object with "command" (a string for /bin/sh, or an array)
    and, optionally, "name", "prompt", "after" (an array of names of tasks that must complete
    first), "cwd" (relative to the workspace), "env" (an object), "timeout_s", "queue" (for --on)
    and "parent" (the name of another task; neither waits for the other). Blank lines and lines that
    begin with # are skipped.

    Commands run in the workspace, without input. What they print is kept as it is, and
    `subagents output` prints it, even while they run. If a stream is longer than --output-bytes, at
    least the last half of that size is kept. Output is not synced: a crash of the machine may lose
    it. The end of stdout is the result. A task is completed if its command exits with 0, and failed
    otherwise. When a command exits, the processes that it leaves running in its process group are
    killed. Those that have become another user's can't be killed; they are named, and left running.

    To continue, run the same command again. Completed tasks are not run again. Queued and
    interrupted tasks are run, and failed ones only with --retry-failed. A line is the same task as
    before if it has the same name. A line without a name is the same task if its text is the same;
    equal lines are numbered from the top. So you may add and move lines, and edit those that have
    a name. An edited line of a failed task is run; one of a completed task is only reported.

    Without TASKS, all unfinished tasks in the state are run. The state contains commands, so treat
    it like code. If others can access the state, or can write to the workspace, or if one of
    both is another user's, the state may not be yours. Then the command shows what it would run,
    and asks first; --yes says yes.

    In the state, a command completes exactly once. It runs at least once: if it was cut off, or if
    its end was not yet durable when this process was killed, it is run again from its beginning.
    The environment variables SUBAGENT_ID and SUBAGENT_NAME identify its agent, and are the same
    each time.

    With --mirror, the state survives the loss of this machine: run the same command with the same
    URL on another one. If a writer still holds the mirror, that is refused, unless you add
    --takeover; then the other one stops at its next upload. So a task may run on both meanwhile.

    With --on, each task runs on a worker (`subagents worker URL`) of its "queue", "default" unless
    the task names one, in a directory of that machine. If this process ends, the tasks that run go
    on there, and the same command finds them and their results.

    SIGINT, SIGTERM and SIGHUP interrupt the tasks that run here: their commands get SIGTERM, and
    SIGKILL after 5 s or at a second signal. If the disk is full then, a message says that the run
    waits for it, and the next signal gives up within 2 s: what is not durable is run again. If this
    process is killed with SIGKILL, these commands are killed too.
    """
    from manager._cli.giving_up import skip_last_wait
    from manager._cli.printing import printing
    from manager._cli.progress import progress, show_outcome
    from manager._run.options import RunOptions
    from manager._run.runner import run_tasks

    on = others["on"]
    check_takeover(others["takeover"], others["mirror"])
    check_servers(on, others["credentials"])
    if on is not None and (prints or tag):
        raise click.UsageError("--print and --tag show commands that run here, not those of --on")
    _check_joblog(others["joblog"], tasks)
    show_warnings()
    _pause_collector()
    parsed = None if tasks is None else _read(tasks)
    if dry_run:
        from manager._cli.dry_run import dry_run as show_plan

        return show_plan(workspace, state_dir, parsed, retry_failed=retry_failed)
    if tasks is None and not yes and not may_run(workspace, state_dir, retry_failed=retry_failed):
        return 4
    options = RunOptions(
        jobs=jobs or (_ANY if on else os.cpu_count()) or 1,
        timeout_s=timeout_s,
        retry_failed=retry_failed,
        output_bytes_max=output_bytes,
        **others,
    )
    doubt = doubt_of(workspace, state_dir)  # before the run keeps others out of the state
    start_s = time.monotonic()
    with (
        printing(is_tagged=tag) if prints or tag else nullcontext() as printer,
        progress(is_bar=not (prints or tag)) as show_progress,
    ):
        report = run_tasks(
            workspace,
            parsed,
            options,
            state_dir=state_dir,
            printer=printer,
            on_start=resume_collector,
            on_change=show_progress,
        )
    show_outcome(report, time.monotonic() - start_s, doubt)
    if report.unrecorded:
        skip_last_wait(report.exit_code)
    return report.exit_code


def _check_joblog(path: str | None, tasks: str | None) -> None:
    with suppress(FileNotFoundError):
        if path is not None and tasks is not None and os.path.samefile(path, tasks):
            raise click.UsageError("--joblog would overwrite TASKS; name another file")


def _pause_collector() -> None:
    """Disable the collector until the command ends, or `resume_collector` is called.

    Nothing becomes garbage until all agents are known, and the collector would take a quarter of
    the time: 3.7 s of CPU time with it for 100,000 tasks, and 2.6 without.
    """
    gc.disable()
    click.get_current_context().call_on_close(gc.enable)


def _read(path: str) -> list[Task]:
    from manager._run.tasks import read_tasks

    with click.open_file(path, "rb") as file:
        tasks = read_tasks(file.read(), "stdin" if path == "-" else path)
    hint_at_continued_lines(tasks)
    return tasks


def resume_collector() -> None:
    """Enable the collector, but exempt what exists: the agents of a large run stay to the end."""
    gc.freeze()
    gc.enable()
