"""The command line: verbs, their options, and what becomes of an error.

Nothing but click is imported until a verb runs, so that `--help` is there at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click

from journal_inspect.exits import explain
from journal_inspect.text import say

if TYPE_CHECKING:
    from journal import JournalReader
    from journal_inspect.objects import Format

# msgpack reads what nests 1024 deep; what shows it calls itself as deep, some calls a level.
_RECURSION_MAX = 10_000

_LSN = click.IntRange(min=1)
F = TypeVar("F", bound=Callable[..., int])


class Inspect(click.Group):
    """Verbs return their exit code; whatever they raise is told in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (Exception, KeyboardInterrupt) as error:
            code, message = explain(error)
            if message:
                say(message)
            _let_go_of_stdout()
        ctx.exit(code)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order that they are needed in, not the alphabet's."""
        return list(self.commands)


def _let_go_of_stdout() -> None:
    # The interpreter flushes at exit, and would say that nobody listens.
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _verb(function: F) -> F:
    """What all verbs have."""
    form = click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(["text", "json", "jsonl"]),
        default="text",
        show_default=True,
        help="Text for people, one JSON value, or JSON Lines.",
    )
    # Whether it can be read is for the journal to say, with the exit code for that.
    return click.argument("path", type=click.Path(readable=False))(form(function))


def _open(path: str) -> JournalReader:
    from journal import JournalReader

    return JournalReader.open(path)


@click.group(
    cls=Inspect,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Exit codes:
  0         fine
  1         a negative answer: a torn tail, nothing found
  2         usage
  3         corruption
  4         can't open: missing, not a journal, no permission, a newer version
  5         locked by a live writer (no verb here needs the lock)
  130, 143  stopped by SIGINT, SIGTERM
  141       whoever was reading the output has gone""",
)
def cli() -> None:
    """Look into a journal, the directory PATH, whether a writer lives or not.

    Takes no lock and writes nothing. After a crash begin with `info`, which says what the next
    open would do, and `verify`, which says what is damaged and what is whole.

    Data goes to stdout, messages to stderr. What is not printable is shown escaped. In JSON,
    bytes are {"base64": ...}, ext types {"ext": n, "base64": ...}, maps whose keys are not all
    strings {"map": [[key, value], ...]}, and each object has a "schema_version".
    """
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _RECURSION_MAX))


@cli.command()
@_verb
def info(path: str, form: Format) -> int:
    """Show what is in a journal, and what the next open would do.

    Exits with 3 if something in it is damaged.
    """
    from journal_inspect.info import show_info

    with _open(path) as reader:
        return show_info(reader, form)


@cli.command()
@_verb
@click.option("-n", "--lines", "count", type=click.IntRange(min=0), help="The last N only.")
@click.option("-r", "--reverse", is_flag=True, help="The newest first.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is appended; begins with 10.")
@click.option("--from-lsn", type=_LSN, help="The first to show.")
@click.option("--to-lsn", type=_LSN, help="The last to show.")
def log(
    path: str,
    form: Format,
    count: int | None,
    reverse: bool,
    follow: bool,
    from_lsn: int | None,
    to_lsn: int | None,
) -> int:
    """Show entries: LSN, epoch, when it was written, record.

    Of a live journal those that are durable, of a dead one those that an open would keep.
    Where the log is damaged it ends, with 3; with -r it begins at the other end. Exits with 1
    if there is no such entry, or LSNs asked for are no longer kept.
    """
    if follow and reverse:
        raise click.UsageError("-f goes on for ever, so there is no -r of it")
    if follow and form == "json":
        raise click.UsageError("-f goes on for ever, and a JSON array does not: use -o jsonl")
    if from_lsn and to_lsn and from_lsn > to_lsn:
        raise click.UsageError(f"nothing is from LSN {from_lsn} to LSN {to_lsn}")
    from journal_inspect.log import show_log

    with _open(path) as reader:
        return show_log(
            reader,
            form,
            count=count,
            reverse=reverse,
            follow=follow,
            from_lsn=from_lsn,
            to_lsn=to_lsn,
        )


@cli.command()
@_verb
def verify(path: str, form: Format) -> int:
    """Look at every segment, record and checkpoint, needed or not.

    \b
    One line for each finding, then the last good LSN. Findings, and what they exit with:
      corruption      3  what was durable is damaged
      torn_tail       1  what a crash left unfinished; nothing acknowledged
      bad_checkpoint  1  does not verify; an open takes an older one
      stray           0  a file that no open reads
    """
    from journal_inspect.verify import show_findings

    with _open(path) as reader:
        return show_findings(reader, form)


@cli.command()
@_verb
@click.option("--lsn", type=_LSN, help="The one at this LSN.  [default: the newest]")
def checkpoint(path: str, form: Format, lsn: int | None) -> int:
    """Show a checkpoint that verifies, and its items.

    In JSON Lines the first line is the checkpoint, the others are its items. Exits with 1 if
    there is none.
    """
    from journal_inspect.checkpoint import show_checkpoint

    with _open(path) as reader:
        return show_checkpoint(reader, form, lsn=lsn)


@cli.command()
@_verb
def agents(path: str, form: Format) -> int:
    """Show a manager's agents, as the next open would find them.

    Exits with 1 if there are none, with 4 if it is not the journal of a manager.
    """
    from journal_inspect.agents import show_agents

    return show_agents(path, form)
