"""Ranges that a transaction reads: their rows, their cost in keys, and their conflicts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import ConflictError, Table, Tables, TransactionTooLargeError
from journal._tables import chunked_map
from journal.testing import SimulatedDisk
from tests.support import TIMEOUT_S
from tests.tables.tables_support import open_tables

ROWS = 20 * chunked_map.CHUNK_KEYS_MAX
SOME_KEYS = st.integers(0, 40)
LIMITS = st.none() | st.integers(0, 5)
BOUNDS = st.none() | SOME_KEYS


@pytest.fixture
def table(app: Tables) -> Table:
    """Return a table of many chunks."""
    table = app.table("t")
    for number in range(ROWS):
        table[number] = None
    return table


def in_another_thread(function: Any, *arguments: Any) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(function, *arguments).result(TIMEOUT_S)


@pytest.mark.parametrize(
    ("reverse", "changed", "conflicts"),
    [
        (False, ROWS - 1, False),
        (False, 0, True),
        (False, -1, True),
        (True, 0, False),
        (True, ROWS - 1, True),
        (True, ROWS, True),
    ],
)
def test_a_limit_bounds_what_conflicts(
    app: Tables, table: Table, reverse: bool, changed: int, conflicts: bool
) -> None:
    """After a read with a limit, a change far away does not conflict; a new first row does."""
    outcome = pytest.raises(ConflictError, match="near the range") if conflicts else nullcontext()
    with outcome, app.transaction() as t:
        ((key, _),) = t[table].range(reverse=reverse, limit=1)
        in_another_thread(table.__setitem__, changed, 1)
        t[app.table("other")][key] = 1


def test_a_limit_bounds_what_is_counted(disk: SimulatedDisk) -> None:
    """The first and the last row of a table of any size can be read and removed."""
    with open_tables(disk, transaction_keys_max=4) as app:
        table = app.table("t")
        for number in range(ROWS):
            table[number] = None

        def ends(t: Any) -> list[Any]:
            return [next(t[table].range(reverse=reverse, limit=1))[0] for reverse in (False, True)]

        assert app.transact(ends) == app.update(ends) == [0, ROWS - 1]
        with pytest.raises(TransactionTooLargeError):
            app.update(lambda t: next(t[table].range()))


def test_a_range_that_changes_while_it_is_read_conflicts(
    app: Tables, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A range with a limit is read twice, and a change between the two reads is a conflict."""
    take = app._rows.chunks_between
    changes = iter([lambda: None, lambda: table.__setitem__(0, 1)])

    def changing(*bounds: Any) -> Any:
        in_another_thread(next(changes, lambda: None))
        return take(*bounds)

    monkeypatch.setattr(app._rows, "chunks_between", changing)
    seen: list[Any] = []

    def read(t: Any) -> Any:
        seen.append(None)
        return list(t[table].range(limit=2))

    assert app.transact(read) == [(0, 1), (1, None)]
    assert len(seen) == 2


@given(
    stored=st.sets(SOME_KEYS),
    own_writes=st.dictionaries(SOME_KEYS, st.booleans()),
    theirs=st.dictionaries(SOME_KEYS, st.booleans(), max_size=3),
    bounds=st.tuples(BOUNDS, BOUNDS),
    reverse=st.booleans(),
    limit=LIMITS,
)
def test_a_read_range_is_as_it_was_or_the_transaction_conflicts(
    stored: set[int],
    own_writes: dict[int, bool],
    theirs: dict[int, bool],
    bounds: tuple[int | None, int | None],
    reverse: bool,
    limit: int | None,
) -> None:
    """A range shows the rows with the transaction's own writes. It conflicts if others changed
    the rows that it showed."""

    def expected(keys: set[int]) -> list[tuple[int, Any]]:
        start, stop = bounds[0] or 0, 99 if bounds[1] is None else bounds[1]
        shown = dict.fromkeys(keys, 0) | {key: 1 for key, there in own_writes.items() if there}
        rows = [
            (key, shown[key])
            for key in sorted(shown, reverse=reverse)
            if start <= key < stop and own_writes.get(key, True)
        ]
        return list(islice(rows, limit))

    with pytest.MonkeyPatch.context() as patch, open_tables(SimulatedDisk()) as app:
        patch.setattr(chunked_map, "CHUNK_KEYS_MAX", 4)
        patch.setattr(chunked_map, "_CHUNK_KEYS_MIN", 2)
        table, done = app.table("t"), app.table("done")
        for key in stored:
            table[key] = 0
        with ThreadPoolExecutor(1) as pool:
            try:
                with app.transaction() as t:
                    rows = t[table]
                    for key, there in own_writes.items():
                        if there:
                            rows[key] = 1
                        else:
                            t._collected.write(table._place(key), None)
                    assert list(rows.range(*bounds, reverse=reverse, limit=limit)) == expected(
                        stored
                    )
                    for key, there in theirs.items():
                        change = table.__setitem__ if there else table._tables._write
                        value = (key, 0) if there else (table._place(key), None)
                        pool.submit(change, *value).result(TIMEOUT_S)
                    t[done][0] = 0
            except ConflictError:
                return
        now = (stored | {key for key in theirs if theirs[key]}) - {
            k for k in theirs if not theirs[k]
        }
        assert expected(now) == expected(stored)
