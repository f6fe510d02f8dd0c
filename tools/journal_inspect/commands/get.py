"""get: show the value of one key of a table."""

from __future__ import annotations

from _journal_console.exits import FINE

from journal import Key
from journal_inspect.commands.moments import Time
from journal_inspect.commands.tables_views import no_table, of_part, open_tables
from journal_inspect.exits import NothingFoundError
from journal_inspect.rendering.messages import command, say
from journal_inspect.rendering.objects import dumps, put_one, versioned
from journal_inspect.rendering.renderer import Renderer

_MISSING = object()


def show_value(
    path: str, renderer: Renderer, name: str, key: Key, at: int | Time | None, part: str | None
) -> int:
    view = open_tables(path, renderer, at, part)
    if name not in view.names():
        raise no_table(path, view, name, at, part)
    value = view.table(name).get(key, _MISSING)
    if value is _MISSING:
        shown = dumps(renderer.row(name, key, None)["key"])
        raise NothingFoundError(
            f"{path}: table {name!r} has no key {shown} as of LSN {view.lsn}; "
            f"see its rows: {command('export', path, *of_part(part), name)}"
        )
    row = renderer.row(name, key, value)
    if renderer.form == "text":
        print(dumps(renderer.value(row, value)))
    else:
        put_one(versioned(lsn=view.lsn, **row))
    others = command("export", path, *of_part(part), name)
    say(f"{path}: as of LSN {view.lsn}; to see other rows: {others}")
    return FINE
