"""Two transactions and the writes of others, in every order of their steps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tables.interleavings import LARGE, Body, Model, Step, runs_of
from tests.tiers import examples

NAMES = st.sampled_from("ttu")
KEYS = st.sampled_from(["a", "ab", "b"])
VALUES = st.sampled_from([0, 1, 2, LARGE])
TIMES_S = st.none() | st.integers(0, 2)
ROWS = st.dictionaries(st.tuples(NAMES, KEYS), st.tuples(VALUES, TIMES_S), max_size=4)
READS = (
    st.tuples(st.just("get"), NAMES, KEYS)
    | st.tuples(st.just("has"), NAMES, KEYS)
    | st.tuples(st.just("keys"), NAMES)
    | st.tuples(st.just("prefix"), NAMES, KEYS)
    | st.tuples(
        st.just("range"),
        NAMES,
        st.none() | KEYS,
        st.none() | KEYS,
        st.booleans(),
        st.none() | st.integers(0, 2),
    )
)
SETS = st.tuples(st.just("set"), NAMES, KEYS, VALUES, TIMES_S)
WRITES = (
    SETS
    | st.tuples(st.just("add"), NAMES, KEYS)
    | st.tuples(st.just("count"), NAMES, KEYS)
    | st.tuples(st.just("insert"), NAMES, KEYS, VALUES)
    | st.tuples(st.just("replace"), NAMES, KEYS, VALUES)
    | st.tuples(st.just("replace"), NAMES, KEYS, VALUES, VALUES)
    | st.tuples(st.just("delete"), NAMES, KEYS)
    | st.tuples(st.just("discard"), NAMES, KEYS)
    | st.tuples(st.just("del"), NAMES, KEYS)
)
STEPS = READS | WRITES | WRITES | st.just(("abort", "t"))
ACTIONS = (
    WRITES
    | st.tuples(st.just("update"), NAMES, KEYS)
    | st.tuples(
        st.sampled_from(["transact", "update_all"]),
        st.lists(READS | WRITES, min_size=1, max_size=3).map(tuple),
    )
    | st.tuples(st.just("wait"), st.just(1))
    | st.just(("compact", ""))
)


def bodies(steps_max: int, steps: st.SearchStrategy[Any] = STEPS) -> st.SearchStrategy[Body]:
    lists = st.lists(steps, min_size=1, max_size=steps_max).map(tuple)
    return st.builds(Body, lists, st.booleans(), st.booleans())


PAIR: Model = {("t", "a"): (0, None), ("t", "b"): (0, None)}
ONE: Model = {("t", "a"): (0, None)}
TEXT: Model = {("t", "a"): ("one", None)}
NOBODY: Model = {}
GET_A, GET_B, ALL = ("get", "t", "a"), ("get", "t", "b"), ("keys", "t")
ADD_A = ("add", "t", "a")


def put(key: str, value: Any) -> Step:
    return ("set", "t", key, value, None)


# The rows before, both bodies, the actions of others, the order of the events, how each body ends,
# and the rows of table "t" after it. Each body begins with an event, and ends with one.
ANOMALIES: dict[
    str,
    tuple[Model, list[list[Step]], list[Step], str, list[str], dict[str, Any]],
] = {
    "dirty read": (
        ONE, [[put("a", 1), ("abort", "t")], [GET_A, put("b", 2)]], [],
        "aabbbba", ["aborted", "committed"], {"a": 0, "b": 2},
    ),
    "non-repeatable read": (
        ONE, [[GET_A, GET_A], [put("a", 1)]], [], "aabbbaa", ["conflict", "committed"], {"a": 1},
    ),
    "lost update": (
        ONE, [[ADD_A], [ADD_A]], [], "aabbab", ["committed", "conflict"], {"a": 1},
    ),
    "lost update by a direct write": (
        ONE, [[ADD_A]], [put("a", 5)], "aaoa", ["conflict"], {"a": 5},
    ),
    "lost update by an update under the lock": (
        ONE, [[ADD_A]], [("update_all", (ADD_A,))], "aaoa", ["conflict"], {"a": 1},
    ),
    "write skew": (
        PAIR, [[GET_A, GET_B, put("a", 1)], [GET_A, GET_B, put("b", 1)]], [],
        "aaabbbbaab", ["committed", "conflict"], {"a": 1, "b": 0},
    ),
    "phantom in a range": (
        ONE, [[ALL, put("x", 1)], [("insert", "t", "b", 1)]], [],
        "aabbbaa", ["conflict", "committed"], {"a": 0, "b": 1},
    ),
    "phantom in an empty range": (
        NOBODY, [[("count", "t", "a")], [("count", "t", "b")]], [],
        "aabbab", ["committed", "conflict"], {"a": 0},
    ),
    "phantom before the only row that a range reads": (
        PAIR, [[("range", "t", None, None, False, 1), put("x", 1)]], [("insert", "t", "A", 1)],
        "aaoaa", ["conflict"], {"A": 1, "a": 0, "b": 0},
    ),
    "phantom: a row of a range goes": (
        PAIR, [[ALL, put("x", 1)], [("delete", "t", "b")]], [],
        "aabbbaa", ["conflict", "committed"], {"a": 0},
    ),
    "read-only anomaly: reads of two moments": (
        PAIR, [[GET_A, GET_B], [put("a", 1), put("b", 1)]], [],
        "aabbbbaa", ["conflict", "committed"], {"a": 1, "b": 1},
    ),
    "delete and insert of an equal row (ABA)": (
        TEXT, [[GET_A, put("x", 1)]], [("delete", "t", "a"), ("insert", "t", "a", "one")],
        "aaooaa", ["conflict"], {"a": "one"},
    ),
    # The read is still true. Python has one object only for all equal bytes of length 1.
    "delete and insert of an equal row of one byte (ABA)": (
        ONE, [[GET_A, put("x", 1)]], [("delete", "t", "a"), ("insert", "t", "a", 0)],
        "aaooaa", ["committed"], {"a": 0, "x": 1},
    ),
    "delete and insert in a range (ABA)": (
        ONE, [[ALL, put("x", 1)]], [("delete", "t", "a"), ("insert", "t", "a", 0)],
        "aaooaa", ["conflict"], {"a": 0},
    ),
    "insert and delete of a key that was absent (ABA)": (
        NOBODY, [[GET_A, put("x", 1)]], [("insert", "t", "a", 0), ("delete", "t", "a")],
        "aaooaa", ["committed"], {"x": 1},
    ),
    "delete and insert before a replace that expects the value": (
        ONE, [[("replace", "t", "a", 1, 0)]], [("delete", "t", "a"), ("insert", "t", "a", 0)],
        "aaooa", ["committed"], {"a": 1},
    ),
    "replace of a value that was replaced": (
        ONE, [[("replace", "t", "a", 1, 0)]], [put("a", 2)], "aoa", ["conflict"], {"a": 2},
    ),
    "two inserts of one key": (
        NOBODY, [[("insert", "t", "a", 1)], [("insert", "t", "a", 2)]], [],
        "aabbba", ["conflict", "committed"], {"a": 2},
    ),
    "two deletes of one key": (
        ONE, [[("delete", "t", "a")], [("delete", "t", "a")]], [],
        "aabbba", ["conflict", "committed"], {},
    ),
    "blind writes of both keys, crossed": (
        NOBODY, [[put("a", 1), put("b", 1)], [put("b", 2), put("a", 2)]], [],
        "aabbabab", ["committed", "committed"], {"a": 2, "b": 2},
    ),
    "a row expires during the body": (
        {("t", "a"): (0, 1)}, [[GET_A, put("b", 1)]], [("wait", 1)],
        "aaoaa", ["committed"], {"b": 1},
    ),
    "a row expires and is removed during the body": (
        {("t", "a"): (0, 1)}, [[GET_A, put("b", 1)]], [("wait", 1), ("set", "u", "a", 1, None)],
        "aaooaa", ["conflict"], {},
    ),
    "a row expires, and another takes its place": (
        {("t", "a"): (0, 1)}, [[("replace", "t", "a", 1)]],
        [("wait", 1), ("insert", "t", "a", 2)], "aaooa", ["conflict"], {"a": 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("in_loop", [False, True], ids=["with", "async with"])
@pytest.mark.parametrize(
    ("rows", "steps", "actions", "schedule", "ends", "after"), ANOMALIES.values(), ids=ANOMALIES
)
def test_known_anomalies(
    rows: Model,
    steps: list[list[Step]],
    actions: list[Step],
    schedule: str,
    ends: list[str],
    after: dict[str, Any],
    in_loop: bool,
) -> None:
    """A known anomaly ends as listed, and no other order of its steps is one."""
    pair = [Body(tuple(of_one), in_loop=in_loop) for of_one in steps]
    [run] = runs_of(rows, pair, actions, schedule)
    assert [run.outcomes[n] for n in range(len(pair))] == ends
    assert {key: value for (name, key), (value, _) in run.model.items() if name == "t"} == after
    runs_of(rows, pair, actions)


LARGE_PAIR = [
    Body((GET_A, put("a", LARGE)), in_loop=True),
    Body((("insert", "t", "b", LARGE + "b"),), in_loop=True),
]


def test_large_values_in_every_order_of_their_pieces() -> None:
    """Two commits of large values that overlap, between any two pieces, both take effect."""
    runs = runs_of(ONE, LARGE_PAIR)
    assert len(runs) > 1000
    assert {run.outcomes[n] for run in runs for n in (0, 1)} == {"committed"}


def test_a_change_between_any_two_pieces_conflicts() -> None:
    """A change of others conflicts until the record that publishes the pieces is written."""
    runs = runs_of(ONE, LARGE_PAIR[:1], [("update", "t", "a")])
    ends = [run.outcomes[0] for run in runs]
    assert (len(ends), ends.count("conflict")) == (8, 5)


@given(ROWS, bodies(3), bodies(3))
@settings(max_examples=examples(30))
def test_two_transactions_in_every_order(rows: Model, first: Body, second: Body) -> None:
    """Each of two transactions sees and writes what it would alone at its end, or conflicts and
    writes nothing."""
    for run in runs_of(rows, [first, second]):
        assert len(run.outcomes) == 2


@given(ROWS, bodies(2), bodies(2), st.lists(ACTIONS, min_size=1, max_size=1))
@settings(max_examples=examples(6))
def test_two_transactions_and_a_write_of_others_in_every_order(
    rows: Model, first: Body, second: Body, actions: list[Step]
) -> None:
    """Direct writes, updates, compactions and expiry in between keep the same rule."""
    runs_of(rows, [first, second], actions)


@given(ROWS, bodies(3), st.lists(ACTIONS, min_size=2, max_size=4))
@settings(max_examples=examples(30))
def test_a_transaction_and_several_writes_of_others_in_every_order(
    rows: Model, body: Body, actions: list[Step]
) -> None:
    """Any number of changes during a body keep the same rule: a value that returns is no change
    only if the body did not read it."""
    runs_of(rows, [body], actions)


@given(ROWS, bodies(3, SETS), bodies(2), st.lists(ACTIONS, max_size=1))
@settings(max_examples=examples(10))
def test_blind_writes_never_conflict(
    rows: Model, blind: Body, other: Body, actions: list[Step]
) -> None:
    """A transaction that reads nothing commits in every order of the others' steps."""
    for run in runs_of(rows, [blind, other], actions):
        assert run.outcomes[0] == "committed"
