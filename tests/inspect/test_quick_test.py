"""The quick test of `log -g`: it never passes over a record whose shown text matches."""

from __future__ import annotations

import io
import re
import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_inspect.commands.quick_test import quick_test
from journal_inspect.rendering.entries import Lines
from journal_inspect.rendering.kinds import fields_of
from journal_inspect.rendering.renderer import Renderer
from msgpack import ExtType, Timestamp

from journal import Entry, Journal, JournalReader
from journal.testing import SimulatedDisk

BOOT = ["boot", "subagents/1", "boot", 1, 1]
WORDS = ["boom", "\nboom", "abêboom", "\x07\U000e0100ood", "it's", 'a"b', "deaf\ud7ffade"]
STRINGS = st.one_of(st.sampled_from(WORDS), st.text(max_size=6))
ATOMS = st.one_of(
    STRINGS,
    st.none(),
    st.booleans(),
    st.integers(-9, 99),
    st.floats(),
    st.binary(max_size=9),
    st.builds(ExtType, st.integers(0, 9), st.binary(max_size=9)),
    st.builds(Timestamp, st.integers(0, 1 << 40), st.integers(0, 999_999_999)),
)
VALUES = st.recursive(
    ATOMS,
    lambda values: st.one_of(
        st.lists(values, max_size=3),
        st.dictionaries(STRINGS, values, max_size=3),
        st.dictionaries(st.integers(0, 3), values, max_size=3),
    ),
    max_leaves=5,
)
OF_A_MANAGER = st.one_of(
    st.tuples(st.just("usage"), STRINGS, VALUES, VALUES, VALUES),
    st.tuples(st.just("cancel"), STRINGS, VALUES, VALUES),
).map(list)
OF_TABLES = st.lists(st.lists(VALUES, max_size=4), max_size=2).map(lambda writes: ["set", *writes])
RECORDS = st.one_of(VALUES, OF_A_MANAGER, OF_TABLES)


def _lines(first: Any) -> Lines:
    disk = SimulatedDisk()
    with Journal.open("j", disk=disk) as journal:
        journal.append(first)
        journal.wait_durable()
    return Lines(JournalReader.open("j", disk=disk), Renderer(), "full")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("first", [BOOT, {"of": "another program"}])
def test_a_quick_test_passes_over_no_match(
    monkeypatch: pytest.MonkeyPatch, encoding: str, first: Any
) -> None:
    """Every part of a record's shown text, as a pattern, passes the quick test of the record."""
    lines = _lines(first)

    @given(RECORDS, st.data())
    def check(record: Any, data: st.DataObject) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
            body = lines.body(Entry(2, 1, 1, record))
        runs = [run.span() for run in re.finditer(r"[A-Za-z_]+", body)] or [(0, len(body))]
        low, high = data.draw(st.sampled_from(runs))
        begin = data.draw(st.integers(low, high))
        pattern = re.compile(re.escape(body[begin : data.draw(st.integers(begin, high))]))
        assert pattern.search(body)
        may_match = quick_test(pattern)
        assert may_match is None or may_match(record)

    check()


@pytest.mark.parametrize(
    ("pattern", "is_possible"),
    [
        *(("oo+m$", True), (r"\bzoom\b", True), ("zoom.*", True), ("zoo?m", True)),
        *(("zoom|x", False), ("(?i)zoom", False), (r"\x7aoom", False), ("(zoom)?", False)),
        *(("z{0}oom", False), ("[z]oom", False), ("12", False), ("", False), ("fade", False)),
        *(("uncaf", True), ("udeaf", False), ("null", False), ("alse", False), ("n?", False)),
    ],
)
def test_a_quick_test_needs_letters_that_each_match_has(pattern: str, is_possible: bool) -> None:
    """A pattern that may match without any of its letters has no quick test."""
    may_match = quick_test(re.compile(pattern))
    assert (may_match is not None) == is_possible
    if may_match:
        assert not may_match(["usage", "agent_1", 1, 1, {"a": "x"}])
        assert not may_match("text")


def test_a_quick_test_finds_letters_in_names_of_fields() -> None:
    """The name of a field of the record's kind passes, as do values that are shown as base64."""
    may_match = quick_test(re.compile("input_tokens"))
    assert may_match is not None
    assert may_match(["usage", "agent_1", 1, 1, 1])
    assert not may_match(["cancel", "agent_1", 1, None])
    assert all(map(may_match, [b"x", [Timestamp(1, 1)], {"a": ExtType(1, b"x")}]))
    deep: list[Any] = ["input_tokens"]
    for _ in range(sys.getrecursionlimit()):
        deep = [deep]
    assert may_match(deep)


def test_kinds_of_other_programs_take_no_memory() -> None:
    """A search through records that begin with strings of their own keeps none of the strings."""
    may_match = quick_test(re.compile("zoom"))
    assert may_match is not None
    may_match(BOOT)  # imports the manager
    tracemalloc.start()
    try:
        for number in range(1000):
            record = [f"key {number}", "text"]
            assert not may_match(record)
            assert fields_of(record) is None
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 10_000
