"""Large values in a checkpoint, and their stored forms after it is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from journal._format.items import encode_item, encode_large
from journal._tables.values import json_text, pack_value, stored_texts, unpack_value
from journal.errors import CheckpointItemError, RecordError
from tests.tiers import examples

LARGE = b'{"$bytes":"%b"}' % (b"AAAA" * 1024)
VALUES = st.recursive(
    st.none()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "\x1e", 'é"\\', "$bytes", b"", b"\xff", b"x" * 5000]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "$bytes"]), inner),
)


@given(value=VALUES)
@settings(max_examples=examples(30))
def test_a_large_value_with_bytes_takes_no_more_memory_after_an_open(value: Any) -> None:
    """It is stored as the same msgpack that a write of it stores, and not in base64."""
    packed = pack_value([value, b"x" * 5000])
    text = json_text(packed)
    assert text
    assert stored_texts([text]) == [packed]


@given(value=VALUES)
@settings(max_examples=examples(30))
@example(value={"$bytes": "\x1e"})
@example(value=(1,))
@example(value=math.nan)
@example(value="\ud800")
def test_a_large_item_has_the_line_of_any_other(value: Any) -> None:
    """P6: Large bytes are encoded apart from the rest of their item, with the same result."""
    item = [value, b"x" * 5000, {"k": b"y" * 6000}]
    assert attempt(encode_large, item) == attempt(encode_item, item)


def attempt(encode: Callable[[Any, int], bytes], item: Any) -> bytes | str:
    try:
        return encode(item, 7)
    except CheckpointItemError as error:
        return str(error)


@pytest.mark.parametrize(
    "text", [b"1", b'"%b"' % (b"x" * 5000), b'["\\u0024bytes",{"$bytes":"QQ=="}]']
)
def test_other_values_stay_texts(text: bytes) -> None:
    """Decoding them would save little memory, and take most of the time of an open."""
    assert stored_texts([text]) == [b"\xc1" + text]
    assert json_text(stored_texts([text])[0]) == text


@pytest.mark.parametrize(
    ("inner", "value"),
    [(b"18446744073709551616", 1 << 64), (b'"\\ud800"', "\ud800")],
)
def test_a_large_value_that_msgpack_cant_hold_stays_a_text(inner: bytes, value: Any) -> None:
    """A checkpoint that another program wrote loses no value, and its next one has the text."""
    text = b"[%b,%b]" % (LARGE, inner)
    (stored,) = stored_texts([text])
    assert unpack_value(stored) == [bytes(3072), value]
    assert json_text(stored) == text


@pytest.mark.parametrize("inner", [b'{"$bytes":"!"}', b"nil", b'"\xff"', b"[" * 2000])
def test_a_large_value_that_cant_be_decoded_stays_a_text(inner: bytes) -> None:
    """Its reads report the damage, and the other rows can be read."""
    (stored,) = stored_texts([b"[%b,%b]" % (LARGE, inner)])
    with pytest.raises(RecordError):
        unpack_value(stored)
