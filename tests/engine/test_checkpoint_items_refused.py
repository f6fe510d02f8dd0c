"""Items that would not be read back unchanged are refused, by their index and inner path."""

from __future__ import annotations

import enum
import math
import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import CheckpointItemError
from journal._format.checkpoint import LINE_BYTES_MAX
from journal._format.items import NESTING_MAX
from journal.testing import SimulatedDisk
from tests.engine.compaction_support import compact
from tests.engine.items_support import ITEMS, KEYS, items_after, nested
from tests.support import logged, names, open_on, put


class Number(enum.IntEnum):
    ONE = 1


class Word(enum.StrEnum):
    ONE = "one"


class Pair(NamedTuple):
    one: int
    two: int


class OwnList(list[Any]):
    pass


class OwnBytes(bytes):
    pass


class OwnFloat(float):
    pass


class Unprintable:
    def __repr__(self) -> str:
        raise ZeroDivisionError


BAD_VALUES: dict[str, Callable[[], Any]] = {
    "tuple": lambda: (1, 2),
    "empty tuple": tuple,
    "set": lambda: {1},
    "NamedTuple": lambda: Pair(1, 2),
    "IntEnum": lambda: Number.ONE,
    "StrEnum": lambda: Word.ONE,
    "OrderedDict": lambda: OrderedDict(a=1),
    "defaultdict": lambda: defaultdict(int, a=1),
    "list subclass": lambda: OwnList([1]),
    "bytes subclass": lambda: OwnBytes(b"x"),
    "float subclass": lambda: OwnFloat(1.5),
    "bytearray": lambda: bytearray(b"x"),
    "memoryview": lambda: memoryview(b"x"),
    "NaN": lambda: math.nan,
    "inf": lambda: -math.inf,
    "surrogate": lambda: "a\ud800",
    "huge int": lambda: 10**5000,
    "Timestamp": lambda: msgpack.Timestamp(1),
    "ExtType": lambda: msgpack.ExtType(1, b"x"),
    "complex": lambda: 1j,
    "object without a repr": Unprintable,
}
BAD_KEYS: dict[str, Callable[[], Any]] = {
    "int": lambda: 1,
    "bool": lambda: True,
    "None": lambda: None,
    "float": lambda: 1.5,
    "bytes": lambda: b"k",
    "tuple": lambda: (1,),
    "huge int": lambda: 10**5000,
    "StrEnum": lambda: Word.ONE,
    "surrogate": lambda: "\udfff",
    "object without a repr": Unprintable,
}
STEPS = st.lists(
    st.tuples(st.just("list"), st.integers(0, 2)) | st.tuples(st.just("map"), KEYS), max_size=5
)


def refused(*items: Any) -> CheckpointItemError:
    """Return the error for `items`. Nothing of the checkpoint may remain, and the log must
    continue."""
    disk = SimulatedDisk()
    with open_on(disk) as journal:
        put(journal, 1)
        with pytest.raises(CheckpointItemError) as caught:
            compact(journal, *items)
        assert names(disk, ".json") == names(disk, ".tmp") == []
        put(journal, 2)
        compact(journal, "good").close()
        put(journal, 3)
    with open_on(disk) as journal:
        assert (journal.last_lsn, logged(journal, None)) == (3, [3])
    return caught.value


def wrapped(value: Any, steps: list[tuple[str, Any]]) -> tuple[Any, str]:
    """Wrap `value` in an item by `steps`. Return the item and the path to the value."""
    path = ""
    for kind, at in reversed(steps):
        path = f"[{at!r}]{path}"
        value = [b"x"] * at + [value, 2.5] if kind == "list" else {at: value}
    return value, path


@given(kind=st.sampled_from([*BAD_VALUES]), steps=STEPS, before=st.lists(ITEMS, max_size=3))
def test_an_unsupported_value_is_refused_with_its_path(
    kind: str, steps: list[tuple[str, Any]], before: list[Any]
) -> None:
    """P6: A value that JSON or UTF-8 would change or can't represent is refused, at any place."""
    item, path = wrapped(BAD_VALUES[kind](), steps)
    error = refused(*before, item)
    assert (error.index, error.item_path) == (len(before), path)
    assert str(error).startswith(
        f"item {len(before)} of the checkpoint{f', at {path}' if path else ''}: "
    )
    assert error.reason in str(error)


