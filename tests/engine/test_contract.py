"""The state machines that DurableState accepts, and the items that `freeze` may return."""

from __future__ import annotations

import functools
import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from journal import CowTable, DurableState, StateMachine
from journal._format.checkpoint import checkpoint_name
from journal.testing import SimulatedDisk
from tests.support import PATH, options


class Accounts:
    """A machine of two tables and a dict, each with a row per name. A record sets or removes a
    row."""

    application = "accounts/1"

    def __init__(self) -> None:
        self.a: CowTable[str, Any] = CowTable()
        self.b: CowTable[str, Any] = CowTable()
        self.dict: dict[str, Any] = {}

    def apply(self, lsn: int, record: Any) -> None:
        name, value = record
        for table in (self.a, self.b, self.dict):
            if value is None:
                table.pop(name, None)
            else:
                table[name] = [name, value]

    def load(self, item: Any) -> None:
        self.apply(0, item)

    def freeze(self) -> Iterable[Any]:
        return self.a.freeze()


Freeze = Callable[[Any], Any]


def machine_of(**members: Any) -> Any:
    return type("Bank", (Accounts,), members)()


def given_items(items: Iterable[Any]) -> Iterator[Any]:
    yield from items


def traced(freeze: Freeze) -> Freeze:
    @functools.wraps(freeze)
    def call(self: Any) -> Any:
        return freeze(self)

    return call


def listed(freeze: Freeze) -> Freeze:
    @functools.wraps(freeze)
    def call(self: Any) -> Any:
        return list(freeze(self))

    return call


def generator(self: Any) -> Iterator[Any]:
    yield from self.a.freeze()
    yield from self.b.freeze()


async def coroutine(self: Any) -> Any:
    return self.a.freeze()


async def async_generator(self: Any) -> AsyncIterator[Any]:
    yield self.a.freeze()


class Called:
    def __call__(self) -> Iterator[Any]:
        yield 1


class Late(Accounts):
    def freeze(self) -> Iterator[Any]:
        yield from self.a.freeze()


class Inheriting(Late):
    def freeze(self) -> Iterator[Any]:
        return super().freeze()


# --- results of freeze ---

