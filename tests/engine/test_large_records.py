"""Large records: they are checked as the unpacker would, without making their objects."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal._format import record
from journal._format.large_record import measure_large

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=300)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
    | st.builds(msgpack.Timestamp, st.integers(0, 2**34), st.integers(0, 999_999_999))
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.dictionaries(
            st.text(max_size=5) | st.integers(0, 9) | st.booleans(), inner, max_size=20
        )
    ),
    max_leaves=40,
)


def unpacks(data: bytes) -> bool:
    try:
        msgpack.unpackb(data, strict_map_key=False)
    except Exception:
        return False
    return True


def is_whole(data: bytes) -> bool:
    try:
        measure_large(memoryview(data))
    except ValueError:
        return False
    return True


@given(values)
def test_a_record_that_unpacks_is_whole(value: Any) -> None:
    """P4: Each value that packs passes the check."""
    assert is_whole(msgpack.packb(value, strict_types=True))


@given(values, st.data())
def test_the_check_agrees_with_the_unpacker(value: Any, data: st.DataObject) -> None:
    """P4: The check refuses changed, cut and lengthened bytes exactly where the unpacker does."""
    packed = bytearray(msgpack.packb(value, strict_types=True))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    packed = packed[: data.draw(st.integers(0, len(packed)))] + data.draw(st.binary(max_size=3))
    assert is_whole(bytes(packed)) == unpacks(bytes(packed))


@pytest.mark.parametrize("levels", [1000, 1023, 1024, 1025, 2000])
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1k"])
def test_deep_nesting_is_refused_like_the_unpacker_does(levels: int, opening: bytes) -> None:
    """P9: The check allows as many levels as the unpacker."""
    data = opening * levels + b"\xc0"
    assert is_whole(data) == unpacks(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\xa1\xff",
        b"\xd9\x02\xc3\x28",
        b"\x81\x90\xc0",
        b"\xc1",
        b"\xd4\xff\x00",
        b"\xdd\xff\xff\xff\xff",
        b"",
        b"\xc0\xc0",
    ],
)
def test_what_no_record_holds_is_refused(data: bytes) -> None:
    """P4: Strings that are not UTF-8, keys that are arrays, bytes that begin no value, timestamps
    of a wrong size, and counts that no bytes follow are refused."""
    assert not unpacks(data)
    assert not is_whole(data)


def test_checking_a_large_record_takes_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """P9: A record of empty maps is checked without making them."""
    monkeypatch.setattr(record, "LARGE_BYTES", 1 << 10)
    count = 1 << 16
    data = b"\xdd" + count.to_bytes(4, "big") + b"\x80" * count
    tracemalloc.start()
    try:
        assert record.check_spans(data, [(0, len(data), 1)]) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(data)  # the maps would take 70 times that size
    with pytest.raises(ValueError, match="first"):
        record.check_spans(data + b"\x80", [(0, len(data) + 1, 1)])
    with pytest.raises(ValueError, match="does not unpack"):
        record.check_spans(data[:-1] + b"\xc1", [(0, len(data), 1)])
