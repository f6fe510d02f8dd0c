"""A process that kills itself while it writes a large value, run by test_sigkill_tables.

    python -m tests.kernel.tables_child PATH POINT SYNCS

Point n is before piece n. After the last piece come two more points: before the record that
publishes the pieces, and after it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from journal import Options, Tables

PIECES = 10
OPTIONS = Options(record_bytes_max=4096)
PIECE_BYTES = OPTIONS.record_bytes_max // 2
BEFORE, AFTER = {"n": 1}, {"n": 2, "text": "x" * (PIECES * PIECE_BYTES - 30)}
Rows = dict[str, Any]


def rows(app: Tables) -> tuple[Rows, Rows]:
    return dict(app.table("t").items()), dict(app.table("u").items())  # type: ignore[arg-type]


def strike_at(app: Tables, point: int, *, syncs: bool) -> None:
    """Kill this process at a point of its next transaction, with every piece before it synced or
    not."""
    write_piece, write_record = app._publisher._write_piece, app._publisher._write_record
    passed = 0

    def pass_point() -> None:
        nonlocal passed
        if syncs:
            app.sync()
        if passed == point:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    def strike_piece(piece: Any) -> None:
        pass_point()
        write_piece(piece)

    def strike_record(*arguments: Any) -> int | None:
        pass_point()
        lsn = write_record(*arguments)
        pass_point()
        return lsn

    vars(app._publisher).update(_write_piece=strike_piece, _write_record=strike_record)


def main(path: str, point: str, syncs: str) -> None:
    with Tables.open(Path(path), options=OPTIONS) as app:
        table, other = app.table("t"), app.table("u")
        table["large"] = BEFORE
        app.sync()
        strike_at(app, int(point), syncs=bool(int(syncs)))
        with app.transaction() as t:
            t[table]["large"] = AFTER
            t[other]["beside"] = 1
        app.sync()
        print("acknowledged", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
