"""CowTable: a dict whose snapshots do not change."""

from __future__ import annotations

import gc
import threading
import tracemalloc
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from journal import CowTable
from journal._state import cow_table, many_rows
from tests.support import TIMEOUT_S

KEYS = st.integers(0, 9)
VALUES = st.integers(0, 3)


def table_of(count: int) -> CowTable[int, int]:
    table: CowTable[int, int] = CowTable()
    for n in range(count):
        table[n] = n
    return table


def set_sizes(cells: int, bits: int) -> None:
    """Keep so many values of a table in cells, and the others in chunks of 2 ** bits."""
    cow_table._CELLS = cells
    for module in (cow_table, many_rows):
        vars(module)["_BITS"] = bits
    many_rows._MASK = (2 << bits) - 1


def test_a_snapshot_without_images_reads_those_of_a_newer_one() -> None:
    """P6: A change after a second snapshot does not change the first one."""
    table: CowTable[int, str] = CowTable()
    table[0] = "old"
    first, second = table.freeze(), table.freeze()
    table[0] = "new"
    assert [*first] == [*second] == ["old"]


class TableMachine(RuleBasedStateMachine):
    """P6, P7: A table compared with a plain dict, with any number of snapshots open at once. Each
    is read in pieces, or only in part, while the table changes."""

    cells, bits = cow_table._CELLS, many_rows._BITS

    def __init__(self) -> None:
        super().__init__()
        set_sizes(self.cells, self.bits)
        self.table: CowTable[int, int] = CowTable()
        self.model: dict[int, int] = {}
        # Snapshots that are not read yet, and iterators of others, each with the values that
        # remain.
        self.fresh: list[tuple[Iterable[int], list[int]]] = []
        self.reading: list[tuple[Iterator[int], list[int]]] = []

    @rule(key=KEYS, value=VALUES)
    def put(self, key: int, value: int) -> None:
        self.table[key] = value
        self.model[key] = value

    @rule(key=KEYS)
    def remove(self, key: int) -> None:
        if key in self.model:
            del self.model[key]
            del self.table[key]
        else:
            with pytest.raises(KeyError):
                del self.table[key]

    @rule(key=KEYS)
    def pop(self, key: int) -> None:
        assert self.table.pop(key, None) == self.model.pop(key, None)

    @rule()
    def popitem(self) -> None:
        if self.model:
            key, value = self.table.popitem()
            assert self.model.pop(key) == value
        else:
            with pytest.raises(KeyError):
                self.table.popitem()

    @rule()
    def clear(self) -> None:
        self.table.clear()
        self.model.clear()

    @rule(items=st.dictionaries(KEYS, VALUES))
    def update(self, items: dict[int, int]) -> None:
        self.table.update(items)
        self.model.update(items)

    @rule(key=KEYS, value=VALUES)
    def setdefault(self, key: int, value: int) -> None:
        assert self.table.setdefault(key, value) == self.model.setdefault(key, value)

    @rule(missing=KEYS)
    def position(self, missing: int) -> None:
        assert [*map(self.table.position, self.table)] == [*range(len(self.model))]
        if missing not in self.model:
            assert self.table.position(missing) is None

    @rule()
    def freeze(self) -> None:
        snapshot = self.table.freeze()
        assert len(snapshot) == len(self.model)
        self.fresh.append((snapshot, sorted(self.model.values())))

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        if self.fresh:
            snapshot, values = self.fresh[data.draw(st.integers(0, len(self.fresh) - 1))]
            assert sorted(snapshot) == values

    @rule(data=st.data())
    def begin_reading(self, data: st.DataObject) -> None:
        if self.fresh:
            index = data.draw(st.integers(0, len(self.fresh) - 1))
            snapshot, values = self.fresh.pop(index)  # only the iterator keeps the snapshot alive
            self.reading.append((iter(snapshot), list(values)))

    @rule(data=st.data(), count=st.integers(1, 5))
    def continue_reading(self, data: st.DataObject, count: int) -> None:
        if self.reading:
            index = data.draw(st.integers(0, len(self.reading) - 1))
            values, remaining = self.reading[index]
            for _ in range(count):
                value = next(values, None)
                if value is None:
                    assert remaining == []
                    del self.reading[index]
                    break
                remaining.remove(value)

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        if self.fresh:
            del self.fresh[data.draw(st.integers(0, len(self.fresh) - 1))]

    @invariant()
    def is_a_dict(self) -> None:
        assert dict(self.table) == self.model
        assert len(self.table) == len(self.model)
        assert sorted(self.table.values()) == sorted(self.model.values())
        for key in range(10):
            assert (key in self.table) == (key in self.model)
            assert self.table.get(key) == self.model.get(key)

    def teardown(self) -> None:
        for snapshot, values in self.fresh:
            assert sorted(snapshot) == values
        for reading, remaining in self.reading:
            assert sorted(reading) == sorted(remaining)
        set_sizes(TableMachine.cells, TableMachine.bits)