ALLOWED: dict[str, Freeze] = {
    "a snapshot": lambda m: m.a.freeze(),
    "two snapshots": lambda m: itertools.chain(m.a.freeze(), m.b.freeze()),
    "a generator expression over a snapshot": lambda m: (row for row in m.a.freeze()),
    "a generator over a given snapshot": lambda m: given_items(m.a.freeze()),
    "a map over a snapshot": lambda m: map(list, m.a.freeze()),
    "an iterator over a snapshot": lambda m: iter(m.a.freeze()),
    "a list": lambda m: [*m.dict.values()],
    "a tuple": lambda m: tuple(m.dict.values()),
    "a deque": lambda m: deque(m.dict.values()),
    "nothing": lambda m: [],
    "a list that a wrapper makes": listed(generator),
    "a list that a partial makes": functools.partialmethod(listed(generator)),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("freeze", ALLOWED.values(), ids=ALLOWED)
def test_a_freeze_that_takes_its_snapshots_first_is_accepted(
    freeze: Freeze, disk: SimulatedDisk
) -> None:
    """A freeze that returns an iterable that can't change is accepted."""
    with DurableState.open(PATH, machine_of(freeze=freeze), options=options(), disk=disk) as state:
        state.update(lambda _: ["a", 1])
        count = state.compact().count
        assert count == len([*state.machine.freeze()])


GENERATORS: dict[str, Any] = {
    "a generator function": generator,
    "a static generator function": staticmethod(functools.partial(generator, None)),
    "a partial": functools.partialmethod(generator),
    "an object that is called": Called(),
    "a coroutine function": coroutine,
    "an async generator function": async_generator,
}


@pytest.mark.parametrize("freeze", GENERATORS.values(), ids=GENERATORS)
def test_a_generator_function_is_refused_at_open(freeze: Any, disk: SimulatedDisk) -> None:
    """A generator function takes its snapshots too late, after the lock is released. It is refused
    before the disk is touched, and the message shows the right form."""
    with pytest.raises(TypeError) as caught:
        DurableState.open(PATH, machine_of(freeze=freeze), disk=disk)
    message = str(caught.value)
    assert message.startswith(("Bank.freeze is a generator function: ", "Bank.freeze is an async"))
    assert "`return self.table.freeze()`" in message
    assert "`tables = self.a.freeze(), self.b.freeze(); return itertools.chain(*tables)`" in message
    assert disk.operations == []


def test_a_bound_generator_method_is_refused_at_open(disk: SimulatedDisk) -> None:
    """A `freeze` that is an attribute of the instance is checked like one of its class."""
    machine = machine_of()
    for freeze in (Late().freeze, functools.partial(Late().freeze)):
        machine.freeze = freeze
        with pytest.raises(TypeError, match=r"Bank\.freeze is a generator function"):
            DurableState.open(PATH, machine, disk=disk)


REFUSED: dict[str, tuple[Freeze, str]] = {
    "its own generator": (traced(generator), "its own generator"),
    "its own generator, wrapped twice": (traced(traced(generator)), "its own generator"),
    "a dict": (lambda m: m.dict, "dict"),
    "a table": (lambda m: m.a, "CowTable"),
    "a read-only dict": (lambda m: MappingProxyType(m.dict), "mappingproxy"),
    "an ordered dict": (lambda m: OrderedDict(m.dict), "OrderedDict"),
    "a counter": (lambda m: Counter(), "Counter"),
    "the values of a dict": (lambda m: m.dict.values(), "dict_values"),
    "the items of a dict": (lambda m: m.dict.items(), "dict_items"),
    "the keys of a dict": (lambda m: m.dict.keys(), "dict_keys"),
    "the values of an ordered dict": (lambda m: OrderedDict().values(), "odict_values"),
    "the values of a table": (lambda m: m.a.values(), "ValuesView"),
    "the items of a table": (lambda m: m.a.items(), "ItemsView"),
    "the keys of a table": (lambda m: m.a.keys(), "KeysView"),
    "a coroutine": (lambda m: coroutine(m), "coroutine"),
    "an async generator": (lambda m: async_generator(m), "async_generator"),
    "None": (lambda m: None, "None"),
    "a number": (lambda m: 5, "int"),
    "text": (lambda m: "[]", "str"),
    "bytes": (lambda m: b"[]", "bytes"),
    "an object that can't be iterated": (lambda m: object(), "object"),
}


@pytest.mark.parametrize(("freeze", "returned"), REFUSED.values(), ids=REFUSED)
def test_items_that_would_change_are_refused(
    freeze: Freeze, returned: str, disk: SimulatedDisk
) -> None:
    """A freeze that returns its own generator, a dict, a table, a view, or no iterable of items
    makes no checkpoint. The message says what was returned and what to return, and the journal
    continues."""
    with DurableState.open(PATH, machine_of(freeze=freeze), options=options(), disk=disk) as state:
        state.update(lambda _: ["a", 1])
        with pytest.raises(TypeError) as caught:
            state.compact()
        is_type = returned not in ("None", "its own generator")
        returned_text = f"an object of type {returned}" if is_type else returned
        assert str(caught.value).startswith(f"Bank.freeze returned {returned_text}, ")
        assert "return self.table.freeze()" in str(caught.value)
        is_iterable = "not an iterable" not in str(caught.value)
        assert ("for several tables" in str(caught.value)) is is_iterable
        assert [name for name in disk.contents(PATH) if ".json" in name] == [checkpoint_name(0)]
        state.wait_durable(state.update(lambda _: ["b", 2]))


def test_an_inherited_generator_is_refused(disk: SimulatedDisk) -> None:
    """A `return super().freeze()` is refused if the inherited method is a generator function."""
    with (
        DurableState.open(PATH, Inheriting(), disk=disk) as state,
        pytest.raises(TypeError, match=r"Inheriting\.freeze returned its own generator"),
    ):
        state.compact()


def test_circular_wrappers_do_not_hang(disk: SimulatedDisk) -> None:
    """A function whose `__wrapped__` is the function itself is accepted without a hang."""
    freeze = traced(lambda m: given_items(m.a.freeze()))
    freeze.__wrapped__ = freeze  # type: ignore[attr-defined]
    with DurableState.open(PATH, machine_of(freeze=freeze), disk=disk) as state:
        state.compact()


# --- members of a machine ---


@pytest.mark.parametrize("member", ["application", "load", "apply", "freeze"])
def test_a_machine_that_lacks_a_member_is_refused(member: str, tmp_path: Path) -> None:
    """The message names the missing member, and the disk is not touched."""
    members = {name: getattr(Accounts(), name) for name in ("load", "apply", "freeze")}
    machine: Any = SimpleNamespace(application="bank/1", **members)
    delattr(machine, member)
    with pytest.raises(TypeError, match=f"SimpleNamespace has no `{member}`: a state machine has"):
        DurableState.open(tmp_path / "bank.d", machine)
    assert not [*tmp_path.iterdir()]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"application": 5}, r"Bank\.application is 5, not a string"),
    ({"application": None}, r"Bank\.application is None, not a string"),
    ({"application": lambda m: "bank/1"}, r"Bank\.application is <.*>, not a string"),
    ({"accepts": "bank/1"}, r"Bank\.accepts is 'bank/1', not a tuple of strings"),
    ({"accepts": ["bank/1"]}, r"Bank\.accepts is \['bank/1'\], not a tuple of strings"),
    ({"accepts": None}, r"Bank\.accepts is None, not a tuple of strings"),
    ({"accepts": ("bank/1", 2)}, r"Bank\.accepts is \('bank/1', 2\), not a tuple of strings"),
    ({"load": None}, r"Bank\.load is None, which can't be called"),
    ({"apply": 5}, r"Bank\.apply is 5, which can't be called"),
    ({"freeze": []}, r"Bank\.freeze is \[\], which can't be called"),
    ({"apply": coroutine}, r"Bank\.apply is an async function: calling it does not run it"),
    ({"load": generator}, r"Bank\.load is a generator function: calling it does not run it"),
]


