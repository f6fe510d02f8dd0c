"""Packed records: those of a large frame are made one at a time, and too large ones not at all."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal import LargeRecord
from journal._format import packed_records, record
from journal._format.large_record import measure_large
from journal._format.packed_records import PackedRecords, read_spans
from tests.engine.test_large_records import values
from tests.tiers import examples


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let frames and records of a few bytes count as large."""
    monkeypatch.setattr(packed_records, "_AT_ONCE_BYTES", 8)
    monkeypatch.setattr(packed_records, "LARGE_BYTES", 8)
    monkeypatch.setattr(record, "LARGE_BYTES", 8)


def packed(records: list[Any]) -> bytes:
    return b"head" + b"".join(map(msgpack.packb, records)) + b"tail"


def read(records: list[Any], memory_max: int | None) -> Any:
    data = packed(records)
    return read_spans(data, [(4, len(data) - 4, len(records))], memory_max)


@settings(max_examples=examples(30))
@given(st.lists(values, max_size=8), st.sampled_from([None, 1 << 40]), st.data())
def test_a_large_frame_has_the_same_records(
    records: list[Any], memory_max: int | None, data: st.DataObject
) -> None:
    """P4: The records, their number, and each slice are those that were packed."""
    made = read(records, memory_max)
    assert (list(made), len(made)) == (records, len(records))
    begin = data.draw(st.integers(0, len(records)))
    part = made[begin:]
    assert list(part) == records[begin:]
    assert list(part[1:3]) == records[begin:][1:3]
    assert [made[index] for index in range(len(records))] == records


def test_a_damaged_record_is_refused_before_the_first_is_made() -> None:
    """P4: A payload is checked whole, so nobody sees the first records of one that is damaged."""
    data = packed([["a"] * 9, "b"])[:-5] + b"\xc1" + b"tail"
    with pytest.raises(ValueError, match="does not unpack"):
        read_spans(data, [(4, len(data) - 4, 2)])


def test_a_record_over_the_limit_is_not_made() -> None:
    """P9: A record that would take too much memory is described, and the others are made. Its
    elements are made one at a time, and the large ones among them are described, too."""
    maps: list[Any] = [{} for _ in range(1000)]
    first, large, last = read([["small"], ["rows", maps, 7], "end"], 30_000)
    assert (first, last) == (["small"], "end")
    assert isinstance(large, LargeRecord)
    assert large.size_bytes == len(msgpack.packb(["rows", maps, 7]))
    assert 60_000 < large.memory_bytes < 90_000
    kind, inner, number = large.elements()
    assert (kind, number) == ("rows", 7)
    assert list(inner.elements()) == maps
    [text] = read(["x" * 100_000], 30_000)
    assert (text.size_bytes, list(text.elements())) == (100_005, [])


SHAPES: dict[str, Any] = {
    "small numbers": [1, 200, -5] * 4000,
    "numbers": list(range(10**6, 10**6 + 9000)),
    "negative numbers of a byte": [-30] * 9000,
    "floats": [n / 7 for n in range(9000)],
    "texts": [f"text {n}" for n in range(9000)],
    "umlauts": [f"\u00e4\u00f6\u00fc {n}" for n in range(9000)],
    "smileys": [f"\U0001f600 {n}" for n in range(9000)],
    "bytes": [bytes([n % 256]) * 100 for n in range(9000)],
    "one text": "x" * 10**6,
    "empty maps": [{} for _ in range(9000)],
    "small maps": [{"a": n, "b": "b"} for n in range(1000, 9000)],
    "a large map": {f"key {n}": None for n in range(9000)},
    "empty lists": [[] for _ in range(9000)],
    "nested lists": [[[n]] for n in range(1000, 9000)],
    "ext types": [msgpack.ExtType(5, b"abc") for _ in range(9000)],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_estimate_of_memory_is_near_the_truth(shape: str) -> None:
    """P9: The estimate is at most a quarter too low, and at most twice too high."""
    data = msgpack.packb(SHAPES[shape])
    # The least of three, because the interpreter's table of interned texts may grow meanwhile. The
    # keys differ each time, because a text that is interned already takes no memory.
    memory_bytes = min(memory_of(data.replace(b"key", b"ke%d" % n)) for n in range(3))
    assert 0.75 < measure_large(memoryview(data)) / memory_bytes < 2


def memory_of(data: bytes) -> int:
    """Return the bytes of memory that the objects of a packed record take."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        made = msgpack.unpackb(data, strict_map_key=False)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert msgpack.packb(made) == data
    return after - before


def test_one_record_at_a_time_is_in_memory() -> None:
    """P9: Reading a frame of many records takes the memory of one of them, beside the bytes."""
    records: list[list[Any]] = [[{} for _ in range(500)] for _ in range(40)]
    made = read(records, None)
    assert isinstance(made, PackedRecords)
    tracemalloc.start()
    try:
        for _ in made:
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 500 * 72
