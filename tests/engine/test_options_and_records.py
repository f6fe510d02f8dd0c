"""Options and records: the accepted ones, and the errors for the others."""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import FrozenInstanceError, fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import BufferFullError, Journal, JournalError, Options, RecordError
from journal.testing import SimulatedDisk
from tests.support import PATH, logged, open_on, options, put, reopened, sized

KIB = 1 << 10
MIB = 1 << 20

# --- options ---


def test_the_defaults_are_as_documented() -> None:
    """The defaults are those that the public documentation states."""
    assert Options() == Options(
        durability="disk",
        flush_interval_s=0.010,
        flush_bytes=256 * KIB,
        segment_bytes=16 * MIB,
        buffer_bytes=64 * MIB,
        record_bytes_max=4 * MIB,
        frame_bytes_max=16 * MIB,
        checkpoint_min_bytes=4 * MIB,
        checkpoint_growth=3.0,
        checkpoints_kept=2,
        application="",
    )


NOT_NUMBERS = [None, "1", True, float("nan"), -1, float("inf"), b"1"]
BAD: list[tuple[str, Any]] = [
    ("durability", "Disk"),
    ("durability", None),
    ("durability", ["disk"]),
    ("application", None),
    ("application", b"jobs/1"),
    ("application", "jobs/\ud800"),
    ("flush_bytes", 0),
    ("flush_bytes", 1.5),
    ("segment_bytes", 4095),
    ("segment_bytes", 4096.0),
    ("segment_bytes", (1 << 40) + 1),
    ("buffer_bytes", 0),
    ("record_bytes_max", 0),
    ("record_bytes_max", (1 << 26) + 1),
    ("frame_bytes_max", 0),
    ("frame_bytes_max", (1 << 26) + 1),
    ("flush_interval_s", 3601),
    ("checkpoint_min_bytes", 0),
    ("checkpoint_growth", 1e7),
    ("checkpoints_kept", 1),
    ("checkpoints_kept", 2.0),
    *(
        (field.name, value)
        for field in fields(Options)
        if field.type in ("int", "float")
        for value in NOT_NUMBERS
    ),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda value: repr(value))
def test_a_bad_option_is_named(name: str, value: Any) -> None:
    """A bad value raises ValueError, which names the option and the value."""
    with pytest.raises(ValueError, match=name) as caught:
        Options(**{name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flush_interval_s", 0),
        ("flush_interval_s", 3600),
        ("checkpoint_growth", 0),
        ("checkpoints_kept", 3),
        ("segment_bytes", 4096),
        ("frame_bytes_max", 1 << 26),
        ("record_bytes_max", 1),
        ("application", "jobs/1"),
        ("durability", "os"),
    ],
)
def test_extreme_options_work(name: str, value: Any) -> None:
    """A journal with extreme options takes records, and reads them back."""
    disk = SimulatedDisk()
    chosen = Options(**{name: value})
    with Journal.open(PATH, options=chosen, disk=disk) as journal:
        put(journal, 1, 2)
    with Journal.open(PATH, options=chosen, disk=disk) as journal:
        assert logged(journal) == [1, 2]


def test_options_are_keyword_only_and_frozen() -> None:
    """Options are keyword-only, and can't be changed while a journal uses them."""
    with pytest.raises(TypeError):
        Options("os")  # type: ignore[call-arg]
    with pytest.raises(FrozenInstanceError):
        Options().flush_bytes = 1  # type: ignore[misc]


# --- records that are read back ---

INTEGERS = st.integers(-(2**63), 2**64 - 1)
SCALARS = (
    st.none()
    | st.booleans()
    | INTEGERS
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
    | st.builds(msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**9 - 1))
)
KEYS = SCALARS.filter(lambda key: key is not None)
RECORDS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4)
)


@given(st.lists(RECORDS, min_size=1, max_size=20))
def test_packed_records_are_read_back_equal(records: list[Any]) -> None:
    """P1: Each record is read back with its value and its types, from the same journal and after a
    reopening."""
    disk = SimulatedDisk()
    with open_on(disk) as journal:
        for record in records:
            journal.append(record)
        journal.wait_durable()
        assert repr(logged(journal)) == repr(records)
    assert repr(reopened(disk)) == repr(records)


def test_later_changes_do_not_reach_an_appended_record() -> None:
    """A change that the caller makes to a record after `append` does not reach the log."""
    record = {"a": [1]}
    with open_on(SimulatedDisk()) as journal:
        journal.append(record)
        record["a"].append(2)
        put(journal, record)
        assert logged(journal) == [{"a": [1]}, {"a": [1, 2]}]


# --- records that are refused ---


class Point(NamedTuple):
    x: int
    y: int


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


def loop() -> list[Any]:
    record: list[Any] = []
    record.append(record)
    return record


def nested(depth: int, wrap: Any) -> Any:
    record: Any = 1
    for _ in range(depth):
        record = wrap(record)
    return record


