"""DurableDict: its likeness to a dict, atomic changes, and crashes."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    ClosedError,
    DurableDict,
    Table,
    Tables,
    Transaction,
    TransactionTooLargeError,
)
from journal.testing import SimulatedDisk
from tests.support import PATH, TIMEOUT_S, options


def open_dict(disk: SimulatedDisk, **others: Any) -> DurableDict:
    return DurableDict.open(PATH, options=options(segment_bytes=1 << 20), disk=disk, **others)


@pytest.fixture
def settings(disk: SimulatedDisk) -> Iterator[DurableDict]:
    with open_dict(disk) as tested:
        tested["a"], tested["b"], tested[3] = 1, [2], None
        yield tested


KEYS = st.sampled_from(["a", "b", 1, b"a", ("a", 1)])
VALUES = st.one_of(st.none(), st.integers(0, 3), st.lists(st.text(max_size=1), max_size=2))
CALLS = st.one_of(
    st.tuples(st.just("__setitem__"), KEYS, VALUES),
    st.tuples(st.just("__getitem__"), KEYS),
    st.tuples(st.just("__delitem__"), KEYS),
    st.tuples(st.just("__contains__"), KEYS),
    st.tuples(st.just("get"), KEYS),
    st.tuples(st.just("get"), KEYS, VALUES),
    st.tuples(st.just("setdefault"), KEYS),
    st.tuples(st.just("setdefault"), KEYS, VALUES),
    st.tuples(st.just("pop"), KEYS),
    st.tuples(st.just("pop"), KEYS, VALUES),
    st.tuples(st.just("update"), st.dictionaries(KEYS, VALUES)),
    st.tuples(st.just("update"), st.lists(st.tuples(KEYS, VALUES))),
    st.tuples(st.just("__ior__"), st.dictionaries(KEYS, VALUES)),
    st.tuples(st.just("clear")),
)


def outcome(tested: Any, call: tuple[Any, ...]) -> Any:
    name, *arguments = call
    try:
        result = getattr(tested, name)(*arguments)
    except Exception as error:  # compared with what a dict raises
        return type(error), error.args
    return "itself" if result is tested else result


@given(st.lists(CALLS, max_size=20))
def test_it_behaves_like_a_dict(calls: list[tuple[Any, ...]]) -> None:
    """Each call returns or raises the same as on a dict, and a reopening has the same contents."""
    disk = SimulatedDisk()
    model: dict[Any, Any] = {}
    with open_dict(disk) as tested:
        for call in calls:
            assert outcome(tested, call) == outcome(model, call)
            assert tested == model
            assert len(tested) == len(model)
            assert dict(tested.items()) == model
            assert len(list(tested.values())) == len(model)
    with open_dict(disk) as tested:
        assert tested == model


def test_views_are_read_from_a_snapshot(settings: DurableDict) -> None:
    """An iteration of keys, values or items yields a snapshot, even if the dict changes."""
    keys = [key for key in settings.keys() if settings.pop("b", None) or True]  # noqa: SIM118
    assert keys == [3, "a", "b"]
    settings["b"] = 2
    values = [value for value in settings.values() if settings.pop("b", None) or True]
    assert values == [None, 1, 2]
    settings["b"] = 2
    items = [pair for pair in settings.items() if settings.pop("b", None) or True]
    assert items == [(3, None), ("a", 1), ("b", 2)]


def test_popitem_removes_the_last_key_in_order(settings: DurableDict) -> None:
    """`popitem` removes the last key in the order of keys, not of insertion."""
    assert [settings.popitem() for _ in range(3)] == [("b", [2]), ("a", 1), (3, None)]
    with pytest.raises(KeyError):
        settings.popitem()


def test_pop_does_not_hold_the_lock_while_it_decodes(
    settings: DurableDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: `pop` and `popitem` take the lock only to check that nothing has changed meanwhile."""
    monkeypatch.setattr(Tables, "update", None)
    assert settings.pop("a") == 1
    assert settings.popitem() == ("b", [2])
    assert settings.pop("a", 7) == 7


def test_pop_holds_the_lock_if_others_keep_changing_the_key(settings: DurableDict) -> None:
    """After 16 conflicts, `pop` runs under the lock, so it ends and never raises ConflictError."""
    calls = []

    def take(t: Transaction) -> Any:
        calls.append(t[settings._table]["a"])
        if len(calls) < 17:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(settings.__setitem__, "a", f"{len(calls)}").result(TIMEOUT_S)
        return calls[-1]

    assert settings._atomically(take) == "16"
    assert len(calls) == 17


