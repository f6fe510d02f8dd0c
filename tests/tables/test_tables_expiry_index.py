"""The index of the rows that expire, and the head of a value with its time."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from journal._tables.expiry import EXPIRES_AT_MS_MAX, ExpiryIndex, with_expiry
from journal._tables.values import pack_value

PLACES = st.tuples(st.sampled_from(["t", "\u00e4" * 100]), st.sampled_from([b"a", b"\0", b"ab"]))
TIMES = st.none() | st.integers(0, 5) | st.just(EXPIRES_AT_MS_MAX)


@given(
    loaded=st.dictionaries(PLACES, TIMES),
    changes=st.lists(st.tuples(PLACES, st.just(...) | TIMES)),
    now_ms=st.integers(0, 6),
    rows_max=st.integers(1, 4),
)
def test_the_index_knows_what_is_due(
    loaded: dict[Any, int | None], changes: list[Any], now_ms: int, rows_max: int
) -> None:
    """The index returns the first due rows of all, sorted by time; an Ellipsis removes a row."""
    index, rows = ExpiryIndex(), dict(loaded)
    for (name, key), time in loaded.items():
        if time is not None:
            index.load(name, key, time)
    for place, time in changes:
        old, new = (
            None if at is ... else with_expiry(b"\x01", at) for at in (rows.get(place, ...), time)
        )
        index.change(place[0], place[1], old, new)
        rows.pop(place, None)
        if time is not ...:
            rows[place] = time
    times = {place: time for place, time in rows.items() if time is not None}
    due = sorted(time for time in times.values() if time <= now_ms)
    assert index.count == len(times)
    places = index.due(now_ms, rows_max, 1 << 20)
    assert [times[place] for place in places] == due[:rows_max]
    assert index.has_due(now_ms) == bool(due)
    assert len(index.due(now_ms, rows_max, 1)) == min(1, len(due))


def test_values_have_their_time_before_them() -> None:
    """A value that expires is 10 bytes longer than one that stays."""
    assert pack_value(1, 1.5) == b"\xc1\x01" + (1500).to_bytes(8, "big") + b"\x01"
    assert pack_value(1, 0.0014) == with_expiry(b"\x01", 1)