@pytest.mark.parametrize(("members", "message"), WRONG)
def test_a_machine_with_a_wrong_member_is_refused(
    members: dict[str, Any], message: str, disk: SimulatedDisk
) -> None:
    """The message names the member, and says what is wrong with it."""
    with pytest.raises(TypeError, match=f"^{message}"):
        DurableState.open(PATH, machine_of(**members), disk=disk)
    assert disk.operations == []


def test_a_machine_is_an_instance_of_the_protocol() -> None:
    """`isinstance` checks that the members of a state machine exist."""
    assert isinstance(Accounts(), StateMachine)
    assert not isinstance(object(), StateMachine)


def test_a_class_is_no_machine(tmp_path: Path) -> None:
    """A class is refused, and the message says to pass an instance."""
    machine: Any = Accounts
    with pytest.raises(TypeError, match=r"Accounts is a class.*: pass an instance, Accounts\(\)"):
        DurableState.open(tmp_path / "bank.d", machine)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "members", [{"application": ""}, {"accepts": ()}, {"accepts": ("bank/0", "bank/1")}]
)
def test_any_string_is_an_application(members: dict[str, Any], disk: SimulatedDisk) -> None:
    """Any string is accepted as the application, even an empty one."""
    with DurableState.open(PATH, machine_of(**members), disk=disk) as state:
        assert state.update(lambda _: ["a", 1]) == 1


def test_the_error_of_a_property_is_the_cause(disk: SimulatedDisk) -> None:
    """A member whose property raises counts as missing, and the property's error is the cause."""

    def application(self: Any) -> str:
        return str(self.nmae)

    with pytest.raises(TypeError, match="Bank has no `application`") as caught:
        DurableState.open(PATH, machine_of(application=property(application)), disk=disk)
    assert "nmae" in str(caught.value.__cause__)
