"""The crash kit catches a state machine whose snapshots change while they are read."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from journal._state.contract import check_machine
from journal.testing import BrokenPromiseError, Owner, explore
from journal.testing.history import HeldItems
from journal.testing.machine import CrashMachine
from tests.crash.test_testing_machine import NO_SHRINKING
from tests.engine.test_contract import Freeze, given_items, machine_of, traced
from tests.support import Table


class InPlace(Table):
    """A table that changes a row in place."""

    def apply(self, lsn: int, record: Any) -> None:
        key, value = record
        if key in self.rows and value is not None:
            self.rows[key][1] = value
        else:
            super().apply(lsn, record)


class InPlaceListed(InPlace):
    """A table that makes a list at the right time, of rows that it changes in place."""

    def freeze(self) -> Any:
        return [*self.rows.values()]


class LoadedInPlace(Table):
    """A table that changes a row in place only if it came from a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: set[str] = set()

    def load(self, item: Any) -> None:
        super().load(item)
        self.loaded.add(item[0])

    def apply(self, lsn: int, record: Any) -> None:
        key, value = record
        if key in self.loaded and key in self.rows and value is not None:
            self.rows[key][1] = value
        else:
            super().apply(lsn, record)


class Late(Table):
    """A table that takes its snapshot when the first item is read."""

    def freeze(self) -> Any:
        return self._late()

    def _late(self) -> Iterator[Any]:
        yield from self.rows.freeze()


class LateIterable(Table):
    """A table whose `freeze` returns an object that takes a snapshot whenever it is iterated."""

    def freeze(self) -> Any:
        machine = self

        class Items:
            def __iter__(self) -> Iterator[Any]:
                return iter(machine.rows.freeze())

        return Items()


class LateSecond(Late):
    """A table that takes the second of its two snapshots too late."""

    def freeze(self) -> Any:
        return itertools.chain(self.rows.freeze(), self._late())


class LateCounter(Table):
    """A table that reads a counter when its items are read."""

    def freeze(self) -> Any:
        return ([key, value, len(self.rows)] for key, value in self.rows.freeze())

    def load(self, item: Any) -> None:
        super().load(item[:2])


class LiveView(Table):
    """A table that hides a view of itself in a map."""

    def freeze(self) -> Any:
        return map(list, self.rows.values())


class LiveDict(Table):
    """A table that iterates a dict, which raises if the dict has grown."""

    def __init__(self) -> None:
        super().__init__()
        self.dict: dict[str, Any] = {}

    def load(self, item: Any) -> None:
        self.dict[item[0]] = item

    def apply(self, lsn: int, record: Any) -> None:
        self.dict[record[0]] = record

    def freeze(self) -> Any:
        return iter(self.dict.values())


class LiveList(Table):
    """A table that returns the list to which it appends."""

    def __init__(self) -> None:
        super().__init__()
        self.list: list[Any] = []

    def load(self, item: Any) -> None:
        self.list.append(item)

    def apply(self, lsn: int, record: Any) -> None:
        self.list.append(record)

    def freeze(self) -> Any:
        return self.list


WRONG: list[type[Table]] = [
    InPlace,
    InPlaceListed,
    LoadedInPlace,
    Late,
    LateIterable,
    LateSecond,
    LateCounter,
    LiveView,
    LiveDict,
    LiveList,
]


def work(owner: Owner[Table]) -> None:
    owner.append(["a", 1])
    owner.compact()
    owner.reopen()
    owner.append(["a", 2])
    owner.append(["b", 3])
    owner.wait()


def test_explore_accepts_items_that_stay() -> None:
    """P6: Items of a snapshot stay as they are, and every crash is recovered."""
    assert explore(Table, work).states > 100


@pytest.mark.parametrize("machine", WRONG)
def test_explore_catches_items_that_change(machine: type[Table]) -> None:
    """P6: A checkpoint has the state at its LSN, whatever is applied while it is written."""
    with pytest.raises(BrokenPromiseError, match=r"^P6: the items of `freeze` at LSN \d change"):
        explore(machine, work)


@pytest.mark.parametrize("wrong", WRONG)
def test_the_crash_machine_catches_items_that_change(wrong: type[Table]) -> None:
    """P6: The crash state machine catches such items with random calls, too."""

    class CrashIt(CrashMachine[Table]):
        machine = wrong
        records = st.tuples(st.sampled_from("ab"), st.integers(0, 9)).map(list)

    with pytest.raises(BrokenPromiseError, match=r"P6: the items of `freeze` at LSN \d+ change"):
        run_state_machine_as_test(CrashIt, settings=NO_SHRINKING)


