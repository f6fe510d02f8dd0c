"""The command line: its verbs, in the order in which a user needs them, and its errors.

Only click is imported before a verb runs, so that `--help` is fast.
"""

from __future__ import annotations

import sys
from shutil import get_terminal_size
from typing import Any

import click
from _journal_console import release_stdout
from _journal_console.text import flush_stdout

from journal_inspect.commands import verbs, verbs_fleet, verbs_mirror, verbs_other, verbs_tables
from journal_inspect.exits import explain
from journal_inspect.rendering.messages import say

_AFTER_A_CRASH = (
    ("journal-inspect info PATH", "show what the journal contains and what the next open would do"),
    ("journal-inspect verify PATH", "check every file; show damage and what can still be read"),
    ("journal-inspect log PATH -n 20", "show the last entries that are whole"),
    ("journal-inspect agents PATH --at LSN", "show a manager's agents as of the last good LSN"),
    ("cp -a PATH PATH.damaged", "copy the directory before you change anything"),
    ("journal-inspect repair PATH", "show what a repair would keep and cut; changes nothing"),
    (
        "journal-inspect repair PATH --apply --salvage",
        "repair it, and save the readable records after the damage",
    ),
)
_TORN_TAIL_NOTE = "A torn tail alone is not damage: open the journal as usual, and it continues."
_EXIT_CODES = (
    ("0", "fine"),
    ("1", "a negative answer: a torn tail, damage that no open needs, nothing found, a difference"),
    ("2", "wrong usage of the command line"),
    ("3", "corruption: an open refuses, or the verb can't read what it was asked for"),
    (
        "4",
        "can't open: missing, not a journal, no permission, a newer version; or the extra `cli` is "
        "not installed",
    ),
    (
        "5",
        "locked by another process: the journal (for `repair`, `follow` and `mirror reappend "
        "--apply`), or the destination (for `backup` and `restore`)",
    ),
    ("124", "timed out"),
    ("130, 143", "stopped by SIGINT, SIGTERM"),
    ("141", "the reader of the output has gone"),
)
_NARROW_COLUMNS = 60  # on fewer columns, the text of an option begins on a line of its own

# msgpack reads values nested 1024 deep. Rendering recurses as deep, with several calls per level.
_RECURSION_MAX = 10_000


class _Formatter(click.HelpFormatter):
    """A help formatter for terminals of any width; click's own needs at least 50 columns."""

    def __init__(self, width: int | None = None, **options: Any) -> None:
        columns = get_terminal_size().columns
        super().__init__(
            width=columns - 2 if not width and columns < _NARROW_COLUMNS else width, **options
        )

    def write_dl(self, rows: Any, col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl(rows, 4 if self.width < _NARROW_COLUMNS - 2 else col_max, col_spacing)


class _Context(click.Context):
    formatter_class = _Formatter


class Inspect(click.Group):
    """The group of verbs. A verb returns its exit code; an error is printed as one line."""

    context_class = _Context

    def invoke(self, ctx: click.Context) -> Any:
        try:
            code = super().invoke(ctx)
            flush_stdout()
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
            formatter.write_text(_TORN_TAIL_NOTE)
        with formatter.section("Exit codes"):
            formatter.write_dl(_EXIT_CODES)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order in which a user needs them, not in alphabetical order."""
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
    """Look into the journal in the directory PATH, whether its writer is running or not.

    Only `repair --apply` and `mirror reappend --apply` change a journal. They, `repair` and
    `follow` take its lock, and no other verb does. `backup`, `restore`, `report`, `follow` and
    `checkpoint --write` write the file or directory that you name.

    Data goes to stdout, messages go to stderr. Unprintable characters are escaped. In JSON, bytes
    are {"base64": ...}, ext types {"ext": n, "base64": ...}, and maps whose keys are not all
    strings {"map": [[key, value], ...]}. In rows of tables, as `get`, `export` and the "writes" of
    `log` show them, bytes are {"$bytes": ...}, and a value that JSON can't hold is msgpack under
    "packed". Each object has a "schema_version"; `schema VERB` prints its schema.
    """
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _RECURSION_MAX))


for _command in (
    *verbs.COMMANDS,
    *verbs_tables.COMMANDS,
    *verbs_fleet.COMMANDS,
    *verbs_mirror.COMMANDS,
    *verbs_other.COMMANDS,
):
    _command.context_class = _Context
    _command.short_help = _command.get_short_help_str(80)  # click would cut it, not wrap it
    cli.add_command(_command)
