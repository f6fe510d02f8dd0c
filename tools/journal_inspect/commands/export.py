"""export: print rows of tables as JSON Lines, as soon as they are decoded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from _journal_console.exits import FINE
from _journal_console.text import count_of

from journal import Key, TablesView
from journal_inspect.commands.moments import Time
from journal_inspect.commands.tables_views import no_table, open_tables, tables_command
from journal_inspect.exits import NothingFoundError
from journal_inspect.rendering.messages import say
from journal_inspect.rendering.objects import put_objects, versioned
from journal_inspect.rendering.renderer import Renderer

Prefix = str | bytes | tuple[int | str | bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRows:
    """The rows that the user asked for: of one table or all, by their keys, at most `limit`."""

    table: str | None = None
    prefix: Prefix | None = None
    start: Key | None = None
    stop: Key | None = None
    limit: int | None = None

    def rows(self, view: TablesView) -> Iterator[tuple[str, Key, Any]]:
        """Yield table, key and value of the rows, in order."""
        names = view.names() if self.table is None else [self.table]
        limit = None if self.limit is None else min(self.limit, sys.maxsize)  # the most for islice
        return islice((row for name in names for row in self._of(view, name)), limit)

    def _of(self, view: TablesView, name: str) -> Iterator[tuple[str, Key, Any]]:
        table = view.table(name)
        if self.prefix is not None:
            rows = table.prefix(self.prefix, limit=self.limit)
        else:
            rows = table.range(self.start, self.stop, limit=self.limit)
        return ((name, key, value) for key, value in rows)


def export_rows(
    path: str, renderer: Renderer, wanted: WantedRows, at: int | Time | None, part: str | None
) -> int:
    view = open_tables(path, renderer, at, part)
    if wanted.table is not None and wanted.table not in view.names():
        raise no_table(path, view, wanted.table, at, part)
    rows = wanted.rows(view)
    first = next(rows, None)
    if first is None:
        raise NothingFoundError(
            f"{path}: no row matches, as of LSN {view.lsn}; "
            f"see the tables: {tables_command(path, at, part)}"
        )

    def objects() -> Iterator[Any]:
        yield versioned(**renderer.row(*first))
        for row in rows:
            yield versioned(**renderer.row(*row))

    count = put_objects(objects(), "json" if renderer.form == "json" else "jsonl")
    say(f"{path}: {count_of(count, 'row')}, as of LSN {view.lsn}")
    return FINE
