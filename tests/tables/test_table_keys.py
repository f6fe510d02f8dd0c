"""Keys of tables: their encoding keeps their order, and their prefixes are ranges of it."""

from __future__ import annotations

from enum import IntEnum
from functools import cmp_to_key
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal._tables.keys import INT_MAX, INT_MIN, Key, decode_key, encode_key, prefix_bounds

ELEMENTS = st.one_of(
    st.integers(INT_MIN, INT_MAX),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text("\0a\xff"),
    st.binary(),
    st.binary().map(lambda data: data.replace(b"a", b"\0").replace(b"b", b"\xff")),
)
KEYS = st.one_of(ELEMENTS, st.lists(ELEMENTS, min_size=1, max_size=4).map(tuple))


class Color(IntEnum):
    RED = 1


def rank(key: Key) -> int:
    """Return the place of the key's type in the order."""
    return (int, str, bytes, tuple).index(type(key))


def compare(a: Any, b: Any) -> int:
    """Compare two keys by the documented order."""
    if rank(a) != rank(b):
        return rank(a) - rank(b)
    if type(a) is tuple:
        for x, y in zip(a, b, strict=False):
            if result := compare(x, y):
                return result
        return len(a) - len(b)
    return int(a > b) - int(a < b)


@given(st.lists(KEYS))
def test_encoded_keys_sort_like_keys(keys: list[Key]) -> None:
    """Integers come before strings, bytes and tuples; a tuple comes after its prefixes."""
    expected = sorted(keys, key=cmp_to_key(compare))
    assert [decode_key(data) for data in sorted(map(encode_key, keys))] == expected


@pytest.mark.parametrize(
    "key",
    [
        ("a", 256),
        ("a", 0),
        ("", 1 << 32),
        ("a", b""),
        ("a", b"\0"),
        ("a", -1 << 63),
        ("\0", ""),
        (0, ""),
    ],
)
def test_a_tuple_that_ends_like_one_of_strs_is_decoded(key: Key) -> None:
    """The end of an int or of bytes is not taken for the end of a str, nor an escape for an end."""
    assert decode_key(encode_key(key)) == key


@given(KEYS)
def test_a_key_is_decoded_as_it_was(key: Key) -> None:
    """Decoding gives an equal key of the same types."""
    decoded = decode_key(encode_key(key))
    assert decoded == key
    assert type(decoded) is type(key)


@given(KEYS, KEYS)
def test_different_keys_are_encoded_differently(a: Key, b: Key) -> None:
    """Different keys have different encodings, even 1 and (1,), or "a" and b"a"."""
    assert (encode_key(a) == encode_key(b)) == (compare(a, b) == 0)


@given(KEYS, st.one_of(st.text("\0a\xff"), st.binary(max_size=3), st.lists(ELEMENTS, min_size=1)))
def test_a_prefix_is_a_range(key: Any, prefix: Any) -> None:
    """A tuple matches leading elements; a str or bytes matches leading characters or bytes."""
    prefix = tuple(prefix) if type(prefix) is list else prefix
    start, stop = prefix_bounds(prefix)
    matches = type(key) is type(prefix) and key[: len(prefix)] == prefix
    assert (start <= encode_key(key) < stop) == matches


@given(st.lists(ELEMENTS, min_size=1, max_size=3).map(tuple), ELEMENTS)
def test_a_tuples_own_prefixes_match(key: tuple[Any, ...], last: Any) -> None:
    """A tuple matches itself and each of its prefixes."""
    start, stop = prefix_bounds(key)
    assert start <= encode_key(key) < stop
    assert start <= encode_key((*key, last)) < stop


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (True, TypeError, "key is True, of type bool"),
        (1.5, TypeError, "key is 1.5, of type float"),
        (None, TypeError, "key is None, of type NoneType"),
        (Color.RED, TypeError, "of type Color"),
        (("a", True), TypeError, r"key\[1\] is True, of type bool"),
        (("a", ("b",)), TypeError, r"key\[1\] is \('b',\), of type tuple"),
        (["a"], TypeError, r"key is \['a'\], of type list"),
        ((), ValueError, "key is an empty tuple"),
        (1 << 64, ValueError, "key is 18446744073709551616, an int of more than 64 bits"),
        ((0, -(1 << 63) - 1), ValueError, r"key\[1\] is -9223372036854775809"),
        ("\ud800", ValueError, "half a surrogate pair, .* at 0"),
        (("a", "b\ud800"), ValueError, r"key\[1\] has half a surrogate pair, .* at 1"),
    ],
)
def test_a_wrong_key_names_its_element(key: Any, error: type[Exception], message: str) -> None:
    """The error for a wrong key says which element is wrong, and what a key may be."""
    with pytest.raises(error, match=message):
        encode_key(key)


@pytest.mark.parametrize("prefix", [5, 1.5, None, True, ()])
def test_a_wrong_prefix_is_refused(prefix: Any) -> None:
    """A number, an empty tuple, and any other type are refused as a prefix."""
    with pytest.raises((TypeError, ValueError), match="prefix is"):
        prefix_bounds(prefix)


@given(st.binary(max_size=24))
def test_any_bytes_are_a_key_or_refused(data: bytes) -> None:
    """P9: Bytes from a disk decode to a key, or raise ValueError."""
    try:
        key = decode_key(data)
    except (ValueError, IndexError):
        return
    assert decode_key(encode_key(key)) == key