class LargeTableMachine(TableMachine):
    """A table that has rows past its cells, in several chunks."""

    cells, bits = 2, 1


TestTable = TableMachine.TestCase
TestLargeTable = LargeTableMachine.TestCase


def test_keys_are_in_insertion_order() -> None:
    """Until the first removal, keys have a dict's order, and a replaced value keeps its place."""
    table: CowTable[str, int] = CowTable()
    for n, key in enumerate("edcba"):
        table[key] = n
    table["d"] = 9
    assert list(table) == list("edcba")
    assert list(table.items()) == [("e", 0), ("d", 9), ("c", 2), ("b", 3), ("a", 4)]
    assert list(table.freeze()) == [0, 9, 2, 3, 4]
    assert repr(table) == "CowTable({'e': 0, 'd': 9, 'c': 2, 'b': 3, 'a': 4})"


def test_missing_and_unusual_keys_behave_as_in_a_dict() -> None:
    """A missing key raises KeyError. Any hashable object can be a key, and None can be a value."""
    table: CowTable[Any, Any] = CowTable()
    with pytest.raises(KeyError):
        table["a"]
    with pytest.raises(KeyError):
        table.pop("a")
    with pytest.raises(TypeError):
        table[[]] = 1
    assert len(table) == 0
    table[None] = None
    table[1, "a"] = 2
    table[1.0] = 3
    assert (table[None], table[1], table.get(None, 5), table.get("a", 5)) == (None, 3, None, 5)
    assert list(table.freeze()) == [None, 2, 3]
    assert table == {None: None, (1, "a"): 2, 1: 3}


def test_a_table_can_be_changed_while_it_is_iterated() -> None:
    """Iteration yields the keys as of its beginning."""
    table = table_of(5)
    seen = []
    for key in table:
        seen.append(key)
        del table[key]
        table[key + 10] = 0
    assert seen == [0, 1, 2, 3, 4]
    assert sorted(table) == [10, 11, 12, 13, 14]


def test_freeze_does_not_copy_the_table() -> None:
    """P7: A snapshot of a large table takes no more memory than one of a small table, also while an
    earlier one is being read."""
    sizes = []
    for table in (table_of(1), table_of(20_000)):
        reading = iter(table.freeze())
        assert next(reading) == 0
        tracemalloc.start()
        snapshot = table.freeze()
        sizes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        table[0] = -1
        assert next(iter(snapshot)) == 0
    assert max(sizes) < 2000


@pytest.mark.usefixtures("few_to_collect")
def test_a_dropped_snapshot_is_freed() -> None:
    """P8: A dropped snapshot is freed, together with the values that were saved for it."""

    class Value:
        pass

    table: CowTable[int, Value] = CowTable()
    table[0] = Value()
    gone = weakref.ref(table[0])
    older, newer = table.freeze(), table.freeze()
    table[0] = Value()
    assert gone() is not None
    del newer
    assert gone() is next(iter(older))
    del older
    gc.collect()
    assert gone() is None
    snapshot = table.freeze()
    gone = weakref.ref(table[0])
    del table[0]
    assert gone() is not None
    assert len(list(snapshot)) == 1
    del snapshot
    gc.collect()
    assert gone() is None


