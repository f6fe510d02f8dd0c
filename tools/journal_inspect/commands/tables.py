"""tables: list the tables of a journal, with their rows and bytes."""

from __future__ import annotations

import msgpack
from _journal_console.exits import FINE
from _journal_console.text import count_of, put_lines, size, table

from journal import TableView
from journal_inspect.commands.moments import Time
from journal_inspect.commands.tables_views import of_part, open_tables
from journal_inspect.exits import NothingFoundError
from journal_inspect.rendering.messages import command, say
from journal_inspect.rendering.objects import put_objects, versioned
from journal_inspect.rendering.renderer import Renderer


def show_tables(path: str, renderer: Renderer, at: int | Time | None, part: str | None) -> int:
    view = open_tables(path, renderer, at, part)
    names = view.names()
    if not names:
        raise NothingFoundError(
            f"{path}: the journal has no tables as of LSN {view.lsn}; "
            f"see its records: {command('log', path)}"
        )
    counts = [(name, *_count(view.table(name))) for name in names]
    if renderer.form == "text":
        rows = [(name, count, size(size_bytes)) for name, count, size_bytes in counts]
        put_lines(table(("TABLE", "ROWS", "SIZE"), rows, flexible=("TABLE",)))
    else:
        put_objects(
            (
                versioned(table=name, rows=count, bytes=size_bytes)
                for name, count, size_bytes in counts
            ),
            renderer.form,
        )
    say(
        f"{path}: {count_of(len(counts), 'table')}, as of LSN {view.lsn}; "
        f"to see the rows of one: {command('export', path, *of_part(part), 'TABLE')}"
    )
    return FINE


def _count(rows: TableView) -> tuple[int, int]:
    """Return the number of rows, and the size of their keys and values, packed.

    The size does not depend on how rows are stored, so a compaction does not change it.
    """
    pack = msgpack.Packer().pack
    count = size_bytes = 0
    for key, value in rows.items():
        count += 1
        size_bytes += len(pack(key)) + len(pack(value))
    return count, size_bytes
