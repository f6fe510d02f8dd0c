"""Fleets that no manager wrote, with correct checksums: everything that opens a fleet refuses them,
in bounded time."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from manager import SubAgentManager, read_fleet
from manager._cli.cli import run_cli
from tests.crash.fleet_forge import BASE_LSN, agent_id, forged, imported, item, spawn, write
from tests.crash.fleet_openers import TIME_S, check_refused
from tests.crash.hostile_support import watchdog

A, B = agent_id("a"), agent_id("b")
BOOT = ["boot", "subagents/1", "boot_1", 1, 1]
USAGE = ["usage", A, 2, 3, 4]

# --- parents and depths ---

# Each agent with its parent and depth, and the field that is refused.
Tree = list[tuple[str, str | None, int]]
GOOD: Tree = [("a", None, 0), ("b", "a", 1), ("c", "b", 2), ("d", "b", 2), ("e", None, 0)]
LINES: dict[str, tuple[Tree, str]] = {
    "its own parent": ([("a", "a", 0)], "spawn_depth"),
    "its own parent, one deeper": ([("a", "a", 1)], "spawn_depth"),
    "two that are each other's parents": ([("a", "b", 1), ("b", "a", 0)], "spawn_depth"),
    "each other's parents, at the same depth": ([("a", "b", 1), ("b", "a", 1)], "spawn_depth"),
    "each other's parents, each deeper": ([("a", "b", 1), ("b", "a", 2)], "spawn_depth"),
    "a circle of three": ([("a", "c", 0), ("b", "a", 1), ("c", "b", 2)], "spawn_depth"),
    "a circle beside a tree": ([*GOOD, ("x", "y", 4), ("y", "x", 3)], "spawn_depth"),
    "a circle below a tree": ([*GOOD, ("x", "z", 3), ("z", "x", 4)], "spawn_depth"),
    "a circle with an agent below it": (
        [("a", "b", 1), ("b", "a", 2), ("c", "b", 3)],
        "spawn_depth",
    ),
    "an unknown parent": ([("a", "x", 1)], "parent_id"),
    "an unknown grandparent": ([*GOOD, ("x", "y", 2), ("y", "z", 1)], "parent_id"),
    "a root at depth 1": ([("a", None, 1)], "spawn_depth"),
    "a root at depth -1": ([("a", None, -1)], "spawn_depth"),
    "a child at its parent's depth": ([("a", None, 0), ("b", "a", 0)], "spawn_depth"),
    "a grandchild too deep": ([*GOOD, ("x", "c", 4)], "spawn_depth"),
    "children of different depth": ([("b", "x", 1), ("a", "x", 2), ("x", None, 0)], "spawn_depth"),
}


@pytest.mark.parametrize(("line", "field"), LINES.values(), ids=LINES.keys())
@pytest.mark.parametrize(
    "records",
    [[], pytest.param([USAGE], marks=pytest.mark.slow), [BOOT, USAGE]],
    ids=["", "usage", "boot"],
)
@pytest.mark.parametrize("turn", [1, -1], ids=["forwards", "backwards"])
def test_a_checkpoint_with_a_cycle_of_parents_is_refused(
    tmp_path: Path, line: Tree, field: str, records: list[Any], turn: int
) -> None:
    """P9: Each agent in a checkpoint has a parent in it that is one level higher, or is a root.

    The order of the agents does not matter. A checkpoint that breaks the rule is refused before a
    record is applied to it.
    """
    items = [item(*each) for each in line][::turn]
    check_refused(tmp_path, items, records, f"{BASE_LSN}", "checkpoint", "item ", field)


@pytest.mark.parametrize("kind", [spawn, imported])
@pytest.mark.parametrize(("line", "field"), LINES.values(), ids=LINES.keys())
def test_a_record_that_names_a_later_parent_is_refused(
    tmp_path: Path, line: Tree, field: str, kind: Callable[..., list[Any]]
) -> None:
    """P9: A record whose parent is itself or a later agent is refused with its LSN."""
    wrong_lsn = next(
        lsn
        for lsn, (letter, parent, depth) in enumerate(line, 2)
        if (letter, parent, depth) not in GOOD
    )
    records = [BOOT, *(kind(*each) for each in line), USAGE]
    check_refused(tmp_path, None, records, f"LSN {wrong_lsn}", kind("a")[0])


def test_checkpoint_items_may_come_in_any_order(tmp_path: Path) -> None:
    """A child may come before its parent, because the last agent takes a removed agent's place."""
    for number, line in enumerate(permutations(GOOD)):
        workspace = tmp_path / str(number)
        workspace.mkdir()
        directory = write(workspace, forged([item(*each) for each in line], [USAGE]))
        assert {agent.tokens_used for agent in read_fleet(directory).agents()} == {7, 0}
        if number % 30 == 0:
            with SubAgentManager.open(workspace) as manager:
                assert len(manager.cancel(A, descendants=True).agent_id) == len(A)
                assert manager.counts()["cancelled"] == 4


