"""What may go into the journal of a manager: values that come back as they went in."""

from __future__ import annotations

import enum
import json
import math
from collections import OrderedDict
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.records import json_value, tail, text

texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(texts, inner)
        | st.dictionaries(texts, inner).map(OrderedDict)
    ),
    max_leaves=20,
)


class Colour(enum.StrEnum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 9


def exact(value: Any) -> Any:
    """The value with the exact type of everything in it, so that 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return type(value), [(exact(key), exact(item)) for key, item in value.items()]
    if isinstance(value, list):
        return type(value), [exact(item) for item in value]
    return type(value), repr(value)


@given(values)
def test_a_checked_value_survives_the_log_and_a_checkpoint(value: Any) -> None:
    """P6: what json_value returns comes back the same, type by type, from msgpack and from JSON,
    and is what JSON makes of what was given."""
    taken = json_value("value", value)
    packed = msgpack.packb(taken, strict_types=True)
    assert exact(msgpack.unpackb(packed)) == exact(taken)
    dumped = json.dumps(taken, allow_nan=False)
    assert exact(json.loads(dumped)) == exact(taken)
    assert exact(json.loads(json.dumps(value))) == exact(taken)


@given(values)
def test_a_copy_shares_nothing_that_can_change(value: Any) -> None:
    """No list or dict of the caller's is in what was taken."""

    def containers(found: Any) -> set[int]:
        inner = found.values() if isinstance(found, dict) else found
        if not isinstance(found, (dict, list, tuple)):
            return set()
        return {id(found)}.union(*map(containers, inner))

    given_ones, taken = containers(value), json_value("value", value)
    assert not given_ones & containers(taken)


def test_subclasses_become_what_they_stand_for() -> None:
    """Enums and the like are taken as JSON takes them, in the exact types that msgpack packs."""
    taken = json_value("value", {Colour.RED: [Colour.RED, Size.BIG]})
    assert exact(taken) == exact({"red": ["red", 9]})
    assert type(text("value", Colour.RED)) is str


@pytest.mark.parametrize("depth", [99, 100])
def test_nesting_is_bounded(depth: int) -> None:
    """A hundred levels are taken; one more, or a value that holds itself, is refused."""
    value: Any = "leaf"
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    assert json.dumps(json_value("value", value))
    for _ in range(101 - depth):
        value = [value]
    with pytest.raises(ValueError, match="value nests deeper than 100"):
        json_value("value", value)


@pytest.mark.parametrize(
    ("bad", "error", "named"),
    [
        (math.nan, ValueError, "value is nan"),
        ([-math.inf], ValueError, r"value\[0\] is -inf"),
        ({"a": {"b": (0, 1 << 64)}}, ValueError, r"value\['a'\]\['b'\]\[1\] is an integer"),
        ([10**5000], ValueError, r"value\[0\] is an integer"),
        ({"a": [b""]}, TypeError, r"value\['a'\]\[0\] is of type bytes"),
        ({"a": object()}, TypeError, r"value\['a'\] is of type object"),
        ({"a": {None: 1}}, TypeError, r"value\['a'\] has the key None"),
        ([{"\udcff": 1}], ValueError, r"value\[0\], key"),
        ({"é": ["\udcff"]}, ValueError, r"value\['é'\]\[0\]"),
    ],
)
def test_what_json_cannot_carry_is_named(bad: Any, error: type[Exception], named: str) -> None:
    """The error names the key path, in the way the value would be indexed."""
    with pytest.raises(error, match=named):
        json_value("value", bad)


@given(texts.map(lambda text: text * 20), st.integers(1, 300))
def test_a_tail_is_the_end_of_a_text(whole: str, bytes_max: int) -> None:
    """What fits is unchanged; of what doesn't, whole characters at the end, and it says so."""
    kept = tail("value", whole, bytes_max)
    if len(whole.encode()) <= bytes_max:
        assert kept == whole
        return
    notice, _, end = kept.partition("\n")
    assert f"{len(whole.encode())} bytes" in notice
    assert whole.endswith(end)
    assert len(kept.encode()) <= max(bytes_max, len(notice) + 1 + bytes_max // 2 + 1)
    assert len(end.encode()) > min(bytes_max - len(notice) - 1, bytes_max // 2) - 4