@pytest.mark.usefixtures("few_to_collect")
def test_many_snapshots_keep_their_values() -> None:
    """P6: Each of many snapshots keeps its values, in whatever order they are read and dropped."""
    table = table_of(6)
    snapshots = []
    for n in range(40):
        snapshots.append((table.freeze(), list(range(6))[n % 6 :], dict(table)))
        table[n % 6] = 100 + n
        if n % 5 == 4:
            del table[n % 6]
            table[n % 6] = 1000 + n
    for snapshot, _, values in snapshots[::-3]:
        assert sorted(snapshot) == sorted(values.values())
    del snapshots[1::2]
    gc.collect()
    table.clear()
    for snapshot, _, values in snapshots:
        assert sorted(snapshot) == sorted(values.values())


def test_clearing_takes_one_step_per_key() -> None:
    """`clear` takes one step per key, and does not copy the table for each key."""

    class Counted(CowTable[int, int]):
        keys_yielded = 0

        def __iter__(self) -> Iterator[int]:
            keys = list(super().__iter__())
            Counted.keys_yielded += len(keys)
            return iter(keys)

    table = Counted()
    for n in range(1000):
        table[n] = n
    snapshot = table.freeze()
    assert table.popitem() == (999, 999)
    table.clear()
    assert Counted.keys_yielded <= 1000
    assert (len(table), sum(snapshot)) == (0, 499_500)


def test_collections_do_not_visit_each_row_of_a_large_table() -> None:
    """A large table of flat tuples adds a bounded number of objects to a full collection, also when
    its rows are replaced. No dict of it has more than a small part of the keys."""

    def visited() -> int:
        for _ in range(3):  # a tuple is no longer tracked once all that it contains is not
            gc.collect()
        return len(gc.get_objects())

    before = visited()
    table: CowTable[str, tuple[str, int]] = CowTable()
    for n in range(4 * cow_table._CELLS):
        table[str(n)] = (f"row {n}", n)
    for n in range(0, len(table), 7):
        table[str(n)] = (f"row {n}", -n)
    assert visited() - before < cow_table._CELLS + 1000
    assert table._many is not None
    assert max(map(len, table._many._buckets)) < len(table) / 100


@pytest.fixture(params=["cells", "rows"])
def kept_as(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep most values of small tables in cells, or past them."""
    before = cow_table._CELLS, many_rows._BITS
    if request.param == "rows":
        set_sizes(20, 3)
    yield
    set_sizes(*before)


@pytest.mark.usefixtures("frequent_switches", "kept_as")
def test_snapshots_are_consistent_across_threads() -> None:
    """P6, P7: Without a lock between them, a snapshot keeps its values while the table changes, and
    any key can be looked up.

    Every value is (key, number). A snapshot's numbers must add up to the total at its freeze, so
    that a value of another moment is noticed.
    """
    table: CowTable[int, tuple[int, int]] = CowTable()
    for key in range(200):
        table[key] = (key, 0)
    total = 0
    lock = threading.Lock()

    def read() -> None:
        for count in range(100):
            with lock:
                snapshot, expected, size = table.freeze(), total, len(table)
            keys, numbers = zip(*snapshot, strict=True)
            assert len(keys) == len(set(keys)) == size
            assert sum(numbers) == expected
            for key in range(count % 10, 250, 10):
                value = table.get(key)
                assert value is None or value[0] == key

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        n = 0
        while n < 1000 or not all(reader.done() for reader in readers):
            n += 1
            key = n * 37 % 250
            with lock:
                old = table.get(key)
                if old is not None and n % 3 == 0:
                    del table[key]
                    total -= old[1]
                else:
                    table[key] = (key, n)
                    total += n - (old[1] if old else 0)
    for reader in readers:
        reader.result(TIMEOUT_S)
