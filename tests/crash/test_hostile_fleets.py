"""Fleets that no manager wrote, with correct checksums: everything that opens a fleet refuses them,
in bounded time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from manager import SubAgentManager, read_fleet
from manager._cli.cli import run_cli
from tests.crash.fleet_forge import BASE_LSN, forged, imported, item, spawn, write
from tests.crash.fleet_openers import TIME_S, check_refused
from tests.crash.hostile_fleets import BEFORE, BOOT, HALF, ITEMS, RECORDS, USAGE, A, B
from tests.crash.hostile_support import watchdog
from tests.tiers import slow_but_every, slow_unless

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
@pytest.mark.parametrize(
    "turn", [1, pytest.param(-1, marks=pytest.mark.slow)], ids=["forwards", "backwards"]
)
def test_a_checkpoint_with_a_cycle_of_parents_is_refused(
    tmp_path: Path, line: Tree, field: str, records: list[Any], turn: int
) -> None:
    """P9: Each agent in a checkpoint has a parent in it that is one level higher, or is a root.

    The order of the agents does not matter. A checkpoint that breaks the rule is refused before a
    record is applied to it.
    """
    items = [item(*each) for each in line][::turn]
    check_refused(tmp_path, items, records, f"{BASE_LSN}", "checkpoint", "item ", field)


@pytest.mark.parametrize("kind", slow_unless(lambda kind: kind is spawn, [spawn, imported]))
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


@pytest.mark.parametrize(("changes", "field"), slow_but_every(4, ITEMS.values()), ids=ITEMS.keys())
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


@pytest.mark.parametrize(
    ("record", "expected"), slow_but_every(4, RECORDS.values()), ids=RECORDS.keys()
)
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
    wrong_fields: list[dict[str, Any]] = [{"status": "weird"}, {"agent_id": [1]}, {"prompt": HALF}]
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
