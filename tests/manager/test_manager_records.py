"""The table of the manager's record kinds, which all code that knows a kind follows."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_inspect.rendering.kinds import agent_of, fields_of
from journal_inspect.report.fleet import FleetTimeline

from journal import FormatVersionError
from manager import OPTIONAL_RECORD_FIELDS, RECORD_FIELDS, records
from manager.agent import ENDED, FIELDS, VERBS
from manager.checks import record_checker
from manager.fleet import Fleet
from manager.layouts import KINDS, Record
from manager.replay import _CHECKS
from manager.steps import SOURCES, STEPS
from tests.crash.fleet_forge import agent_id, imported, spawn
from tests.manager.fleet_support import values_of

ROOT = Path(__file__).resolve().parents[2]
CHANGES = sorted(kind for kind, sources in SOURCES.items() if sources and kind != "remove")
VALUES: dict[object, Any] = {
    str: "text",
    str | None: "text",
    int: 7,
    int | None: 7,
    list[str] | None: ["tool"],
    dict[str, Any]: {"k": 1},
    Any: {"any": "JSON"},
}


def a_record(kind: str, **values: Any) -> Record:
    """Return a record of `kind` with a distinct value in each field, except for `values`."""
    hints = get_type_hints(KINDS[kind])
    fields: dict[str, Any] = {}
    for number, (name, hint) in enumerate(hints.items()):
        value = get_args(hint)[-1] if get_origin(hint) is Literal else VALUES[hint]
        if isinstance(value, str) and hint in VALUES:
            value = f"{value} {number}"
        fields[name] = value + number if type(value) is int else value
    return [*(fields | values).values()]


def test_every_kind_is_in_the_table_once() -> None:
    """A kind is a class whose first fields are the kind and the agent.

    Field names, steps and allowed statuses follow from the table, and no kind is defined elsewhere.
    """
    for kind, layout in KINDS.items():
        assert get_args(get_type_hints(layout)["kind"]) == (kind,)
        assert layout._fields[:2] == ("kind", "application" if kind == "boot" else "agent_id")
        assert RECORD_FIELDS[kind] == layout._fields[1:]
        assert layout.__doc__
    assert STEPS.keys() == SOURCES.keys() == KINDS.keys() - {"boot"}
    assert RECORD_FIELDS.keys() == _CHECKS.keys() == KINDS.keys()
    first = FIELDS.index("lsn")
    assert RECORD_FIELDS["import"] == (*FIELDS[:first], "attempt")
    assert OPTIONAL_RECORD_FIELDS.keys() == KINDS.keys()
    outcomes = get_args(get_type_hints(KINDS["result"])["status"])
    assert set(outcomes) == set(VERBS["update_from_result"][1])


def tables_of_kinds() -> Iterator[str]:
    """Yield the modules that list more than half of the kinds in one display."""
    for path in (*ROOT.glob("manager/**/*.py"), *ROOT.glob("tools/journal_inspect/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Dict | ast.Set | ast.List | ast.Tuple):
                keys = node.keys if isinstance(node, ast.Dict) else node.elts
                named = {key.value for key in keys if isinstance(key, ast.Constant)}
                if len(named & KINDS.keys()) > len(KINDS) / 2:
                    yield str(path.relative_to(ROOT))


def test_no_other_module_lists_the_kinds() -> None:
    """A new kind needs two entries, in the table and among the steps.

    `report/fleet.py` lists the kinds that a report draws; any other is a sign of life of its agent.
    """
    tables = ["manager/layouts.py", "manager/steps.py", "tools/journal_inspect/report/fleet.py"]
    assert sorted(tables_of_kinds()) == tables
    assert FleetTimeline()._steps.keys() <= KINDS.keys()


BUILT: dict[str, Callable[[], Record]] = {
    "boot": lambda: records.boot("a boot_id", 1, 2),
    "spawn": lambda: records.spawn(
        "an agent_id",
        1,
        "a boot_id",
        status="queued",
        name="a name",
        agent_type="an agent_type",
        role="a role",
        model="a model",
        prompt="a prompt",
        prompt_bytes_max=100,
        allowed_tools=["allowed_tools"],
        token_budget=3,
        metadata={"metadata": 4},
    ),
    "start": lambda: records.start(1, "a boot_id"),
    "resume": lambda: records.resume(1, "a boot_id", ["checkpoint"], 3),
    "lease": lambda: records.lease(1, "a boot_id", "a worker", 2),
    "report": lambda: records.report("an agent_id", 1, 3),
    "lost": lambda: records.lost("an agent_id", 1, "failed", "a reason"),
    "answer": lambda: records.answer(1, ["answer"]),
    "budget": lambda: records.budget(1, 3),
    "take": lambda: [*records.take(1)[:3], "a taken_by"],
    "checkpoint": lambda: records.checkpoint(1, ["checkpoint"], 2),
    "progress": lambda: records.progress(1, "a text", ["data"], 5),
    "usage": lambda: records.usage(1, 2, 3),
    "usage_once": lambda: records.usage(1, 2, 3, "a source_id"),
    "interrupt": lambda: records.interrupt(
        "an agent_id", 1, "a reason", ["checkpoint"], ["needs_input"]
    ),
    "result": lambda: records.result(
        1,
        "failed",
        result="a result",
        reason="a reason",
        steps_taken=4,
        checkpoint=["checkpoint"],
        needs_input=["needs_input"],
        input_tokens=2,
        output_tokens=3,
    ),
    "cancel": lambda: records.cancel("an agent_id", 1, "a reason"),
    "remove": lambda: records.remove("an agent_id"),
}
EXPECTED: dict[str, Any] = {
    "application": "subagents/1",
    "allowed_tools": ["allowed_tools"],
    "answer": ["answer"],
    "at_ms": 1,
    "data": ["data"],
    "epoch": 2,
    "sequence": 3,
    "keep": 5,
    "checkpoint": ["checkpoint"],
    "input_tokens": 2,
    "metadata": {"metadata": 4},
    "needs_input": ["needs_input"],
    "output_tokens": 3,
    "parent_id": None,
    "pid": 2,
    "spawn_depth": 0,
    "token_budget": 3,
}


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"import"}))
def test_a_record_is_built_in_the_order_of_its_class(kind: str) -> None:
    """Each value is in the field of its name, in the order of the kind's class and of the log."""
    built = BUILT[kind]()
    record_checker(KINDS[kind])(built)
    named = fields_of(built)
    assert named is not None
    assert built[0] == kind
    for name, value in named.items():
        if name == "status":
            assert value in get_args(get_type_hints(KINDS[kind])["status"])
        elif name == "steps_taken":
            assert value == (2 if kind == "checkpoint" else 4)
        elif name == "agent_id":
            assert value in ("", "an agent_id")
        else:
            vowel = "an" if name[0] in "aeiou" else "a"
            assert value == EXPECTED.get(name, f"{vowel} {name}")
    assert agent_of(built) == (None if kind == "boot" else named["agent_id"])


