"""Rows of a range, whose keys and values are decoded together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgpack import Timestamp

from journal import Tables
from journal._tables import table_view
from journal._tables.chunked_map import CHUNK_KEYS_MAX, Stored
from journal._tables.keys import Key, decode_key, decode_keys, encode_key
from journal._tables.values import pack_value, stored_texts, unpack_value, unpack_values
from journal.errors import RecordError

TEXTS = st.text(st.sampled_from("a\n \0é"), max_size=4)
ELEMENTS = st.one_of(TEXTS, st.integers(-2, 2), st.binary(max_size=2))
KEYS = st.one_of(ELEMENTS, st.tuples(ELEMENTS), st.tuples(ELEMENTS, ELEMENTS))
WHOLE = pack_value("in two pieces")
DEEP: Any = []
for _ in range(400):
    DEEP = [DEEP]
STORED: st.SearchStrategy[Stored] = st.sampled_from(
    [
        pack_value({"a": [1, b"b"]}),
        pack_value(Timestamp(1)),
        pack_value(DEEP),
        pack_value("x" * 40_000),
        pack_value(None, 1),
        (WHOLE[:1], WHOLE[1:]),
        *stored_texts([b'{"a":1}', b"[2]"]),
    ]
)


@given(keys=st.sets(KEYS))
@example(keys={"a\n b", "c"})
@example(keys={"a\n", " b", ""})
@example(keys={1, "a\n b"})
@example(keys={"a\n b", b"c"})
def test_keys_decoded_together_equal_those_decoded_alone(keys: set[Key]) -> None:
    """The keys of a range are the same, whichever characters and types they have."""
    encoded = sorted(map(encode_key, keys))
    for some in encoded, encoded[::-1]:
        assert list(decode_keys(some)) == list(map(decode_key, some))


@given(values=st.lists(STORED))
def test_values_decoded_together_equal_those_decoded_alone(values: list[Stored]) -> None:
    """The values of a range are the same, in whichever forms they are stored."""
    assert list(unpack_values(tuple(values))) == list(map(unpack_value, values))


def test_a_value_that_cant_be_read_hides_no_row_before_it() -> None:
    """The rows before it are read, and the error is raised at its own row."""
    rows = iter(unpack_values((pack_value(1), b"\xc7\x01\x80x", pack_value(2))))
    assert next(rows) == 1
    with pytest.raises(RecordError):
        next(rows)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [0, 1, 3, CHUNK_KEYS_MAX, 150, 300, sys.maxsize + 1])
def test_a_range_decodes_no_row_after_its_limit(
    app: Tables, limit: int, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A range with a limit, or of which a caller takes only one row, decodes no other. One of which
    a caller takes a few decodes at most four times as many."""
    table, numbers = app.table("numbers"), list(range(200))
    for number in numbers:
        table[number] = number
    sizes: list[int] = []

    def counted(values: Sequence[Stored]) -> Any:
        sizes.append(len(values))
        return unpack_values(values)

    monkeypatch.setattr(table_view, "unpack_values", counted)
    expected = [(number, number) for number in (numbers[::-1] if reverse else numbers)][:limit]
    assert list(table.range(limit=limit, reverse=reverse)) == expected
    assert sum(sizes) == len(expected)
    sizes.clear()
    assert next(table.range(reverse=reverse)) == (numbers[-reverse],) * 2
    assert sizes == [1]
    for taken in (3, 6, 25):
        sizes.clear()
        assert len(list(islice(table.range(reverse=reverse), taken))) == taken
        assert taken <= sum(sizes) <= 4 * taken
