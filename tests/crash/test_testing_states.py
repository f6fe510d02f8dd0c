"""The crash kit compares whole states: those that are recovered, and those in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from journal import CowTable
from journal.testing import Bounds, BrokenPromiseError, Owner, explore
from journal.testing.machine import CrashMachine
from tests.crash.test_testing_machine import NO_SHRINKING
from tests.support import Table

FEW = Bounds(outcomes_max=2, recovery_outcomes_max=1, deviations=0)


def work(owner: Owner[Any]) -> None:
    owner.append(["a", 1])
    owner.append(["b", None])
    owner.compact()
    owner.reopen()


class Rows(CowTable[str, Any]):
    """A machine that is itself a table, of tuples."""

    application = "rows/1"

    def apply(self, lsn: int, record: Any) -> None:
        self[record[0]] = tuple(record)

    def freeze(self) -> Any:
        return map(list, super().freeze())

    def load(self, item: Any) -> None:
        self[item[0]] = item


class Indexed(Rows):
    """A table with an index that `load` does not rebuild."""

    def __init__(self) -> None:
        super().__init__()
        self.index: CowTable[str, Any] = CowTable()

    def apply(self, lsn: int, record: Any) -> None:
        super().apply(lsn, record)
        self.index[record[0]] = record[1]


class IndexedDict(dict[str, Any]):
    """A dict with an index that `load` does not rebuild."""

    application = "dict/1"

    def __init__(self) -> None:
        self.index: CowTable[str, Any] = CowTable()

    def apply(self, lsn: int, record: Any) -> None:
        self[record[0]] = record
        self.index[record[0]] = record[1]

    def freeze(self) -> Any:
        return list(self.values())

    def load(self, item: Any) -> None:
        self[item[0]] = item


class Slots(Table):
    """A table with an index in a slot, which `load` does not rebuild."""

    __slots__ = ("__index",)

    def __init__(self) -> None:
        super().__init__()
        self.__index: CowTable[str, Any] = CowTable()

    def apply(self, lsn: int, record: Any) -> None:
        super().apply(lsn, record)
        self.__index[record[0]] = record[1]


class LateIndex(Table):
    """A table that makes its index only in `apply`."""

    def apply(self, lsn: int, record: Any) -> None:
        super().apply(lsn, record)
        vars(self).setdefault("index", CowTable())[record[0]] = record[1]


class Nothing(Table):
    """A table whose index `load` fills with None."""

    def __init__(self) -> None:
        super().__init__()
        self.index: CowTable[str, Any] = CowTable()

    def apply(self, lsn: int, record: Any) -> None:
        super().apply(lsn, record)
        self.index[record[0]] = record[1]

    def load(self, item: Any) -> None:
        super().load(item)
        self.index[item[0]] = None


class Partial(Rows):
    """A table that freezes only a part of its rows."""

    def freeze(self) -> Any:
        return (row for row in super().freeze() if row[0] != "b")


@pytest.mark.parametrize(
    ("machine", "part"),
    [
        (Indexed, "Indexed.index"),
        (IndexedDict, "IndexedDict.index"),
        (Slots, "Slots._Slots__index"),
        (LateIndex, "LateIndex.index"),
        (Nothing, "Nothing.index"),
        (Partial, "Partial itself"),
    ],
)
def test_a_part_that_is_not_loaded_is_caught(machine: Callable[[], Any], part: str) -> None:
    """P6: A recovered machine has each row and each table of a replay, wherever it keeps them."""
    with pytest.raises(
        BrokenPromiseError, match=f"^P6: {part} of the recovered state differs from"
    ):
        explore(machine, work)


def test_a_loaded_list_equals_a_tuple() -> None:
    """P6: A machine that is a table may keep tuples, which are loaded as lists."""
    assert explore(Rows, work, bounds=FEW).states


# --- the state in memory ---


class Counter(Table):
    """A table with a counter, which only `decide` changes."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def take(self) -> list[Any]:
        self.count += 1
        return ["a", self.count]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counter) and self.count == other.count

    __hash__ = None  # type: ignore[assignment]


def put(owner: Owner[Counter]) -> None:
    """Change a row in `decide`, as only `apply` may."""

    def decide(table: Counter) -> list[Any]:
        table.rows["z"] = ["z", 1]
        return ["a", 1]

    owner.state.update(decide)


def take(owner: Owner[Counter]) -> None:
    owner.state.update(Counter.take)