REFUSED: list[tuple[str, Any]] = [
    ("tuple", (1, 2)),
    ("set", {1}),
    ("frozenset", frozenset({1})),
    ("Point", Point(1, 2)),
    ("Colour", Colour.RED),
    ("Text", Text("a")),
    ("OrderedDict", OrderedDict(a=1)),
    ("complex", 1j),
    ("Decimal", Decimal(1)),
    ("datetime", datetime.now(UTC)),
    ("object", object()),
    ("type", int),
    ("int", 2**64),
    ("int", -(2**63) - 1),
    ("str", "\ud800"),
    ("dict", {(1, 2): 3}),
    ("dict", {"a": {"b": (1,)}}),
    ("list", [1, [2, {3}]]),
    ("list", loop()),
    ("list", nested(1025, lambda inner: [inner])),
    ("dict", nested(1025, lambda inner: {1: inner})),
    ("list", nested(100_000, lambda inner: [inner])),
]


@pytest.mark.parametrize(("kind", "record"), REFUSED, ids=[kind for kind, _ in REFUSED])
def test_unsupported_records_are_refused(kind: str, record: Any) -> None:
    """RecordError is a ValueError that names the type, and says what to use instead. It consumes no
    LSN, and keeps what was packed before."""
    disk = SimulatedDisk()
    with open_on(disk) as journal:
        journal.append("before")
        for single in (True, False):
            with pytest.raises(RecordError) as caught:
                journal.append(record) if single else journal.append_batch(["good", record])
            assert isinstance(caught.value, ValueError)
            assert isinstance(caught.value, JournalError)
            assert f"type {kind}" in str(caught.value) or "nests too deep" in str(caught.value)
        assert journal.last_lsn == 1
        assert journal.stats().buffered_bytes == len(msgpack.packb("before"))
        assert journal.append("after") == 2
        journal.wait_durable()
        assert logged(journal) == ["before", "after"]
    assert reopened(disk) == ["before", "after"]


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {1: inner}])
@pytest.mark.parametrize("depth", [511, 512, 1000, 1022, 1023, 1024, 1025])
def test_every_accepted_depth_is_read_back(depth: int, wrap: Any) -> None:
    """P1: Around the depth limit of packing, a record is refused or is read back."""
    disk = SimulatedDisk()
    record, accepted = nested(depth, wrap), True
    with open_on(disk) as journal:
        try:
            journal.append(record)
        except RecordError:
            accepted = False
        put(journal, "after")
    assert accepted or depth > 1000
    # These nest too deep for `==` and `repr`.
    recovered = [msgpack.packb(each) for each in reopened(disk)]
    expected = [record, "after"] if accepted else ["after"]
    assert recovered == [msgpack.packb(each) for each in expected]


# --- limits ---


def test_record_bytes_max_limits_the_packed_record() -> None:
    """A packed record of `record_bytes_max` bytes is accepted, and one more byte raises RecordError
    with both numbers."""
    with open_on(SimulatedDisk(), record_bytes_max=10) as journal:
        put(journal, b"x" * 8)  # packs to 10 bytes, with its two-byte header
        with pytest.raises(RecordError, match="11 bytes is over record_bytes_max=10; split it"):
            journal.append(b"x" * 9)
        with pytest.raises(RecordError, match="record_bytes_max=10"):
            journal.append_batch([1, b"x" * 9])
        assert (journal.last_lsn, logged(journal)) == (1, [b"x" * 8])


def test_frame_bytes_max_limits_the_whole_batch() -> None:
    """P3: A batch that does not fit in one frame raises RecordError, and none of it is appended."""
    with open_on(SimulatedDisk(), frame_bytes_max=30) as journal:
        assert journal.append_batch([b"x" * 8] * 3) == 3
        with pytest.raises(RecordError, match="31 bytes is over frame_bytes_max=30; split it"):
            journal.append_batch([b"x" * 8, b"x" * 8, b"x" * 9])
        assert journal.last_lsn == 3
        journal.wait_durable()
        assert logged(journal) == [b"x" * 8] * 3


def test_frame_bytes_max_limits_a_single_record() -> None:
    """A frame's payload is at most `frame_bytes_max`, even if `record_bytes_max` allows more."""
    with open_on(SimulatedDisk(), frame_bytes_max=30) as journal:
        journal.append(sized(30))
        with pytest.raises(RecordError, match="frame_bytes_max=30"):
            journal.append(sized(31))


def test_an_empty_batch_is_refused() -> None:
    """`append_batch([])` raises ValueError, and consumes no LSN."""
    with open_on(SimulatedDisk()) as journal:
        with pytest.raises(ValueError, match="at least one"):
            journal.append_batch([])
        assert journal.last_lsn == 0


def test_a_record_larger_than_the_buffer_is_refused() -> None:
    """P8: The buffer's bound holds for a single record too, and later waits don't hang."""
    with open_on(SimulatedDisk(), buffer_bytes=100) as journal:
        with pytest.raises((BufferFullError, RecordError), match="buffer_bytes=100"):
            journal.append(b"x" * 200)
        assert (journal.last_lsn, journal.stats().buffered_bytes) == (0, 0)
        journal.wait_room(timeout_s=10)
        put(journal, 1)


def test_the_largest_record_is_committed_and_recovered() -> None:
    """The largest record of the default limits is stored, even in a smaller segment."""
    disk = SimulatedDisk()
    largest = b"x" * (4 * MIB - 5)
    with Journal.open(PATH, options=Options(segment_bytes=4096), disk=disk) as journal:
        put(journal, 1, largest, 2)
    assert options().record_bytes_max == 4 * MIB
    assert reopened(disk) == [1, largest, 2]