# --- the values of fields ---

_HALF = "\ud800"
ITEMS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown status": ({"status": "weird"}, "status"),
    "no status": ({"status": None}, "status"),
    "an id that is a list": ({"agent_id": [1]}, "agent_id"),
    "an id that is a map": ({"agent_id": {}}, "agent_id"),
    "no id": ({"agent_id": None}, "agent_id"),
    "an empty id": ({"agent_id": "", "name": "x"}, "agent_id"),
    "an id of 257 bytes": ({"agent_id": "é" * 128 + "x", "name": "x"}, "agent_id"),
    "an empty name": ({"name": ""}, "name"),
    "a name of 257 bytes": ({"name": "é" * 128 + "x"}, "name"),
    "a name in the form of an id": ({"name": B}, "name"),
    **{
        f"half a surrogate pair in {field}": ({field: _HALF}, field)
        for field in (
            "name",
            "agent_type",
            "role",
            "model",
            "prompt",
            "reason",
            "result",
            "boot_id",
        )
    },
    "half a surrogate pair in an id": ({"agent_id": _HALF, "name": "x"}, "agent_id"),
    "half a surrogate pair in metadata": ({"metadata": {"k": [_HALF]}}, "metadata"),
    "half a surrogate pair as a key": ({"metadata": {_HALF: 1}}, "metadata"),
    "half a surrogate pair in a tool": ({"allowed_tools": [_HALF]}, "allowed_tools"),
    "infinity in metadata": ({"metadata": {"k": math.inf}}, "metadata"),
    "infinity in a checkpoint": ({"checkpoint": math.inf}, "checkpoint"),
    "65 bits in a checkpoint": ({"checkpoint": 2**64}, "checkpoint"),
    "101 levels of nesting": ({"needs_input": eval("[" * 101 + "]" * 101)}, "needs_input"),
    "metadata that is a list": ({"metadata": []}, "metadata"),
    "a tool that is a number": ({"allowed_tools": [1]}, "allowed_tools"),
    "tools that are a string": ({"allowed_tools": "all"}, "allowed_tools"),
    "10^40 tokens": ({"tokens_used": 10**40}, "tokens_used"),
    "2^64 tokens": ({"tokens_used": 2**64}, "tokens_used"),
    "negative tokens": ({"tokens_used": -1}, "tokens_used"),
    "a fraction of a token": ({"tokens_used": 1.0}, "tokens_used"),
    "a budget of 0": ({"token_budget": 0}, "token_budget"),
    "True as the number of steps": ({"steps_taken": True}, "steps_taken"),
    "False as a depth": ({"spawn_depth": False}, "spawn_depth"),
    "a time that is a string": ({"created_at_ms": "1"}, "created_at_ms"),
    "a time before 1970": ({"started_at_ms": -1}, "started_at_ms"),
    "no time": ({"updated_at_ms": None}, "updated_at_ms"),
    "a time of 65 bits": ({"created_at_ms": 2**64}, "created_at_ms"),
    "an end time of a running agent": ({"ended_at_ms": 2}, "ended_at_ms"),
    "no end time of an ended agent": ({"status": "failed"}, "ended_at_ms"),
    "an LSN after the checkpoint's": ({"lsn": BASE_LSN + 1}, "lsn"),
    "a negative LSN": ({"lsn": -1}, "lsn"),
    "attempt 0": ({"attempt": 0}, "attempt"),
    "no attempt": ({"attempt": None}, "attempt"),
    "a taker of a live agent": ({"taken_by": A, "taken_at_ms": 1}, "taken_by"),
    "a taker without a time": (
        {"status": "failed", "ended_at_ms": 1, "taken_by": A},
        "taken_at_ms",
    ),
    "no events of progress": ({"progress": []}, "progress"),
    "an event that is a map": ({"progress": [{}]}, "progress"),
    "events in the wrong order": (
        {"progress": [[2, 1, "x", None], [1, 1, "x", None]]},
        "progress",
    ),
    "an event without a text": ({"progress": [[1, 1, None, None]]}, "progress"),
    "infinity in an event": ({"progress": [[1, 1, "x", math.inf]]}, "data"),
    "infinity in an answer": ({"answer": [math.inf]}, "answer"),
    "negative starts": ({"starts": -1}, "starts"),
}


