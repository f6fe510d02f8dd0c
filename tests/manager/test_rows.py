"""The row of an agent: its fields, and the tuple of rare ones that agents share."""

from __future__ import annotations

from typing import cast

from manager import Agent, columns
from manager.agent import (
    EXTRA_FIELDS,
    FIELDS,
    NEVER_STARTED,
    ROW_FIELDS,
    STARTED_ONCE,
    agent_from_row,
    extras,
    get,
)
from manager.steps import advance
from tests.manager.fleet_support import values_of


def test_a_field_of_a_row_is_read_by_its_name() -> None:
    """A row holds the fields of an Agent, and every accessor and constant matches its field."""
    assert sorted((*ROW_FIELDS[:-1], *EXTRA_FIELDS)) == sorted(FIELDS)
    names = (*ROW_FIELDS[:-1], EXTRA_FIELDS)
    named = {name: getattr(get, name)(names) for name in vars(get) if name in FIELDS}
    assert named.keys() >= set(EXTRA_FIELDS)
    assert all(name == read for name, read in named.items())
    indices = {name: at for name, at in vars(columns).items() if type(at) is int}
    assert indices.keys() >= {"AGENT_ID", "TAKEN_AT_MS", "LEASE"}
    for name, at in indices.items():
        fields = EXTRA_FIELDS if name.lower() in EXTRA_FIELDS else ROW_FIELDS
        assert fields[at].upper() == name
    values = {field: f"value of {field}" for field in FIELDS} | {"allowed_tools": None}
    values["progress"] = values["lease"] = None
    first = (values[name] for name in ROW_FIELDS[:-1])
    row = (*first, tuple(values[name] for name in EXTRA_FIELDS))
    built = agent_from_row(row, "boot_1")
    assert {field: getattr(built, field) for field in FIELDS} == values
    assert values_of(row) == tuple(values.values())


def test_agents_without_rare_fields_share_a_tuple() -> None:
    """Agents that have only small numbers in their extra fields share them, so that rows are short.

    The tuple of an agent with a value of another type that equals such a number is its own.
    """
    assert extras(1, 1) is extras(1, 1) is STARTED_ONCE
    assert extras(2, 7) is extras(2, 7) is not extras(7, 2)
    for odd in (True, 1.0, -1, 1 << 64, "1", [1], None):
        made = extras(cast("int", odd), 1)
        assert made[0] is odd
        assert made is not extras(cast("int", odd), 1)
    spawn = ["spawn", "a", 7, "b", None, 0, "queued", None, "t", None, None, "p", None, None, {}]
    queued = advance(None, 1, spawn)
    running = advance(queued, 2, ["start", "a", 8, "b"])
    answered = advance(
        advance(running, 3, ["interrupt", "a", 9, "r", None, "?"]), 4, ["answer", "a", 9, "yes"]
    )
    assert queued[-1] is NEVER_STARTED
    assert running[-1] is STARTED_ONCE
    assert answered[-1] == (1, 1, "yes", None, None)
    assert advance(answered, 5, ["resume", "a", 9, "b"])[-1] == (1, 2, "yes", None, None)
    assert advance(running, 5, ["resume", "a", 9, "b"])[-1] is extras(1, 2)
    assert STARTED_ONCE == (1, 1, None, None, None)


def test_each_value_of_a_spawn_record_reaches_its_field() -> None:
    """Each value of a spawn record ends up in the agent's field of the same name."""
    record = [
        *("spawn", "agent_1", 7, "boot_1", "agent_0", 2, "running", "name", "type", "role"),
        *("model", "prompt", ["tool"], 500, {"meta": 1}),
    ]
    assert agent_from_row(advance(None, 42, record), "boot_1") == Agent(
        agent_id="agent_1",
        name="name",
        agent_type="type",
        role="role",
        model="model",
        prompt="prompt",
        status="running",
        reason=None,
        result=None,
        steps_taken=0,
        checkpoint=None,
        needs_input=None,
        allowed_tools=("tool",),
        parent_id="agent_0",
        spawn_depth=2,
        token_budget=500,
        tokens_used=0,
        metadata={"meta": 1},
        created_at_ms=7,
        started_at_ms=7,
        updated_at_ms=7,
        ended_at_ms=None,
        boot_id="boot_1",
        from_prior_session=False,
        lsn=42,
        attempt=1,
        starts=1,
    )
    record[6:8] = ["queued", None]
    queued = agent_from_row(advance(None, 42, record), "boot_2")
    assert (queued.status, queued.name, queued.started_at_ms) == ("queued", "agent_1", None)
    assert queued.from_prior_session
    assert (queued.attempt, queued.starts) == (1, 0)
    assert agent_from_row(advance(None, 42, [*record, 3]), "boot_2").attempt == 3
