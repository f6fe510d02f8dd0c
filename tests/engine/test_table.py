"""CowTable: a dict, with snapshots that stay what they were."""

from __future__ import annotations

import gc
import sys
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
from tests.support import TIMEOUT_S

KEYS = st.integers(0, 9)
VALUES = st.integers(0, 3)


def table_of(count: int) -> CowTable[int, int]:
    table: CowTable[int, int] = CowTable()
    for n in range(count):
        table[n] = n
    return table


class TableMachine(RuleBasedStateMachine):
    """P6, P7: against a plain dict, with any number of snapshots open at once, each of them read in
    pieces and in part while the table changes."""

    def __init__(self) -> None:
        super().__init__()
        self.table: CowTable[int, int] = CowTable()
        self.model: dict[int, int] = {}
        # Snapshots that are not read yet, and those being read: the values, what is left of them.
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
            snapshot, values = self.fresh.pop(index)  # the iterator is all that is left of it
            self.reading.append((iter(snapshot), list(values)))

    @rule(data=st.data(), count=st.integers(1, 5))
    def read_on(self, data: st.DataObject, count: int) -> None:
        if self.reading:
            index = data.draw(st.integers(0, len(self.reading) - 1))
            values, left = self.reading[index]
            for _ in range(count):
                value = next(values, None)
                if value is None:
                    assert left == []
                    del self.reading[index]
                    break
                left.remove(value)

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
        for reading, left in self.reading:
            assert sorted(reading) == sorted(left)


TestTable = TableMachine.TestCase


def test_keys_come_in_the_order_of_insertion() -> None:
    """Like a dict's until the first removal, and a replaced value keeps its place."""
    table: CowTable[str, int] = CowTable()
    for n, key in enumerate("edcba"):
        table[key] = n
    table["d"] = 9
    assert list(table) == list("edcba")
    assert list(table.items()) == [("e", 0), ("d", 9), ("c", 2), ("b", 3), ("a", 4)]
    assert list(table.freeze()) == [0, 9, 2, 3, 4]
    assert repr(table) == "CowTable({'e': 0, 'd': 9, 'c': 2, 'b': 3, 'a': 4})"


def test_missing_keys_and_odd_ones() -> None:
    """KeyError for what isn't there; any hashable is a key, None a value like any other."""
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
    """Iteration shows the keys of the moment it began."""
    table = table_of(5)
    seen = []
    for key in table:
        seen.append(key)
        del table[key]
        table[key + 10] = 0
    assert seen == [0, 1, 2, 3, 4]
    assert sorted(table) == [10, 11, 12, 13, 14]


def test_freeze_copies_nothing() -> None:
    """P7: a snapshot of a large table takes no more memory than one of a small, and so while an
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


def test_a_dropped_snapshot_costs_nothing() -> None:
    """P8: a snapshot that nobody reads any more is freed, with all that was saved for it."""

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


def test_an_old_snapshot_reads_through_many_newer_ones() -> None:
    """P6: each of many snapshots is what it was, in whatever order they are read and dropped."""
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


def test_clearing_takes_as_many_steps_as_there_are_keys() -> None:
    """`clear` of a large table is one step a key, not one copy of the table a key."""

    class Counted(CowTable[int, int]):
        keys_shown = 0

        def __iter__(self) -> Iterator[int]:
            keys = list(super().__iter__())
            Counted.keys_shown += len(keys)
            return iter(keys)

    table = Counted()
    for n in range(1000):
        table[n] = n
    snapshot = table.freeze()
    assert table.popitem() == (999, 999)
    table.clear()
    assert Counted.keys_shown <= 1000
    assert (len(table), sum(snapshot)) == (0, 499_500)


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns far more often than they would."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_readers_and_a_writer_in_threads() -> None:
    """P6, P7: with no lock between them, a snapshot that is read while the table changes is what it
    was, and any key can be looked up meanwhile.

    Every value is (key, number), and the numbers of a snapshot add up to what was noted at its
    freeze, so that a value of another moment is seen."""
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
            value = table.get(count % 250)
            assert value is None or value[0] == count % 250

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