@pytest.mark.parametrize(("changes", "field"), ITEMS.values(), ids=ITEMS.keys())
def test_a_checkpoint_item_with_an_invalid_field_is_refused(
    tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    """P9: A value that no method of a manager accepts is refused, naming its item and field."""
    items = [item("b"), item("a", **changes)]
    check_refused(tmp_path, items, [], f"checkpoint-{BASE_LSN:020d}.json", "item 2", field)


@pytest.mark.parametrize("other", [{"name": "ann"}, {"agent_id": A, "name": "bob"}])
def test_duplicate_ids_and_names_in_a_checkpoint_are_refused(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    """P9: No id occurs twice in a checkpoint, and no two live agents have the same name."""
    items = [item("a", name="ann"), item("b", **other)]
    check_refused(tmp_path, items, [], "item 2", "name" if "ann" in other.values() else "agent_id")


# After these, `a` runs, `b` is its queued child, `c` and `d` have ended, and `i` is
# interrupted. The next record is wrong.
BEFORE = [
    BOOT,
    spawn("a", name="ann"),
    spawn("b", "a", 1, status="queued"),
    spawn("c", status="queued"),
    ["cancel", agent_id("c"), 1, None],
    spawn("d", status="queued"),
    spawn("e", "d", 1, status="queued"),
    ["cancel", agent_id("d"), 1, None],
    spawn("i"),
    ["interrupt", agent_id("i"), 1, "why", None, "what?"],
    ["take", agent_id("d"), 1, agent_id("a")],
    ["usage", agent_id("a"), 1, 1, 1, "resp_1"],
]
C, D, I, UNKNOWN = agent_id("c"), agent_id("d"), agent_id("i"), agent_id("z")  # noqa: E741
RECORDS: dict[str, tuple[Any, str]] = {
    # The agent is wrong.
    "a start of an unknown agent": (["start", UNKNOWN, 1, "b"], "agent_id"),
    "a resume of an unknown agent": (["resume", UNKNOWN, 1, "b"], "agent_id"),
    "a checkpoint of an unknown agent": (["checkpoint", UNKNOWN, 1, None, 1], "agent_id"),
    "usage of an unknown agent": (["usage", UNKNOWN, 1, 1, 1], "agent_id"),
    "an interruption of an unknown agent": (["interrupt", UNKNOWN, 1, "r", None, None], "agent_id"),
    "a result of an unknown agent": (
        ["result", UNKNOWN, 1, "failed", None, None, None, None, None, 0, 0],
        "agent_id",
    ),
    "a cancellation of an unknown agent": (["cancel", UNKNOWN, 1, None], "agent_id"),
    "a removal of an unknown agent": (["remove", UNKNOWN], "agent_id"),
    "a number as an id": (["usage", 7, 1, 1, 1], "agent_id"),
    "nil as an id": (["remove", None], "agent_id"),
    "a list as an id": (["usage", [A], 1, 1, 1], "not a record"),
    "a spawn of an existing id": (spawn("a"), "agent_id"),
    "an import of an existing id": (imported("c"), "agent_id"),
    "a spawn without an id": (spawn("", name="x"), "agent_id"),
    "a spawn with a number as its id": (spawn("z", agent_id=7), "agent_id"),
    "a spawn with a live agent's name": (spawn("z", name="ann"), "name"),
    "an import with a live agent's name": (imported("z", name="ann"), "name"),
    "a spawn with an empty name": (spawn("z", name=""), "name"),
    "a name in the form of an id": (spawn("z", name=A), "name"),
    # The status or the time is wrong.
    "a start of a running agent": (["start", A, 1, "b"], "running"),
    "a start of an ended agent": (["start", C, 1, "b"], "cancelled"),
    "a resume of an ended agent": (["resume", C, 1, "b"], "cancelled"),
    "a checkpoint of a queued agent": (["checkpoint", B, 1, None, 1], "queued"),
    "a result of a queued agent": (
        ["result", B, 1, "failed", None, None, None, None, None, 0, 0],
        "queued",
    ),
    "an interruption of an ended agent": (["interrupt", C, 1, "r", None, None], "cancelled"),
    "a cancellation of an ended agent": (["cancel", C, 1, None], "cancelled"),
    "a removal of a running agent": (["remove", A], "running"),
    "a removal of a parent": (["remove", D], "children"),
    # A value is wrong.
    "a spawn of a completed agent": (spawn("z", status="completed"), "status"),
    "a spawn of an interrupted agent": (spawn("z", status="interrupted"), "status"),
    "a spawn with an unknown status": (spawn("z", status="weird"), "status"),
    "a spawn without a status": (spawn("z", status=None), "status"),
    "an import with an unknown status": (imported("z", status="weird"), "status"),
    "an import of an ended agent without an end time": (
        imported("z", status="failed"),
        "ended_at_ms",
    ),
    "a result with an unknown status": (
        ["result", A, 1, "weird", None, None, None, None, None, 0, 0],
        "status",
    ),
    "a result with status queued": (
        ["result", A, 1, "queued", None, None, None, None, None, 0, 0],
        "status",
    ),
    "a result that is a number": (
        ["result", A, 1, "failed", 7, None, None, None, None, 0, 0],
        "result",
    ),
    "a reason that is a map": (
        ["result", A, 1, "failed", None, {}, None, None, None, 0, 0],
        "reason",
    ),
    "negative steps": (["result", A, 1, "failed", None, None, -1, None, None, 0, 0], "steps_taken"),
    "negative tokens of a result": (
        ["result", A, 1, "failed", None, None, None, None, None, 0, -1],
        "output_tokens",
    ),
    "negative tokens": (["usage", A, 1, -1, 1], "input_tokens"),
    "True as the number of tokens": (["usage", A, 1, 1, True], "output_tokens"),
    "a fraction of tokens": (["usage", A, 1, 0.5, 1], "input_tokens"),
    "steps that are nil": (["checkpoint", A, 1, None, None], "steps_taken"),
    "a time that is a string": (["usage", A, "1", 1, 1], "at_ms"),
    "a time before 1970": (["start", B, -1, "b"], "at_ms"),
    "a time that is nil": (["cancel", A, None, None], "at_ms"),
    "a session that is a number": (["start", B, 1, 7], "boot_id"),
    "a reason that is nil": (["interrupt", A, 1, None, None, None], "reason"),
    "a cancellation with a number as its reason": (["cancel", A, 1, 7], "reason"),
    "bytes in metadata": (spawn("z", metadata={"k": b"x"}), "metadata"),
    "a map with a number as a key": (spawn("z", metadata={1: 2}), "metadata"),
    "a tool that is a number": (spawn("z", allowed_tools=[7]), "allowed_tools"),
    "a prompt that is nil": (spawn("z", prompt=None), "prompt"),
    "a budget of 0": (spawn("z", token_budget=0), "token_budget"),
    "bytes in a checkpoint": (["checkpoint", A, 1, [b"x"], 1], "checkpoint"),
    "empty bytes in a checkpoint": (["checkpoint", A, 1, b"", 1], "checkpoint"),
    "NaN in a checkpoint": (["checkpoint", A, 1, math.nan, 1], "checkpoint"),
    "infinity in needs_input": (["interrupt", A, 1, "r", None, math.inf], "needs_input"),
    # The number of fields is wrong.
    "a start with too few fields": (["start", B, 1], "3 fields, not 4"),
    "a start with too many fields": (["start", B, 1, "b", 9], "5 fields, not 4"),
    "a removal with too many fields": (["remove", C, 1], "3 fields, not 2"),
    "a spawn with too few fields": (spawn("z")[:-1], "14 fields, not 15"),
    "an import with too few fields": (imported("z")[:-1], "23 fields, not 24"),
    "an interruption of an interrupted agent": (
        ["result", I, 1, "interrupted", None, None, None, None, None, 0, 0],
        "interrupted",
    ),
    "an answer of a running agent": (["answer", A, 1, "yes"], "running"),
    "an answer of nil": (["answer", I, 1, None], "answer"),
    "bytes as an answer": (["answer", I, 1, b"x"], "answer"),
    "a resumption with a checkpoint of bytes": (["resume", I, 1, "b", b"x", None], "checkpoint"),
    "a resumption with a budget of 0": (["resume", I, 1, "b", None, 0], "token_budget"),
    "a resumption with a fraction": (["resume", I, 1, "b", None, 1.5], "token_budget"),
    "a taking of a running agent": (["take", A, 1, B], "running"),
    "a taking by an unknown agent": (["take", C, 1, UNKNOWN], "taken_by"),
    "a taking by itself": (["take", C, 1, C], "taken_by"),
    "a second taking": (["take", D, 1, A], "taken before"),
    "usage of a counted source": (["usage", A, 1, 1, 1, "resp_1"], "counted before"),
    "usage of an empty source": (["usage", A, 1, 1, 1, ""], "source_id"),
    "usage of a source that is a number": (["usage", A, 1, 1, 1, 7], "source_id"),
    "progress of a queued agent": (["progress", B, 1, "x", None, 1], "queued"),
    "progress that keeps nothing": (["progress", A, 1, "x", None, 0], "keep"),
    "progress without a text": (["progress", A, 1, None, None, 1], "text"),
    "progress with bytes": (["progress", A, 1, "x", b"x", 1], "data"),
    "a budget of nothing": (["budget", A, 1, 0], "token_budget"),
    "a budget of an unknown agent": (["budget", UNKNOWN, 1, 1], "agent_id"),
    "an import with too many fields": ([*imported("z"), 2, 3], "26 fields, not 24"),
    "an import of attempt 0": ([*imported("z"), 0], "attempt"),
    "a spawn of attempt 0": (spawn("z", attempt=0), "attempt"),
    "a spawn of attempt nil": (spawn("z", attempt=None), "attempt"),
    "a spawn without fields": (["spawn"], "not a record"),
    "a map": ({0: "usage", 1: A, 2: 1, 3: 1, 4: 1}, "not a"),
    "a boot with a number as its id": (["boot", "subagents/1", 7, 1, 1], "not a record"),
    "a boot with too few fields": (["boot", "subagents/1", "b"], "not a record"),
    "a boot with a negative time": (["boot", "subagents/1", "b", -1, 1], "not a record"),
}


@pytest.mark.parametrize(("record", "expected"), RECORDS.values(), ids=RECORDS.keys())
def test_a_record_that_no_manager_would_write_is_refused(
    tmp_path: Path, record: Any, expected: str
) -> None:
    """P9: All readers refuse a record that no manager would have written at this point.

    The message names the record's LSN and field.
    """
    check_refused(tmp_path, None, [*BEFORE, record], f"LSN {len(BEFORE) + 1}", expected)


def test_an_unusual_fleet_that_a_manager_could_write_opens(tmp_path: Path) -> None:
    """A manager reads back all that it accepts.

    That includes the longest names, ids of another program, names of ended agents, and as many
    tokens as 64 bits count.
    """
    ended_fields: dict[str, Any] = {"status": "failed", "ended_at_ms": 1}
    items = [
        item("a", name="é" * 128, tokens_used=2**64 - 1, created_at_ms=0),
        item("é" * 128, agent_id="é" * 128, name="x", boot_id="", updated_at_ms=2**64 - 1),
        item("b", "a", 1, name="twice", **ended_fields),
        item("c", "a", 1, name="twice", **ended_fields),
        item("d", "b", 2, name="twice", checkpoint=eval("[" * 100 + "]" * 100)),
        item("e", name=" ", allowed_tools=[], token_budget=1, metadata={"é": [1.5, -1, None]}),
    ]
    records = [USAGE, imported("z", name="ann", **ended_fields), spawn("y", "d", 3, name="ann")]
    directory = write(tmp_path, forged(items, records))
    assert read_fleet(directory).get(A).tokens_used == 2**64 - 1
    with SubAgentManager.open(tmp_path) as manager:
        assert len(manager.agents(include_archived=True)) == 8
        manager.compact()
    with SubAgentManager.open(tmp_path) as manager:
        assert len(manager.agents(include_archived=True)) == 8


SOURCES: dict[str, Any] = {
    "of an unknown agent": {"usage_sources": ["x"], "of_agent": B},
    "of nobody": {"usage_sources": ["x"]},
    "of a list": {"usage_sources": ["x"], "of_agent": [A]},
    "counted twice": {"usage_sources": ["x", "x"], "of_agent": A},
    "a map": {"usage_sources": {"x": 1}, "of_agent": A},
    "a number": {"usage_sources": [7], "of_agent": A},
    "empty": {"usage_sources": [""], "of_agent": A},
}


@pytest.mark.parametrize("sources", SOURCES.values(), ids=SOURCES.keys())
def test_wrong_sources_of_usage_are_refused(tmp_path: Path, sources: Any) -> None:
    """P9: An item of sources names an agent before it, and each of its sources once."""
    check_refused(tmp_path, [item("a"), sources], [], f"checkpoint-{BASE_LSN:020d}.json", "usage_")


def test_a_checkpoint_without_later_records_is_complete(tmp_path: Path) -> None:
    """A reader reports a running agent as interrupted without a record that says so."""
    directory = write(tmp_path, forged([item("a", lsn=BASE_LSN)], []))
    assert read_fleet(directory).get(A).status == "interrupted"


# --- the command line ---


@pytest.mark.parametrize("args", [["list"], ["list", "-f"], ["list", "-o", "json"], ["show", A]])
def test_the_command_line_names_the_file_and_the_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str]
) -> None:
    """The command exits with 4 and prints one line with the file and the field, no traceback."""
    wrong_fields: list[dict[str, Any]] = [{"status": "weird"}, {"agent_id": [1]}, {"prompt": _HALF}]
    for number, changes in enumerate(wrong_fields):
        workspace = tmp_path / str(number)
        workspace.mkdir()
        directory = write(workspace, forged([item("a", **changes)], []))
        with watchdog(TIME_S):
            assert run_cli([*args, "--workspace", str(workspace)]) == 4
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"subagents: {directory}/checkpoint-")
        assert all(field in err for field in changes)
        assert err.count("\n") == 1