@given(kind=st.sampled_from([*BAD_KEYS]), steps=STEPS, others=st.dictionaries(KEYS, ITEMS))
def test_a_key_other_than_str_is_refused_with_the_path_of_its_map(
    kind: str, steps: list[tuple[str, Any]], others: dict[Any, Any]
) -> None:
    """P6: JSON turns some keys into strings, so a checkpoint refuses them and names their map."""
    item, path = wrapped({**others, BAD_KEYS[kind](): 1}, steps)
    error = refused(item)
    assert (error.index, error.item_path) == (0, path)
    assert "key" in error.reason


def test_a_refusal_names_item_path_and_rule() -> None:
    """The message names the index, the path inside the item and the rule. The error is a
    JournalError and a ValueError, and its fields give the same facts."""
    error = refused({}, {"rows": [0, 1, 2, {"key": {1: 10}}]})
    assert isinstance(error, ValueError)
    assert str(error) == (
        "item 1 of the checkpoint, at ['rows'][3]['key']: a map's key is 1, of type int; "
        "a checkpoint holds plain str keys only: convert it first"
    )
    assert (error.index, error.item_path) == (1, "['rows'][3]['key']")
    assert str(refused((1,))).startswith("item 0 of the checkpoint: a value is of type tuple; ")


@pytest.mark.parametrize(
    ("item", "hint"),
    [
        (Number.ONE, "of type Number, a subclass of int; .*: convert it to a plain int first"),
        (Word.ONE, "of type Word, a subclass of str; .*: convert it to a plain str first"),
        (OrderedDict(a=1), "a subclass of dict; .*: convert it to a plain dict first"),
        (OwnList([1]), "a subclass of list; .*: convert it to a plain list first"),
        (Pair(1, 2), "of type Pair; .*: convert it to a list first"),
        ({1}, "of type set; .*: convert it to a list first"),
        (bytearray(b"x"), "of type bytearray; .*: convert it to one of these first"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_refusal_advises_a_conversion(item: Any, hint: str) -> None:
    """The message advises a plain value for an instance of a subclass, and a list for a tuple or a
    set."""
    assert re.search(hint, str(refused(item)))


def test_a_refusal_stays_short() -> None:
    """A long key, a deep path or a large value does not make the message long."""
    deep: Any = {"k" * 10_000: {1}}
    for _ in range(NESTING_MAX - 2):
        deep = ["x" * 1000, deep]
    assert len(str(refused(deep))) < 600
    assert len(str(refused({("k" * 10_000,): 1}))) < 600
    assert len(str(refused("\ud800" * 10_000))) < 600


def cycle(kind: str) -> Any:
    value: Any = [] if kind == "list" else {}
    inner = [["x", value]] * 3
    if kind == "list":
        value.extend([inner, value])
    else:
        value["$bytes"] = inner
    return value


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ([nested([])], "nests deeper than"),
        ([nested([b"x"])], "nests deeper than"),
        (nested([], map_key="$bytes"), None),
        ({"k": nested(1, map_key="k")}, "nests deeper than"),
        (cycle("list"), "contains itself"),
        (cycle("dict"), "contains itself"),
    ],
    ids=["lists", "bytes", "at the bound", "maps", "a list in itself", "a map in itself"],
)
def test_an_item_nested_too_deep_is_refused(
    disk: SimulatedDisk, item: Any, reason: str | None
) -> None:
    """P6: An item so deep that a JSON reader might refuse it is never written."""
    with open_on(disk) as journal:
        put(journal, 1)
        if reason is None:
            compact(journal, item)
            return
        with pytest.raises(CheckpointItemError, match=reason):
            compact(journal, item)


def test_an_item_may_contain_the_same_value_twice(disk: SimulatedDisk) -> None:
    """A shared value is not a cycle, also with bytes and dollar keys."""
    shared: Any = [{"$bytes": [b"x"]}]
    with open_on(disk) as journal:
        put(journal, 1)
        compact(journal, [shared, shared, {"k": shared}])
    assert items_after(disk) == [[shared, shared, {"k": shared}]]


def test_a_line_over_the_bound_is_refused(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item whose line is too long for readers is refused like any other, by its index."""
    assert LINE_BYTES_MAX == 1 << 26
    monkeypatch.setattr("journal._format.checkpoint.LINE_BYTES_MAX", 1000)
    with open_on(disk) as journal:
        put(journal, 1)
        with pytest.raises(CheckpointItemError, match=r"item 1 of the checkpoint: .* over 1000"):
            compact(journal, "x", b"x" * 800)
        compact(journal, "x", b"x" * 700)
    assert items_after(disk) == ["x", b"x" * 700]
