"""Values in a manager's journal: each one comes back as it went in, or is refused."""

from __future__ import annotations

import enum
import json
import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager import AgentResult, Limits, SubAgentManager
from manager.values import json_value, tail, text

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
    """Return the value with the exact type of everything in it, so that 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return type(value), [(exact(key), exact(item)) for key, item in value.items()]
    if isinstance(value, list):
        return type(value), [exact(item) for item in value]
    return type(value), repr(value)


@given(values)
def test_a_checked_value_survives_the_log_and_a_checkpoint(value: Any) -> None:
    """P6: A value returned by json_value is the same after msgpack and after JSON, type by type.

    It equals the JSON form of the value that was passed.
    """
    checked = json_value("value", value)
    packed = msgpack.packb(checked, strict_types=True)
    assert exact(msgpack.unpackb(packed)) == exact(checked)
    dumped = json.dumps(checked, allow_nan=False)
    assert exact(json.loads(dumped)) == exact(checked)
    assert exact(json.loads(json.dumps(value))) == exact(checked)


@given(values)
def test_a_checked_value_shares_no_container_with_the_callers(value: Any) -> None:
    """A checked value contains no list or dict of the caller's."""

    def containers(each: Any) -> set[int]:
        inner = each.values() if isinstance(each, dict) else each
        if not isinstance(each, (dict, list, tuple)):
            return set()
        return {id(each)}.union(*map(containers, inner))

    original, copied = containers(value), containers(json_value("value", value))
    assert not original & copied


def test_enum_members_become_plain_values() -> None:
    """Enum members are converted as JSON converts them, to the exact types that msgpack packs."""
    checked = json_value("value", {Colour.RED: [Colour.RED, Size.BIG]})
    assert exact(checked) == exact({"red": ["red", 9]})
    assert type(text("value", Colour.RED)) is str


@pytest.mark.parametrize("depth", [99, 100])
def test_nesting_is_bounded(depth: int) -> None:
    """A hundred levels are accepted. One more, or a value that contains itself, is refused."""
    value: Any = "leaf"
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    assert json.dumps(json_value("value", value))
    for _ in range(101 - depth):
        value = [value]
    with pytest.raises(ValueError, match="value nests deeper than 100"):
        json_value("value", value)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
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
def test_values_that_json_cannot_carry_are_located(
    bad: Any, error: type[Exception], message: str
) -> None:
    """The error names the key path of the value, in the form of an index expression."""
    with pytest.raises(error, match=message):
        json_value("value", bad)


@given(texts.map(lambda text: text * 20), st.integers(1, 300))
def test_a_tail_is_the_end_of_a_text(full_text: str, bytes_max: int) -> None:
    """A short text is unchanged.

    A long one is a notice and the last characters that fit, each whole.
    """
    shortened = tail("value", full_text, bytes_max)
    if len(full_text.encode()) <= bytes_max:
        assert shortened == full_text
        return
    notice, _, end = shortened.partition("\n")
    assert f"{len(full_text.encode())} bytes" in notice
    assert full_text.endswith(end)
    assert len(shortened.encode()) <= max(bytes_max, len(notice) + 1 + bytes_max // 2 + 1)
    assert len(end.encode()) >= max(bytes_max - len(notice) - 1, bytes_max // 2) - 3


# --- in the manager's methods ---


def test_no_caller_can_change_the_state(manager: SubAgentManager) -> None:
    """Arguments and returned values are copies: only the manager's methods change the fleet."""
    inner = [1]
    agent = manager.spawn("work", metadata={"k": inner}, allowed_tools=["tool"])
    manager.update_checkpoint(agent.agent_id, inner, steps_taken=1)
    manager.interrupt(agent.agent_id, "why", needs_input={"k": inner})
    inner.append(2)
    for copy in (manager.get(agent.agent_id), manager.agents()[0]):
        assert (copy.metadata, copy.checkpoint, copy.needs_input) == ({"k": [1]}, [1], {"k": [1]})
        copy.metadata["k"].append(3)
        copy.checkpoint.append(3)
        copy.needs_input["k"].clear()
        copy.status = "running"
    assert manager.get(agent.agent_id).metadata == {"k": [1]}
    assert manager.get(agent.agent_id).checkpoint == [1]
    assert manager.get(agent.agent_id).status == "interrupted"
    assert len({manager.get(agent.agent_id), manager.get(agent.agent_id)}) == 1


BAD_SPAWNS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"prompt": 1}, TypeError, "prompt"),
    ({"prompt": "\ud800"}, ValueError, "prompt"),
    ({"prompt": "é" * 600_000}, ValueError, "prompt has 1200000 bytes.*prompt_bytes_max=1048576"),
    ({"agent_type": None}, TypeError, "agent_type"),
    ({"name": ""}, ValueError, "name"),
    ({"name": "n" * 257}, ValueError, "name"),
    ({"name": "agent_0123456789ab"}, ValueError, "looks like an agent's id"),
    ({"model": b"m"}, TypeError, "model"),
    ({"role": 1}, TypeError, "role"),
    ({"parent_id": 1}, TypeError, "parent_id"),
    ({"allowed_tools": "tool"}, TypeError, "allowed_tools"),
    ({"allowed_tools": ["t", 1]}, TypeError, r"allowed_tools\[1\]"),
    ({"token_budget": 0}, ValueError, "token_budget"),
    ({"token_budget": True}, TypeError, "token_budget"),
    ({"token_budget": 1 << 64}, ValueError, "token_budget"),
    ({"metadata": [1]}, TypeError, "metadata"),
    ({"metadata": {"k": [0, {"x": b"b"}]}}, TypeError, r"metadata\['k'\]\[1\]\['x'\]"),
    ({"metadata": {"k": {1: 2}}}, TypeError, r"metadata\['k'\] has the key 1"),
    ({"metadata": {"k": float("inf")}}, ValueError, r"metadata\['k'\]"),
    ({"metadata": {"k": -(1 << 63) - 1}}, ValueError, r"metadata\['k'\]"),
    ({"metadata": {"k": {1, 2}}}, TypeError, r"metadata\['k'\].*set"),
    ({"metadata": {"\ud800": 1}}, ValueError, "metadata"),
]


