"""The command line: its verbs in the order they are needed in, and what becomes of an error.

Nothing but click is imported until a verb runs, so that `--help` is there at once.
"""

from __future__ import annotations

import sys
from shutil import get_terminal_size
from typing import Any

import click
from _journal_console import release_stdout

from journal_inspect.commands import verbs, verbs_fleet, verbs_other
from journal_inspect.exits import explain
from journal_inspect.rendering.text import say

_AFTER_A_CRASH = (
    ("journal-inspect info PATH", "what is there, what the next open would do"),
    ("journal-inspect verify PATH", "what is damaged, what is safe, what can be read"),
    ("journal-inspect log PATH -n 20", "the last entries that are whole"),
    ("journal-inspect agents PATH --at LSN", "a manager's agents as of the last good LSN"),
    ("cp -a PATH PATH.damaged", "before anything is changed"),
    ("journal-inspect repair PATH", "what a repair would keep and cut; changes nothing"),
    ("journal-inspect repair PATH --apply --salvage", "do it, and keep what can be read"),
)
_AFTER_ALL = "A torn tail alone is no damage: open the journal as ever, and it goes on."
_EXIT_CODES = (
    ("0", "fine"),
    ("1", "a negative answer: a torn tail, nothing found, differs"),
    ("2", "usage"),
    ("3", "corruption"),
    ("4", "can't open: missing, not a journal, no permission, a newer version"),
    ("5", "locked by a live writer (repair; no other verb needs the lock)"),
    ("124", "timed out"),
    ("130, 143", "stopped by SIGINT, SIGTERM"),
    ("141", "whoever was reading the output has gone"),
)
_NARROW = 60  # columns, below which what an option does stands in a line of its own

# msgpack reads what nests 1024 deep; what shows it calls itself as deep, some calls a level.
_RECURSION_MAX = 10_000


class _Formatter(click.HelpFormatter):
    """Help that fits a terminal as narrow as it may be; click's own takes 50 columns at least."""

    def __init__(self, width: int | None = None, **options: Any) -> None:
        columns = get_terminal_size().columns
        super().__init__(width=columns - 2 if not width and columns < _NARROW else width, **options)

    def write_dl(self, rows: Any, col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl(rows, 4 if self.width < _NARROW - 2 else col_max, col_spacing)


class _Context(click.Context):
    formatter_class = _Formatter


class Inspect(click.Group):
    """Verbs return their exit code; whatever they raise is told in one line."""

    context_class = _Context

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
            release_stdout()
        ctx.exit(code)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("After a crash"):
            formatter.write_dl(_AFTER_A_CRASH)
            formatter.write_text(_AFTER_ALL)
        with formatter.section("Exit codes"):
            formatter.write_dl(_EXIT_CODES)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order that they are needed in, not the alphabet's."""
        return list(self.commands)


def _version(ctx: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if is_asked and not ctx.resilient_parsing:
        from journal import __version__

        print(f"journal-inspect {__version__}")
        ctx.exit()


@click.group(
    cls=Inspect,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Look into a journal, the directory PATH, whether a writer lives or not.

    No verb but `repair --apply` changes a journal, and none but `repair` takes its lock;
    `backup`, `report` and `checkpoint --write` write the file that you name.

    Data goes to stdout, messages to stderr. What is not printable is shown escaped. In JSON,
    bytes are {"base64": ...}, ext types {"ext": n, "base64": ...}, maps whose keys are not all
    strings {"map": [[key, value], ...]}, and each object has a "schema_version"; `schema VERB`
    shows what is in it.
    """
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _RECURSION_MAX))


for _command in (*verbs.COMMANDS, *verbs_fleet.COMMANDS, *verbs_other.COMMANDS):
    _command.context_class = _Context
    _command.short_help = _command.get_short_help_str(80)  # else it is cut to fit, not broken
    cli.add_command(_command)