def test_each_key_is_popped_once(settings: DurableDict) -> None:
    """`pop` and `popitem` are atomic: each key is returned to one thread."""
    settings.clear()
    settings.update({number: number for number in range(600)})

    def take(number: int) -> Any:
        return settings.popitem()[1] if number % 2 else settings.pop(number, -1)

    with ThreadPoolExecutor(4) as pool:
        taken = [value for value in pool.map(take, range(400)) if value >= 0]
    assert len(taken) == len({*taken}) == 600 - len(settings)


def test_setdefault_returns_what_others_have_just_set(
    settings: DurableDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`setdefault` is atomic: it never replaces a value, even one that was set during the call."""
    get = Table.get

    def get_before_others_set(table: Table, key: Any, default: Any = None) -> Any:
        value = get(table, key, default)
        if key not in table:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(table.insert, key, "of others").result(TIMEOUT_S)
        return value

    monkeypatch.setattr(Table, "get", get_before_others_set)
    assert settings.setdefault("new", "mine") == "of others"
    assert settings["new"] == "of others"


def test_clear_is_one_change(disk: SimulatedDisk) -> None:
    """P3: A crash leaves all keys or none, up to the limit of a transaction."""
    with open_dict(disk, transaction_keys_max=10) as tested:
        tested.update({number: number for number in range(10)})
        before = tested._tables.journal.last_lsn
        tested.clear()
        assert (len(tested), tested._tables.journal.last_lsn) == (0, before + 1)
        for number in range(25):
            tested[number] = number
        tested.clear()
        assert not tested


def test_clear_does_not_conflict(settings: DurableDict) -> None:
    """`clear` never raises ConflictError, and keys that are set meanwhile may stay."""
    stopping = threading.Event()

    def write() -> None:
        while not stopping.is_set():
            settings["a"] = 1
            settings.pop("a", None)

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        try:
            for _ in range(200):
                settings.clear()
        finally:
            stopping.set()
        writer.result(TIMEOUT_S)


def test_update_has_a_limit_that_open_sets(disk: SimulatedDisk) -> None:
    """`update` is one transaction, and the argument that its error names is one of `open`."""
    with open_dict(disk, transaction_keys_max=2) as tested:
        with pytest.raises(TransactionTooLargeError, match="transaction_keys_max"):
            tested.update({1: 1, 2: 2, 3: 3})
        assert not tested


def test_update_of_a_key_applies_a_function(settings: DurableDict) -> None:
    """`update` of a key returns the new value, and loses no update by other threads."""
    assert settings.update("b", lambda value: [*value, 3]) == [2, 3]
    assert settings.update("new", lambda value: value) is None
    assert settings.update("count", lambda value: value + 1, default=7) == 8
    with ThreadPoolExecutor(4) as pool:
        for _ in range(100):
            pool.submit(settings.update, "a", lambda value: value + 1)
    assert (settings["b"], settings["a"]) == ([2, 3], 101)
    with pytest.raises(TypeError):
        settings.update("b", lambda value: value, other=1)  # type: ignore[call-overload]


def test_an_update_of_a_key_needs_a_function(settings: DurableDict) -> None:
    """`update(key, None)` is no update with pairs. The error names the argument."""
    before = dict(settings.items())
    with pytest.raises(TypeError, match="function must be callable, not None"):
        settings.update("a", None)  # type: ignore[call-overload]
    assert settings == before


def test_an_update_that_fails_sets_nothing(settings: DurableDict) -> None:
    """P3: An update of several keys is one transaction, so a wrong value sets none of them."""
    before = dict(settings.items())
    with pytest.raises(ValueError, match="value is a set"):
        settings.update({"x": 1, "y": {1}})
    assert settings == before


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy], ids=lambda make: make.__name__)
def test_it_cant_be_copied(settings: DurableDict, make: Callable[[Any], Any]) -> None:
    """A copy, which would write to the original's files, raises TypeError."""
    with pytest.raises(TypeError, match="DurableDict can't be copied"):
        make(settings)


def test_it_is_opened_by_open() -> None:
    """The class refuses a path, and its error names `open`."""
    with pytest.raises(TypeError, match=r"DurableDict\.open\("):
        DurableDict("settings.d")  # type: ignore[arg-type]


def test_a_closed_dict_refuses_changes(disk: SimulatedDisk) -> None:
    """A closed dict refuses changes, shows its last state, and may be closed again."""
    tested = open_dict(disk)
    tested["a"] = 1
    states = [tested.closed]
    for _ in range(2):
        tested.close()
        states.append(tested.closed)
    assert states == [False, True, True]
    assert tested == {"a": 1}
    calls: list[Callable[[], object]] = [
        lambda: tested.update({"a": 2}),
        lambda: tested.setdefault("b", 2),
        lambda: tested.pop("a"),
        tested.popitem,
        tested.clear,
    ]
    for call in calls:
        with pytest.raises(ClosedError):
            call()