ENDS: dict[str, Callable[[Owner[Counter]], object]] = {
    "end": Owner.wait,
    "close of the state": lambda owner: owner.state.close(),
    "close": Owner.close,
    "reopen": Owner.reopen,
    "kill": Owner.kill,
    "power cut": Owner.power_cut,
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("change", "part"), [(put, "the live state is"), (take, "Counter itself")])
def test_a_state_that_only_decide_changed_is_caught(
    change: Callable[[Owner[Counter]], None], part: str, end: str
) -> None:
    """P6: The state in memory is that of a replay whenever it ends, so only `apply` changes it."""

    def work(owner: Owner[Counter]) -> None:
        change(owner)
        ENDS[end](owner)

    with pytest.raises(BrokenPromiseError, match=f"^P6: .*{part}.*, such as `decide`, has"):
        explore(Counter, work)


def test_an_owner_that_leaves_its_block_with_an_error_raises_that_error() -> None:
    """The state in memory is not compared after an error, which would hide that error."""

    def fail(owner: Owner[Counter]) -> None:
        put(owner)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Owner(Counter) as owner:
        fail(owner)


def test_a_state_that_an_apply_left_half_way_is_not_compared() -> None:
    """An `apply` that raises breaks rule 2, but no promise."""

    class Refusing(Table):
        def apply(self, lsn: int, record: Any) -> None:
            super().apply(lsn, record)
            raise ZeroDivisionError

    with Owner(Refusing) as owner:
        with pytest.raises(ZeroDivisionError):
            owner.append(["a", 1])
        owner.kill()
        owner.reopen()
        assert owner.last_lsn == 0


def test_the_crash_machine_compares_the_state_in_memory() -> None:
    """P6: Random calls catch a machine whose `apply` depends on more than its record."""
    calls = iter(range(10**6))

    class Counting(Table):
        def apply(self, lsn: int, record: Any) -> None:
            super().apply(lsn, [record[0], next(calls)])

    class CrashIt(CrashMachine[Table]):
        machine = Counting
        records = st.just(["a", 1])

    with pytest.raises(BrokenPromiseError, match=r"P6: item 0 of the live state is"):
        run_state_machine_as_test(CrashIt, settings=NO_SHRINKING)


class Leaking(CrashMachine[Table]):
    """A crash machine in which nothing but a rule of its own changes the state in memory."""

    machine = Table
    records = st.nothing()

    @initialize(durability=st.just("disk"))
    def begin(self, durability: Any) -> None:
        super().begin(durability)
        self.owner.append(["a", 1])

    @rule()
    def change(self) -> None:
        self.owner.state.machine.rows["a"] = ["a", 2]


class Failing(Leaking):
    @rule()
    def change(self) -> None:
        super().change()
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("crash_it", "error"), [(Leaking, BrokenPromiseError), (Failing, ZeroDivisionError)]
)
def test_the_crash_machine_compares_the_state_at_its_end(
    crash_it: type[Leaking], error: type[Exception]
) -> None:
    """P6: The end of a run compares the state in memory, unless the run has failed."""

    def run(machine: Leaking) -> None:
        machine.begin("disk")
        try:
            machine.change()
        finally:  # as Hypothesis does
            machine.teardown()

    with pytest.raises(error):
        run(crash_it())


class Members:
    """A set, whose order of items depends on its history."""

    application = "members/1"

    def __init__(self) -> None:
        self.ids: set[int] = set()

    def apply(self, lsn: int, record: Any) -> None:
        (self.ids.discard if record < 0 else self.ids.add)(abs(record))

    def freeze(self) -> Any:
        return list(self.ids)

    def load(self, item: Any) -> None:
        self.ids.add(item)


class Sorted(Members):
    def freeze(self) -> Any:
        return sorted(self.ids)


def join(owner: Owner[Members]) -> None:
    """Load another order than that of a replay: 16 and 8 collide in a small set, as 0 does."""
    for record in (16, 8, -16):
        owner.append(record)
    owner.compact()
    owner.append(24)
    owner.reopen()


def test_items_in_another_order_are_caught() -> None:
    """P6: The order of items may be a part of the state, so the message says to sort a set."""
    with pytest.raises(BrokenPromiseError, match=r"in another order; .*, sort them in `freeze`"):
        explore(Members, join)
    assert explore(Sorted, join, bounds=FEW).states


def test_a_queue_that_is_loaded_in_another_order_is_caught() -> None:
    """P6: A machine whose order is a part of its state has that order after it was loaded."""

    class Queue(Members):
        def __init__(self) -> None:
            super().__init__()
            self.queue: list[int] = []

        def apply(self, lsn: int, record: Any) -> None:
            self.queue.append(record)

        def freeze(self) -> Any:
            return list(self.queue)

        def load(self, item: Any) -> None:
            self.queue.insert(0, item)

    with pytest.raises(BrokenPromiseError, match=r"^P6: item 0 .* in another order"):
        explore(Queue, join)
