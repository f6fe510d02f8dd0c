"""Items of a checkpoint that are loaded together give what they give one after the other, and so do
those that msgspec has decoded."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from journal import FormatVersionError
from manager import AgentResult, ManagerError
from manager.agent import FIELDS, LIVE
from manager.fleet import Fleet
from tests.manager.fleet_support import contents, manager_in_memory
from tests.manager.test_fleet import CHANGES, NAMES

ODD: list[Any] = [
    None, True, False, 0, 1, -1, 1 << 63, 1 << 64, 1.5, float("nan"), "", "text", "running",
    "failed", "agent_1", "é", "\ud800", "x" * 300, [], ["t"], [1], ["\ud800"], {}, {"k": 1 << 64},
    {"\ud800": 1}, [[1, 2, "text", None]], [[1, 2, "text", {"k": "\ud800"}]],
]  # fmt: skip
PAIRS = [("agent_id", "name"), ("taken_by", "taken_at_ms"), ("status", "ended_at_ms")]
Loaded = tuple[Any, ...]


def items_of(changes: list[tuple[str, str]]) -> list[Any]:
    """Return the items of a fleet with a few agents, after these changes of it."""
    manager, state = manager_in_memory()
    for number in range(3):
        ended = manager.spawn("é", metadata={"é": number, "at": 0.5})
        manager.update_from_result(ended.agent_id, AgentResult("done", input_tokens=1))
    manager.spawn("live")  # no change removes it
    for kind, ref in changes:
        with suppress(ManagerError):
            CHANGES[kind](manager, ref)
    items: list[Any] = json.loads(json.dumps(list(state.machine.freeze())))
    return items


def loaded(load: Callable[[Fleet], None]) -> Loaded:
    """Return the content of a fleet that is loaded, or the refusal."""
    fleet = Fleet()
    try:
        load(fleet)
        fleet.check_loaded(1000)
    except (FormatVersionError, ValueError) as error:  # tables raise ValueError
        return (str(error),)
    live = {status: list(fleet.rows_with(status, include_archived=False)) for status in LIVE}
    return contents(fleet), live, fleet.boot_id, list(fleet.freeze())


def one_by_one(items: list[Any]) -> Loaded:
    def load(fleet: Fleet) -> None:
        for item in items:
            fleet.load(item)

    return loaded(load)


def together(items: list[Any], size: int) -> Loaded:
    def load(fleet: Fleet) -> None:
        for at in range(0, len(items), size):
            fleet.load_items(items[at : at + size])

    return loaded(load)


def from_text(items: list[Any], size: int) -> Loaded:
    def load(fleet: Fleet) -> None:
        for at in range(0, len(items), size):
            some = items[at : at + size]
            if not fleet.load_text(json.dumps(some), len(some)):
                fleet.load_items(some)

    return loaded(load)


def assert_alike(items: list[Any], size: int) -> None:
    """Assert that these items are loaded, or refused, in the same way in groups of this size."""
    expected = json.dumps(one_by_one(items))  # JSON, because NaN differs from itself
    assert json.dumps(together(items, size)) == expected
    assert json.dumps(from_text(items, size)) == expected


changes_of_fleet = st.lists(
    st.tuples(st.sampled_from(sorted(CHANGES)), st.sampled_from(NAMES)), max_size=12
)


@given(changes_of_fleet, st.data())
def test_items_loaded_together_give_the_same_fleet(
    changes: list[tuple[str, str]], data: st.DataObject
) -> None:
    """P9: A fleet is the same, and so is a refusal of an odd value, an agent that is there twice,
    one that is missing, or another order."""
    items = items_of(changes)
    agents = [number for number, item in enumerate(items) if "agent_id" in item]
    chosen = data.draw(st.sampled_from(agents))
    match data.draw(st.sampled_from(["valid", "odd", "twice", "missing", "reversed", "alien"])):
        case "odd":
            item = items[chosen]
            fields = [*item, "answer", "progress", "lease", "attempt", "starts", "taken_by"]
            item[data.draw(st.sampled_from(fields))] = data.draw(st.sampled_from(ODD))
        case "twice":
            items.insert(data.draw(st.sampled_from(agents)), items[chosen])
        case "missing":
            del items[chosen]
        case "reversed":
            items.reverse()
        case "alien":
            items.insert(chosen, data.draw(st.sampled_from([None, [], {}, {"table": "t"}])))
    assert_alike(items, data.draw(st.integers(1, len(items) + 1)))


def family_items() -> list[Any]:
    """Return the items of a live agent with a name, of its children, and of others."""
    live = ("spawn", "live"), ("child", "live"), ("named child", "live"), ("progress", "live")
    return items_of([*live, ("spawn", "asks"), ("interrupt", "asks"), ("answer", "asks")])


@pytest.mark.parametrize("fields", [*((field,) for field in FIELDS), *PAIRS])
def test_an_odd_value_between_valid_agents_is_refused_alike(fields: tuple[str, ...]) -> None:
    """P9: Each odd value of each field is accepted or refused as it is when loaded alone."""
    items = family_items()
    for number, value in product(range(len(items)), ODD):
        odd = items[number] | dict.fromkeys(fields, value)
        for size in (1, len(items)):
            assert_alike([*items[:number], odd, *items[number + 1 :]], size)


@pytest.mark.parametrize("size", [1, 2, 20])
def test_agents_that_no_manager_writes_are_accepted_or_refused_alike(size: int) -> None:
    """P9: This is true of any order, and of what only several fields or agents together show."""
    items = family_items()
    first, last = items[0], items[-1]
    live = next(item for item in items if item["name"] == "live")
    new = {"agent_id": "agent_000000000000"}
    child = first | new | {"name": new["agent_id"], "parent_id": first["agent_id"]}
    taken = live | {"taken_by": first["agent_id"], "taken_at_ms": 1}
    for agents in (
        items[::-1],
        items[1:],
        items[:-1],
        [*items, live | new],
        [live | new, *items],
        [child | {"spawn_depth": 1}, *items],
        [child | {"spawn_depth": 2}, *items],
        [*items, child],
        [first, taken, last],
        [first | {"lsn": 2000}, *items[1:]],
        [first | {"extras": [2, 1, None, None, None]}, last],
        [first | {"alien": 1}, last],
        [first | {"started_at_ms": None}, last],
    ):
        assert_alike(agents, size)


@given(changes_of_fleet)
@example([("spawn", "a"), ("checkpoint", "a")])
def test_what_a_manager_writes_is_not_checked_one_by_one(changes: list[tuple[str, str]]) -> None:
    """Agents of a manager pass the quick checks. Otherwise, an open is slow again."""
    agents = [item for item in items_of(changes) if "agent_id" in item]

    class Quick(Fleet):
        def load(self, item: Any) -> None:
            raise AssertionError("loaded alone")

    for load in (Fleet.load_items, load_text):
        fleet = Quick()
        load(fleet, agents[:1])
        load(fleet, agents[1:])
        assert len(fleet.rows) == len(agents)


def load_text(fleet: Fleet, items: list[Any]) -> None:
    assert not items or fleet.load_text(json.dumps(items), len(items))


def test_a_line_with_two_agents_is_left_to_the_decoder_that_finds_it() -> None:
    """P6: Each line of a checkpoint holds one item."""
    items = family_items()
    fleet = Fleet()
    assert not fleet.load_text(json.dumps(items), len(items) - 1)
    assert not fleet.rows
