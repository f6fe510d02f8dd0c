"""Rows of a checkpoint that are encoded together."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgpack import ExtType, Timestamp

from journal._tables import checkpoint_lines
from journal._tables.chunked_map import Stored
from journal._tables.keys import encode_key
from journal._tables.values import json_texts, pack_value, stored_texts
from tests.tiers import examples

HEAD = b'{"table":"t","key":'
RS = "\x1e"  # the string between two values that are encoded together
TEXTS = st.sampled_from(["", RS, "a", 'é"\\', "$bytes", "$a", '{"$', f'","{RS}","'])
SCALARS = st.one_of(
    TEXTS,
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(),
    st.binary(max_size=3),
    st.sampled_from([ExtType(3, b"x"), Timestamp(1)]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXTS, inner, max_size=2)
        | st.dictionaries(st.integers(0, 2) | st.binary(max_size=1), inner, max_size=2)
    ),
    max_leaves=6,
)
STORED: st.SearchStrategy[Stored] = st.one_of(
    VALUES.map(pack_value),
    st.sampled_from(
        [
            pack_value(None, 1),
            (b"\xa1", b"x"),
            *stored_texts([b'{"a":1}', b'"\\u001e"']),
            pack_value("x" * 40_000),
        ]
    ),
)
KEYS = st.one_of(TEXTS, st.integers(0, 9), st.binary(max_size=2), st.tuples(TEXTS, TEXTS))


def nested(levels: int) -> Any:
    """Return that many lists, one in the other."""
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


@given(keys=st.lists(KEYS, min_size=8, unique=True), values=st.lists(STORED, max_size=8))
@settings(max_examples=examples(50))
@example(keys=["a", "b"], values=[pack_value([0, RS, 0]), pack_value(1)])
@example(keys=[RS, (RS, "b")], values=[pack_value(RS), pack_value(RS)])
@example(keys=["a", "b"], values=[pack_value(nested(500)), pack_value(nested(400))])
@example(keys=["a", "b"], values=[pack_value(nested(501)), pack_value(1)])
@example(keys=["a"], values=[pack_value({"$a": 1})])
@example(keys=["a"], values=[pack_value({1: 1})])
@example(keys=["a"], values=[pack_value([ExtType(3, b"x")])])
def test_rows_encoded_together_have_the_lines_of_those_encoded_alone(
    keys: list[Any], values: list[Stored]
) -> None:
    """A line of a checkpoint is the same, whichever rows are encoded with it."""
    encoded = sorted(map(encode_key, keys))[: len(values)]
    chunk = dict(zip(encoded, values, strict=True))
    together = list(checkpoint_lines._lines([], [("t", [chunk])]))
    is_same = together == list(checkpoint_lines._chunk_lines(HEAD, encoded, values))
    assert is_same  # pytest would compare long lines for minutes


def test_plain_rows_are_encoded_together() -> None:
    """Msgpack and texts of earlier checkpoints share one call, so no guard refuses plain rows."""
    values = (pack_value({"a": "x" * 600}), *stored_texts([b"[1]"]), *map(pack_value, (RS, b"ab")))
    texts = [b'{"a":"%b"}' % (b"x" * 600), b"[1]", b'"\\u001e"', b'{"$bytes":"YWI="}']
    assert json_texts(values) == texts