def test_a_change_by_the_last_record_is_caught() -> None:
    """The last record is checked although it is not durable and no other follows.

    A refused record was not applied, and changes nothing.
    """

    def work(owner: Owner[Table]) -> None:
        owner.append(["a", 1])
        with pytest.raises(ZeroDivisionError):
            owner.state.update(lambda _: 1 // 0)
        with pytest.raises(BrokenPromiseError) as caught:
            owner.append(["a", 2])
        message = str(caught.value)
        assert message.startswith(
            "P6: the items of `freeze` at LSN 1 change with the record after it: item 0 of the "
            'snapshot is ["a", 2], but before the change it gave ["a", 1]. There '
        )

    with Owner[Table](InPlace) as owner:
        work(owner)


def test_items_may_change_only_within_a_batch_that_made_them() -> None:
    """P3, P6: No snapshot is taken within a batch, so the batch may change a value that it made.

    It may not change a value that existed before it.
    """
    with Owner[Table](InPlace) as owner:
        owner.append_batch([["a", 1], ["a", 2]])
        owner.append(["b", 1])
        with pytest.raises(BrokenPromiseError, match="the records after it, up to LSN 5: item 0"):
            owner.append_batch([["c", 1], ["a", 3]])


def test_an_error_while_items_are_read_is_reported() -> None:
    """An error while items are read is the cause of the BrokenPromiseError."""
    with (
        Owner[Table](LiveDict) as owner,
        pytest.raises(BrokenPromiseError, match="dictionary changed size") as caught,
    ):
        owner.append(["a", 1])
    assert isinstance(caught.value.__cause__, RuntimeError)


class Viewing(Table):
    def freeze(self) -> Any:
        return self.rows.values()


class Yielding(Table):
    def freeze(self) -> Iterable[Any]:
        yield from self.rows.freeze()


@pytest.mark.parametrize("machine", [Viewing, Yielding, lambda: Table])
def test_explore_raises_the_type_errors_of_an_open(machine: Any) -> None:
    """`explore` raises the TypeError of an open, not a broken promise, and it says what to
    change."""
    with pytest.raises(TypeError, match=r"freeze|is a class"):
        explore(machine, work)


# The source of the items, and whether they are as of the call.
SOURCES: dict[str, tuple[Freeze, bool]] = {
    "snapshot": (lambda m: m.a.freeze(), True),
    "list": (lambda m: [*m.dict.values()], True),
    "dict view": (lambda m: m.dict.values(), False),
    "table view": (lambda m: m.a.values(), False),
    "dict": (lambda m: m.dict, False),
}


def deferred(freeze: Freeze) -> Freeze:
    def defer(m: Any) -> Iterator[Any]:
        yield from freeze(m)

    return lambda m: defer(m)


# A wrapper of the items, and whether it makes them as of the call. None leaves that as it was.
WRAPPERS: dict[str, tuple[Callable[[Freeze], Freeze], bool | None]] = {
    "list": (lambda freeze: lambda m: list(freeze(m)), True),
    "generator expression": (lambda freeze: lambda m: (row for row in freeze(m)), None),
    "map": (lambda freeze: lambda m: map(str, freeze(m)), None),
    "chain": (lambda freeze: lambda m: itertools.chain([0], freeze(m)), None),
    "helper": (lambda freeze: lambda m: given_items(freeze(m)), None),
    "deferred": (deferred, False),
    "traced": (traced, None),
    "partial": (lambda freeze: functools.partial(freeze), None),
}


@given(st.sampled_from(list(SOURCES)), st.lists(st.sampled_from(list(WRAPPERS)), max_size=4))
def test_changing_items_are_refused_or_caught(source: str, wrappers: list[str]) -> None:
    """P6: Items that change with the next record raise TypeError or are caught by the crash tests.

    No other items are refused or caught, whatever `freeze` is made of.
    """
    freeze, is_early = SOURCES[source]
    for name in wrappers:
        wrap, makes_early = WRAPPERS[name]
        freeze, is_early = wrap(freeze), is_early if makes_early is None else makes_early
    machine = machine_of()
    machine.freeze = functools.partial(freeze, machine)
    machine.apply(1, ["a", 1])
    machine.apply(2, ["b", 2])
    try:
        check_machine(machine)
        held = HeldItems(machine, 2)
        machine.apply(3, ["a", 3])
        machine.apply(4, ["c", 4])
        machine.apply(5, ["b", None])
        held.check(5)
    except (TypeError, BrokenPromiseError):
        assert not is_early
    else:
        assert is_early
