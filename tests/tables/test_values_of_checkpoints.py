"""Stored forms of values that are loaded from a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal._tables.values import json_text, pack_value, stored_texts, unpack_value
from journal.errors import RecordError

LARGE = b'{"$bytes":"%b"}' % (b"AAAA" * 1024)
VALUES = st.recursive(
    st.none()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", 'é"\\', "$bytes", b"", b"\xff", b"x" * 5000]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "$bytes"]), inner),
)


@given(value=VALUES)
def test_a_large_value_with_bytes_takes_no_more_memory_after_an_open(value: Any) -> None:
    """It is stored as the same msgpack that a write of it stores, and not in base64."""
    packed = pack_value([value, b"x" * 5000])
    text = json_text(packed)
    assert text
    assert stored_texts([text]) == [packed]


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