@pytest.mark.parametrize(("bad", "error", "message"), BAD_SPAWNS)
def test_a_bad_value_is_named_and_changes_nothing(
    manager: SubAgentManager, bad: dict[str, Any], error: type[Exception], message: str
) -> None:
    """A value that can't be journaled unchanged is refused by its name before the lock is taken."""
    with pytest.raises(error, match=message):
        manager.spawn(**({"prompt": "p"} | bad))
    assert manager.agents() == []


def test_a_bad_value_of_an_update_is_named(manager: SubAgentManager) -> None:
    """Every method that updates an agent refuses a bad value by its name."""
    ref = manager.spawn("work").agent_id
    before = manager.get(ref)
    nested: list[Any] = []
    nested.append(nested)
    attempts: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: manager.update_checkpoint(ref, nested, steps_taken=1), ValueError, "checkpoint"),
        (lambda: manager.update_checkpoint(ref, 1, steps_taken=-1), ValueError, "steps_taken"),
        (lambda: manager.interrupt(ref, "why", needs_input=b""), TypeError, "needs_input"),
        (lambda: manager.interrupt(ref, None), TypeError, "reason"),  # type: ignore[arg-type]
        (lambda: manager.update_failed(ref, 1), TypeError, "error"),  # type: ignore[arg-type]
        (lambda: manager.update_from_result(ref, AgentResult(1)), TypeError, "result"),  # type: ignore[arg-type]
        (
            lambda: manager.update_from_result(ref, AgentResult("", output_tokens=-1)),
            ValueError,
            "output_tokens",
        ),
        (lambda: AgentResult("", status="running"), ValueError, "status"),
        (lambda: manager.agents(status="asleep"), ValueError, "status"),  # type: ignore[arg-type]
    ]
    for attempt, error, message in attempts:
        with pytest.raises(error, match=message):
            attempt()
    assert manager.get(ref) == before


def test_a_long_result_keeps_its_tail_with_a_notice(tmp_path: Path) -> None:
    """Results and reasons over result_bytes_max lose their beginning, at a character boundary."""
    with SubAgentManager.open(tmp_path, limits=Limits(result_bytes_max=100)) as manager:
        fits = "é" * 50
        agent = manager.spawn("work")
        assert manager.update_from_result(agent.agent_id, AgentResult(fits)).result == fits
        long = "x" * 200 + "é" * 20 + "end"
        result = manager.update_from_result(
            manager.spawn("work").agent_id, AgentResult(long)
        ).result
        assert result is not None
        notice, _, end = result.partition("\n")
        assert "243 bytes" in notice
        assert long.endswith(end)
        assert end
        assert len(result.encode()) <= 100
        failed = manager.update_failed(manager.spawn("work").agent_id, long)
        assert failed.reason == result
