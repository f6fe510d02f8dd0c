"""Errors for records: they name the place of the part that msgpack can't hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import DurableState, Journal, RecordError, Tables, pack
from journal._format.wrong_place import wrong_place
from journal.testing import SimulatedDisk
from tests.engine.state_support import state_on
from tests.support import open_on


class Pair(NamedTuple):
    a: int
    b: int


class Text(str):
    __slots__ = ()


PLACES: dict[str, tuple[Any, str]] = {
    "a set": ({1}, "record is a set"),
    "a set in a list in a dict": ({"a": [1, 2, 3, {4}]}, "record['a'][3] is a set"),
    "a tuple": ([(1, 2)], "record[0] is a tuple"),
    "a named tuple": ([Pair(1, 2)], "record[0] is a Pair"),
    "a subclass of str": ({"a": {"b": Text("x")}}, "record['a']['b'] is a Text"),
    "an object": ([None, object()], "record[1] is an object"),
    "a long int": ({5: 1 << 64}, "record[5] is an int of more than 64 bits"),
    "half a pair": ({"a": "x\ud800"}, "record['a'] has half a surrogate pair, '\\ud800', at 1"),
    "a tuple as a key": ({"a": {(1,): 2}}, "a key of record['a'] is a tuple"),
}
Write = Callable[[Any, Any], object]
WRITES: dict[str, Write] = {
    "journal.append": lambda journal, record: journal.append(record),
    "journal.append_batch": lambda journal, record: journal.append_batch([0, record]),
    "pack": lambda journal, record: pack(record),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("write", WRITES)
def test_the_error_names_the_place(disk: SimulatedDisk, write: str, place: str) -> None:
    """A RecordError names the path to the part in the record, and its type."""
    record, where = PLACES[place]
    with open_on(disk) as journal:
        with pytest.raises(RecordError, match=re.escape(f"can't be packed: {where}; use only")):
            WRITES[write](journal, record)
        assert journal.last_lsn == 0


@pytest.mark.parametrize("place", PLACES)
def test_the_error_of_a_state_names_the_place(disk: SimulatedDisk, place: str) -> None:
    """A RecordError of `update` and `update_batch` names the place, too."""
    record, where = PLACES[place]
    with state_on(disk) as state:
        assert isinstance(state, DurableState)
        for change in (
            lambda: state.update(lambda _: record),
            lambda: state.update_batch(lambda _: [["a", 1], record]),
            lambda: state.update_with_result(lambda _: (record, 1)),
        ):
            with pytest.raises(RecordError, match=re.escape(where)):
                change()
        assert state.journal.last_lsn == 0


def test_a_search_under_a_lock_is_bounded(disk: SimulatedDisk) -> None:
    """A place far inside a record is not looked for while a lock is held, but it is in `pack`."""
    record = [*range(100_000), {1}]
    with open_on(disk) as journal:
        assert isinstance(journal, Journal)
        with pytest.raises(RecordError, match="can not serialize 'set' object"):
            journal.append(record)
    with pytest.raises(RecordError, match=re.escape("record[100000] is a set")):
        pack(record)


SCALARS = st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.binary()
LEAVES = SCALARS | st.frozensets(st.integers(), max_size=1) | st.tuples(st.integers())
KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.tuples(st.integers())
VALUES = st.recursive(LEAVES, lambda each: st.lists(each) | st.dictionaries(KEYS, each))


@given(VALUES)
def test_a_place_is_named_if_and_only_if_msgpack_refuses(value: Any) -> None:
    """`wrong_place` names a place in just those values that msgpack can't pack."""
    try:
        msgpack.packb(value, strict_types=True)
    except (TypeError, ValueError, OverflowError):
        assert wrong_place(value, "record").startswith(("record", "a key of record"))
    else:
        assert wrong_place(value, "record") == ""


@pytest.mark.parametrize("code", [-1, -7, 200])
def test_an_extension_of_a_wrong_code_is_refused_where_it_is_decoded(
    disk: SimulatedDisk, code: int
) -> None:
    """A forged ExtType is refused, with its place, by `pack`, an update and a table."""
    forged = {"a": [msgpack.ExtType(5, b"x")._replace(code=code)]}
    place = re.escape(f"['a'][0] is an ExtType of code {code}, not of 0 to 127")
    with pytest.raises(RecordError, match=f"record{place}"):
        pack(forged)
    with state_on(disk) as state, pytest.raises(RecordError, match=f"record{place}"):
        state.update(lambda _: forged)
    with Tables.open("tables", disk=disk) as tables, pytest.raises(RecordError) as caught:
        tables.table("t")["k"] = forged
    assert f"value{place}".replace("\\", "") in str(caught.value)
