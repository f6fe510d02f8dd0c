"""ManyRows, and a CowTable that has them: what a reader finds while a removal moves a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from journal import CowTable
from journal._state.many_rows import ManyRows, Row

pytestmark = pytest.mark.usefixtures("small_chunks")


class Once:
    """A call that is made once."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._calls = [call]

    def __call__(self) -> None:
        if self._calls:
            self._calls.pop()()


class InterruptedList(list[Any]):
    """A list. Another thread gets its turn just before an item is read for the first time."""

    before: Once

    def __getitem__(self, index: Any) -> Any:
        self.before()
        return super().__getitem__(index)


def rows_of(count: int) -> ManyRows[str, int]:
    rows: ManyRows[str, int] = ManyRows()
    for number in range(count):
        rows.add(str(number), number)
    return rows


def remove(rows: ManyRows[str, int], key: str) -> None:
    row = rows.find(key)
    assert row is not None
    rows.remove(row, rows.last())


@pytest.mark.parametrize("count", [2, 3, 7])
def test_an_update_of_many_keys_keeps_only_the_first_ones_in_cells(count: int) -> None:
    """The others are where the garbage collector need not visit each."""
    table: CowTable[str, int] = CowTable()
    table.update({str(number): number for number in range(count)})
    assert len(table._cells) == 2
    assert len(table._many or ()) == count - 2


class CheckedTable(CowTable[str, int]):
    """A table that accepts no empty key."""

    def __setitem__(self, key: str, value: int) -> None:
        if not key:
            raise ValueError("the key is empty")
        super().__setitem__(key, value)


def test_an_update_sets_each_key_as_its_subclass_does() -> None:
    """A check in `__setitem__` holds for `update`, too."""
    table = CheckedTable()
    with pytest.raises(ValueError, match="the key is empty"):
        table.update({"": 1})
    assert not table


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_a_row_that_is_removed_meanwhile_is_not_mixed_up(count: int) -> None:
    """A search whose row is removed, or moved, after its place was read finds nothing, or that row;
    never the value of another key."""
    for sought in map(str, range(count)):
        for removed in map(str, range(count)):
            rows = rows_of(count)
            chunks = InterruptedList(rows._chunks)
            chunks.before = Once(lambda rows=rows, removed=removed: remove(rows, removed))  # type: ignore[misc]
            rows._chunks = chunks
            row = rows.find(sought)
            assert row is None if sought == removed else row is not None and row[1] == int(sought)


class InterruptedRows(ManyRows[str, int]):
    """Rows. Another thread gets its turn just before the first search or list of keys, or just
    after that list."""

    before: Once
    after = Once(lambda: None)

    def find(self, key: str) -> Row[str, int] | None:
        self.before()
        return super().find(key)

    def keys(self) -> list[str]:
        self.before()
        keys = super().keys()
        self.after()
        return keys


def test_a_snapshot_keeps_rows_that_change() -> None:
    """P6: A snapshot has the values of rows that were replaced, removed or moved after it."""
    table: CowTable[str, int] = CowTable()
    for number in range(8):
        table[str(number)] = number
    snapshot = table.freeze()
    table["3"] = 30
    del table["4"]  # the last row moves to its place
    del table["0"]  # another one moves to its cell
    assert list(snapshot) == list(range(8))
    assert dict(table) == {"6": 6, "1": 1, "2": 2, "3": 30, "7": 7, "5": 5}


@pytest.fixture
def table() -> Iterator[CowTable[str, int]]:
    """Return a table of which a cell is removed while its rows are searched, so that the last row
    moves to the cell."""
    table: CowTable[str, int] = CowTable()
    rows = InterruptedRows()
    rows.before = Once(lambda: None)
    table._many = rows
    for number in range(5):
        table[str(number)] = number
    rows.before = Once(lambda: table.pop("0"))
    yield table
    assert sorted(table.items()) == [(str(number), number) for number in range(1, 5)]


def test_a_row_that_gets_a_cell_meanwhile_is_found(table: CowTable[str, int]) -> None:
    """A search finds a key whose row moves to a cell after the cells were searched."""
    assert table.get("4") == 4


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_key_that_moves_meanwhile_is_iterated(table: CowTable[str, int], when: str) -> None:
    """An iteration has each key that was there all the time once, also one whose row moves to a
    cell before or after the rows are copied."""
    rows = table._many
    assert isinstance(rows, InterruptedRows)
    call, rows.before = rows.before, Once(lambda: None)
    setattr(rows, when, call)
    assert sorted(table) == ["1", "2", "3", "4"]


@pytest.mark.parametrize("value", [{}, [1], (1, [2])])
def test_values_that_hold_containers_stay_in_cells(value: object) -> None:
    """The collector visits such values anyway, so in chunks they would only take longer. Snapshots
    of such a table have all values, too."""
    table: CowTable[int, object] = CowTable()
    for number in range(10):
        table[number] = value
    snapshot = table.freeze()
    for number in range(10):
        table[number] = 0
    assert table._many is None
    assert [*snapshot] == 10 * [value]
    assert [*table.freeze()] == 10 * [0]
