"""The verbs for a journal of tables: their arguments and help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from journal_inspect.commands.options import (
    AT,
    KEY,
    PART,
    PATH,
    PREFIX,
    TABLE,
    TakesNegatives,
    verb,
)

if TYPE_CHECKING:
    from journal import Key
    from journal_inspect.commands.moments import Time
    from journal_inspect.rendering.renderer import Renderer


@click.command(short_help="List the tables of a journal, with their rows and bytes.")
@PATH
@AT
@PART
@verb()
def tables(path: str, renderer: Renderer, at: int | Time | None, part: str | None) -> int:
    """List the tables of a journal, now or as of any moment.

    The journal is one of `Tables`, of a `DurableDict`, of a `Composite` (give --part), or of a
    manager of sub-agents. The size is that of the packed keys and values. Exits with 1 if no table
    has a row, with 4 if the journal has no tables.
    """
    from journal_inspect.commands.tables import show_tables

    return show_tables(path, renderer, at, part)


@click.command(cls=TakesNegatives, short_help="Show the value of one key of a table.")
@PATH
@click.argument("table", type=TABLE)
@click.argument("key", type=KEY)
@AT
@PART
@verb(payload=True)
def get(
    path: str, renderer: Renderer, table: str, key: Key, at: int | Time | None, part: str | None
) -> int:
    """Show the value of one key of a table, now or as of any moment.

    KEY is JSON: 7, "a", {"$bytes": "AA=="}, or a list of these, such as ["de", 7]. A bare word is a
    string. The table of a DurableDict is "items". In text, a value that JSON can't hold is shown as
    by `log`, such as {"float": "nan"}; with -o json it is packed.

    Exits with 1 if the table does not have the key.
    """
    from journal_inspect.commands.get import show_value

    return show_value(path, renderer, table, key, at, part)


@click.command(cls=TakesNegatives, short_help="Print rows of tables as JSON Lines.")
@PATH
@click.argument("table", type=TABLE, required=False)
@click.option(
    "--prefix",
    type=PREFIX,
    help='Print only keys with this prefix: de, or ["de"] for lists whose first element is de.',
)
@click.option("--from", "start", type=KEY, help="Print only this key and those after it.")
@click.option("--to", "stop", type=KEY, help="Print only keys before this one.")
@click.option("--limit", type=click.IntRange(min=1), help="Print only the first N rows.")
@AT
@PART
@verb(payload=True)
def export(
    path: str, renderer: Renderer, at: int | Time | None, part: str | None, **options: Any
) -> int:
    """Print the rows of a table, or of all tables, in the order of their keys.

    Each line is a row as in a checkpoint, in text output too: its table, its key, and its value, or
    the packed value if JSON can't hold it. Keys are given as for `get`. Exits with 1 if no row
    matches.
    """
    if options["prefix"] is not None and (
        options["start"] is not None or options["stop"] is not None
    ):
        raise click.UsageError("--prefix is a range of keys, so it takes no --from and no --to")
    from journal_inspect.commands.export import WantedRows, export_rows

    return export_rows(path, renderer, WantedRows(**options), at, part)


COMMANDS = (tables, get, export)
