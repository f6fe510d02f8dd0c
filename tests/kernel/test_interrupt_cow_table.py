"""A CowTable whose write is interrupted, or read by a signal handler, at every point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import pytest

from journal import CowTable
from journal._state import cow_table
from tests.kernel.interrupt_support import MANY, monitored, run_with_handler, struck

__all__ = ["monitored"]  # a fixture
pytestmark = pytest.mark.usefixtures("small_chunks")

ROWS = 5, 6, 7  # so many keys leave the last chunk full, empty or half full
ALL = 1, 2, *ROWS  # one key leaves room for a cell, and two do not
Table = CowTable[object, int]


class RaisingKey:
    """A key. The `nth` call of its `__hash__` or `__eq__` raises, counted over all keys."""

    calls: Iterator[int] = count()
    nth = -1

    def __init__(self, number: int) -> None:
        self._number = number

    def __hash__(self) -> int:
        self._count()
        return 0

    def __eq__(self, other: object) -> bool:
        self._count()
        return isinstance(other, RaisingKey) and self._number == other._number

    def _count(self) -> None:
        if next(self.calls) == self.nth:
            raise ArithmeticError


def filled(size: int, key_of: Callable[[int], object]) -> tuple[Table, dict[object, int]]:
    table: Table = CowTable()
    for number in range(size):
        table[key_of(number)] = number
    return table, dict(table)


def writes(size: int, key_of: Callable[[int], object]) -> Iterator[Callable[[Table], None]]:
    """Yield writes: each key is set, each key is removed, and one is added."""
    for number in range(size + 1):
        key = key_of(number)
        yield lambda table, key=key: table.update({key: 100})  # type: ignore[misc]
        if number < size:
            yield lambda table, key=key: table.__delitem__(key)  # type: ignore[misc]
    yield lambda table: table.popitem() and None


def check_usable(table: Table, before: dict[object, int], after: dict[object, int]) -> None:
    """Check that an interrupted write has changed all or nothing, and that others succeed."""
    for key in {**before, **after}:
        assert table.get(key) in {before.get(key), after.get(key)}
    found = {key: value for key in {**before, **after} if (value := table.get(key)) is not None}
    assert found in (before, after)
    snapshot = table.freeze()
    assert dict(table) == found
    assert sorted(snapshot) == sorted(found.values())
    model = dict(found)
    for number, key in enumerate(["other", *before, *before, *after]):
        if key in model and number % 3:
            del model[key], table[key]
        else:
            model[key] = table[key] = 200 + number
        assert dict(table) == model
        assert (len(table), sorted(table, key=id)) == (len(model), sorted(model, key=id))
    assert sorted(snapshot) == sorted(found.values())
    table.clear()
    assert not [*table]


@pytest.mark.usefixtures("monitored")
@pytest.mark.parametrize("size", ALL)
def test_a_table_survives_an_interrupted_write(size: int) -> None:
    """P6: A search never hangs after it, the key has its old value or the new one, no other key
    changes, and later writes and snapshots are right."""
    for write in writes(size, str):
        complete, _ = filled(size, str)
        write(complete)
        for nth in range(MANY):
            table, before = filled(size, str)
            snapshot = table.freeze()
            if not struck(partial(write, table), nth):
                break
            check_usable(table, before, dict(complete))
            assert sorted(snapshot) == sorted(before.values())


@pytest.mark.usefixtures("monitored")
@pytest.mark.parametrize("size", [0, 3])
def test_an_interrupted_update_adds_all_new_keys_or_none(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """P6: The same is true of several keys that get cells together."""
    monkeypatch.setattr(cow_table, "_CELLS", 8)
    new: dict[object, int] = {"a": 10, "b": 11, "c": 12}
    for nth in range(MANY):
        table, before = filled(size, str)
        if not struck(partial(table.update, new), nth):
            assert dict(table) == before | new
            break
        check_usable(table, before, before | new)


def set_again(table: Table, model: dict[object, int], removed: str) -> None:
    table[removed] = model[removed] = 100


def set_other(table: Table, model: dict[object, int], _: str) -> None:
    table["other"] = model["other"] = 100


def remove_other(table: Table, model: dict[object, int], _: str) -> None:
    del table["1"], model["1"]


def remove_last(table: Table, model: dict[object, int], _: str) -> None:
    key, value = table.popitem()
    assert model.pop(key) == value


@pytest.mark.usefixtures("monitored")
@pytest.mark.parametrize("size", ROWS)
@pytest.mark.parametrize("next_write", [set_again, set_other, remove_other, remove_last])
def test_a_table_is_right_before_and_after_the_next_write(
    size: int, next_write: Callable[[Table, dict[object, int], str], None]
) -> None:
    """P6: After an interrupted removal, a key that can't be found is neither iterated nor counted,
    and the next write, of any kind, changes only its own key."""
    for removed in ("0", "2", str(size - 1)):
        for nth in range(MANY):
            table, before = filled(size, str)
            if not struck(partial(table.__delitem__, removed), nth):
                break
            model = {key: value for key in before if (value := table.get(key)) is not None}
            assert (len(table), dict(table)) == (len(model), model)
            next_write(table, model, removed)
            check_usable(table, model, model)


@pytest.mark.usefixtures("monitored")
@pytest.mark.parametrize("size", ROWS)
def test_a_table_can_be_read_at_every_point_of_a_write(size: int) -> None:
    """A signal handler, or another thread, finds each key that stays, and iterates it once."""
    for write in writes(size, str):
        complete, before = filled(size, str)
        write(complete)
        staying = {key: value for key, value in before.items() if complete.get(key) == value}
        for nth in range(MANY):
            table, _ = filled(size, str)
            read = partial(check_read, table, staying)
            if not run_with_handler(partial(write, table), read, nth):
                break


def check_read(table: Table, staying: dict[object, int]) -> None:
    """Check that these rows are found, and that each key is iterated once."""
    assert {key: table.get(key) for key in staying} == staying
    keys = list(table)
    assert len(keys) == len({*keys})
    assert {*staying} <= {*keys}


@pytest.mark.parametrize("size", ALL)
def test_a_table_survives_a_key_that_raises(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """P6: The same as after an interrupt holds after an exception of `__hash__` or `__eq__`."""
    keys = [RaisingKey(number) for number in range(size + 1)]
    for write in writes(size, keys.__getitem__):
        complete, _ = filled(size, keys.__getitem__)
        write(complete)
        for nth in range(MANY):
            table, before = filled(size, keys.__getitem__)
            monkeypatch.setattr(RaisingKey, "calls", count())
            monkeypatch.setattr(RaisingKey, "nth", nth)
            try:
                write(table)
            except ArithmeticError:
                check_usable(table, before, dict(complete))
            else:
                break
            finally:
                monkeypatch.setattr(RaisingKey, "nth", -1)


@pytest.mark.parametrize("size", [0, 3])
def test_a_table_survives_an_update_with_a_key_that_raises(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """P6: After an exception of `__hash__` or `__eq__`, each key is set or not, and later writes
    are right."""
    monkeypatch.setattr(cow_table, "_CELLS", 8)
    keys = [RaisingKey(number) for number in range(size + 3)]
    new: dict[object, int] = dict.fromkeys(keys[size:], 100)
    for nth in range(MANY):
        table, before = filled(size, keys.__getitem__)
        monkeypatch.setattr(RaisingKey, "calls", count())
        monkeypatch.setattr(RaisingKey, "nth", nth)
        try:
            table.update(new)
        except ArithmeticError:
            monkeypatch.setattr(RaisingKey, "nth", -1)
            found: dict[object, int] = {
                key: value for key in keys if (value := table.get(key)) is not None
            }
            assert before.items() <= found.items() <= (before | new).items()
            check_usable(table, found, found)
        else:
            break
        finally:
            monkeypatch.setattr(RaisingKey, "nth", -1)


class EqualHash(RaisingKey):
    """A key whose hash is that of "b"."""

    def __hash__(self) -> int:
        return hash("b")


def test_a_table_survives_plain_keys_that_meet_one_that_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P6: The same is true of plain keys if one has the hash of another key, whose `__eq__` raises.
    Each key that counts is found."""
    monkeypatch.setattr(cow_table, "_CELLS", 8)
    key, new = EqualHash(0), {"a": 1, "b": 2, "c": 3}
    for nth in range(MANY):
        table: Table = CowTable()
        table[key] = 0
        monkeypatch.setattr(RaisingKey, "calls", count())
        monkeypatch.setattr(RaisingKey, "nth", nth)
        try:
            table.update(new)
        except ArithmeticError:
            monkeypatch.setattr(RaisingKey, "nth", -1)
            found: dict[object, int] = {
                each: value for each in (key, *new) if (value := table.get(each)) is not None
            }
            assert len(table) == len(found)
            check_usable(table, found, found)
        else:
            break
    assert nth > 1  # it was compared with "b" in the search and in the insertion