@pytest.mark.parametrize("kind", sorted(STEPS.keys() - {"remove"}))
def test_a_step_copies_each_field_by_its_name(kind: str) -> None:
    """A field that a record and an agent share gets the record's value."""
    lease = {"worker": "w", "epoch": 1, "lsn": 1, "sequence": 0, "lost": 0}
    extras = (1, 1, None, None, lease if kind in ("report", "lost") else None)
    row = (*imported("a")[1:], 1, None, None, extras)
    before = None if kind in ("spawn", "import") else row
    record = a_record(kind, agent_id=agent_id("a"))
    after = STEPS[kind](before, 42, record)
    assert after is not None
    agent = dict(zip(FIELDS, values_of(after), strict=True))
    fields = dict(zip(KINDS[kind]._fields, record, strict=True))
    for name in fields.keys() & agent.keys():
        assert agent[name] == fields[name]
    assert agent["lsn"] == 42
    assert agent["updated_at_ms"] == fields.get("at_ms", fields.get("updated_at_ms"))
    tokens = fields.get("input_tokens", 0) + fields.get("output_tokens", 0)
    assert agent["tokens_used"] == fields.get("tokens_used", tokens)
    if kind in ("start", "resume", "lease"):
        assert agent["started_at_ms"] == fields["at_ms"]
    if agent["status"] in ENDED and kind != "import":
        assert agent["ended_at_ms"] == fields["at_ms"]


ODD: list[Any] = ["", "text", "failed", 0, -1, True, 1.5, None, [], ["t"], {}, b"b"]


@pytest.mark.parametrize("kind", CHANGES)
@given(st.data())
def test_replay_refuses_values_of_wrong_types(kind: str, data: st.DataObject) -> None:
    """P9: The checks that are written out for speed refuse what those of the table refuse."""
    names = [*KINDS[kind]._fields[2:], "one more"]
    name = data.draw(st.sampled_from(names))
    record = a_record(kind, agent_id=agent_id("a"))
    at = 2 + names.index(name)
    record[at : at + 1] = [data.draw(st.sampled_from(ODD))]
    is_valid = True
    try:
        record_checker(KINDS[kind])(record)
    except (TypeError, ValueError):
        is_valid = False
    fleet = Fleet()
    fleet.apply(1, spawn("a", status="queued"))
    fleet.apply(2, spawn("text 3"))  # the agent that a taking names
    started = ["start", agent_id("a"), 1, "boot_1"]
    interrupted = ["interrupt", agent_id("a"), 1, "why", None, None]
    needed = {"start": (), "resume": (started, interrupted), "answer": (started, interrupted)}
    leased = ["lease", agent_id("a"), 1, "boot_1", "worker", 1]
    needed |= {"lease": (), "report": (leased,), "lost": (leased,)}
    needed["take"] = (started, ["cancel", agent_id("a"), 1, None])
    for lsn, before in enumerate(needed.get(kind, (started,)), 3):
        fleet.apply(lsn, before)
    is_accepted = True
    try:
        fleet.apply(10, record)
        fleet.check_replayed()
    except FormatVersionError:
        is_accepted = False
    json_fields = {n for n, hint in get_type_hints(KINDS[kind]).items() if hint is Any}
    is_checked_further = name in json_fields or name in ("taken_by", "source_id")
    assert is_accepted == is_valid or (is_checked_further and not is_accepted)
