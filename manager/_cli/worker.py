"""worker: run the commands of a manager on another machine."""

from __future__ import annotations

import os

import click
from _journal_console.options import finite

from manager._cli.options import output_bytes_option


@click.command(short_help="Run the commands of a manager elsewhere.")
@click.argument("url")
@click.option(
    "--queue",
    "queues",
    multiple=True,
    default=("default",),
    show_default=True,
    metavar="NAME",
    help="Queue whose tasks run here. May be repeated.",
)
@click.option(
    "--slots",
    type=click.IntRange(1, 10_000),
    help="Number of commands that run at a time.  [default: number of CPUs]",
)
@click.option(
    "--dir",
    "directory",
    default=".",
    show_default=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Directory in which commands run.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="Name of this worker, and its user in the servers' configuration.  "
    "[default: the machine's]",
)
@click.option(
    "--orphan-s",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    callback=finite,
    help="Seconds without any answer after which the commands are stopped.",
)
@output_bytes_option
@click.option(
    "--creds",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="File with NATS credentials.",
)
@click.option(
    "--insecure", is_flag=True, help="Use servers that do not encrypt or ask for no login."
)
def worker(
    url: str,
    queues: tuple[str, ...],
    slots: int | None,
    directory: str,
    name: str | None,
    orphan_s: float,
    output_bytes: int,
    creds: str | None,
    insecure: bool,
) -> int:
    """Run tasks of `subagents run --on URL`, until a signal stops this worker.

    URL names the servers, such as nats://host,host. A client that may publish as the manager there
    can run commands on this machine, as this user.

    A task's cwd must be at or below --dir, or the task fails. Its files are not copied, and it gets
    the environment of this worker, with what the task adds. What commands print is kept below
    --dir.

    SIGINT, SIGTERM and SIGHUP stop the worker: its commands get SIGTERM, and SIGKILL after 5 s or
    at a second signal, and their tasks are handed back, so that other workers run them. If this
    process is killed with SIGKILL, its commands are killed too.
    """
    from manager._run.worker import WorkerOptions, run_worker

    options = WorkerOptions(
        url=url,
        directory=directory,
        queues=queues,
        slots=slots or os.cpu_count() or 1,
        name=name,
        orphan_s=orphan_s,
        output_bytes_max=output_bytes,
        insecure=insecure,
        credentials=creds,
    )
    try:
        return run_worker(options)
    except ValueError as error:  # the address, a queue or the name
        raise click.UsageError(str(error)) from error
