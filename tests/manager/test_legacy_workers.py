"""Moving over from the older tool and back: a file of its real shape keeps what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manager import (
    RECORD_FIELDS,
    Agent,
    AgentResult,
    BudgetError,
    LegacyError,
    Limits,
    SubAgentManager,
)
from manager._cli.cli import run_cli
from manager.importing import import_records
from manager.legacy import read_legacy
from manager.legacy_export import exported

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "older_tool" / "subagents.v1.json"
LEAD, TESTS, DOCS, ASK = (f"agent_3c10aa0{number}" for number in range(4))
KEEP = Limits(keep_ended_s=None)


def imported(folder: Path, file: Path, **options: Any) -> dict[str, Agent]:
    folder.mkdir(exist_ok=True)
    with SubAgentManager.open(folder, limits=KEEP) as manager:
        manager.import_legacy(file, **options)
        return {agent.agent_id: agent for agent in manager.agents(include_archived=True)}


def file_of(folder: Path, *agents: Any, **others: Any) -> Path:
    path = folder / "subagents.json"
    path.write_text(json.dumps({"schema_version": 1, "agents": [*agents]} | others))
    return path


def agent(agent_id: str, status: Any = "Completed") -> dict[str, Any]:
    return {"id": agent_id, "prompt": "p", "status": status}


def worker(agent_id: str, parent: str | None = None, **usage: Any) -> dict[str, Any]:
    return {"spec": {"worker_id": agent_id, "parent_run_id": parent}, "usage": usage}


def test_a_file_of_the_real_shape_keeps_parents_tokens_and_budgets(tmp_path: Path) -> None:
    """Workers are found by `spec.worker_id` and `spec.run_id`. Their parents, depths, tokens and
    budgets become the agents', and a worker of nobody is kept."""
    agents = imported(tmp_path / "one", GOLDEN)
    family = {ref: (a.parent_id, a.spawn_depth) for ref, a in agents.items()}
    assert family == {LEAD: (None, 0), TESTS: (LEAD, 1), DOCS: (TESTS, 2), ASK: (None, 0)}
    used = {ref: a.tokens_used for ref, a in agents.items()}
    assert used == {LEAD: 4000, TESTS: 1055, DOCS: 55, ASK: 0}  # the lead's budget says 4000
    assert agents[LEAD].token_budget == 5000
    assert agents[DOCS].metadata["workers"][0]["spec"]["tool_profile"] == {
        "explicit": ["read", "write"]
    }
    (ownerless,) = agents[TESTS].metadata["ownerless_workers"]
    assert ownerless["spec"]["worker_id"] == "fleet_0001"
    assert (agents[LEAD].status, agents[LEAD].checkpoint["steps"]) == ("interrupted", 3)
    assert agents[ASK].needs_input == {"question": "red or blue?"}


def test_an_export_is_imported_as_it_was(tmp_path: Path) -> None:
    """The command exports the same format, and an import of the export gives the same agents."""
    first = imported(tmp_path / "one", GOLDEN)
    back = tmp_path / "back.json"
    assert run_cli(["export", str(back), "--workspace", str(tmp_path / "one")]) == 0
    assert back.stat().st_mode & 0o777 == 0o600
    second = imported(tmp_path / "two", back)
    assert second.keys() == first.keys()
    for agent_id, before in first.items():
        after = second[agent_id]
        for each in (before, after):
            for key in ("workers", "ownerless_workers"):
                each.metadata.pop(key, None)
        assert replace(after, lsn=before.lsn) == before
    document = json.loads(back.read_text())
    assert document.keys() == {"schema_version", "agents", "workers"}
    golden = json.loads(GOLDEN.read_text())
    assert {each["id"] for each in document["agents"]} == {each["id"] for each in golden["agents"]}
    for key in golden["workers"][0]:
        assert key in document["workers"][-1]
    assert run_cli(["export", str(back), "--workspace", str(tmp_path / "one")]) == 4  # it exists


def test_any_fleet_can_be_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fleet that was never imported is exported with its parents, tokens and budgets. A queued or
    running agent becomes interrupted."""
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("lead", name="lead", token_budget=100, role="boss")
        manager.spawn("part", name="part", parent_id="lead", allowed_tools=["a"])
        manager.spawn("later", name="later", queued=True)
        manager.record_usage("part", input_tokens=5, output_tokens=6)
        manager.update_from_result("part", AgentResult("done", status="budget_exhausted"))
        manager.record_usage("lead", input_tokens=1, output_tokens=0)
        before = {agent.name: agent for agent in manager.agents()}
        document = exported(manager.agents())
        manager.wait_durable()
        assert run_cli(["export", "-", "--workspace", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out).keys() == document.keys()
    path = file_of(tmp_path, *document["agents"], workers=document["workers"])
    after = {agent.name: agent for agent in imported(tmp_path / "two", path).values()}
    for name in ("lead", "part", "later"):
        for field in ("agent_id", "parent_id", "token_budget", "tokens_used", "prompt", "role"):
            assert getattr(after[name], field) == getattr(before[name], field)
    assert (after["part"].status, after["part"].result) == ("budget_exhausted", "done")
    assert {after[name].status for name in ("lead", "later")} == {"interrupted"}


@pytest.mark.parametrize(
    "value", [3, "x", ["x"], {"agents": 3}, [[]], [{"spec": 1}], [{"usage": "x"}, {}], {}]
)
def test_metadata_of_any_shape_can_be_exported(tmp_path: Path, value: Any) -> None:
    """Metadata that bear a name of the older tool's format are left out if they do not fit into it,
    and can neither stop an export nor spoil the file."""
    names = ["legacy_file", "ownerless_workers", "workers", "assignment", "objective"]
    names += ["session_name", "nickname", "status", "id", "usage"]
    with SubAgentManager.open(tmp_path) as manager:
        spawned = manager.spawn("p", name="a", metadata=dict.fromkeys(names, value) | {"k": value})
        document = exported(manager.agents())
    path = file_of(tmp_path, *document["agents"], workers=document["workers"])
    after = imported(tmp_path / "two", path)[spawned.agent_id]
    assert (after.prompt, after.metadata["k"]) == ("p", value)


def test_a_spent_budget_stays_spent(tmp_path: Path) -> None:
    """An agent whose budget the older tool counted as spent can't be resumed."""
    spent = worker("a", token_budget=10, budget_spent_tokens=10, total_tokens=3)
    file = file_of(tmp_path, agent("a", "Running"), workers=[spent])
    with SubAgentManager.open(tmp_path) as manager:
        manager.import_legacy(file)
        with pytest.raises(BudgetError):
            manager.resume("a")


def test_a_parent_that_is_gone_makes_a_root(tmp_path: Path) -> None:
    """A child that is imported after its parent was removed is below it again, or a root if the
    parent's file is not imported again."""
    parents = [worker("a"), worker("b", "a")]
    with SubAgentManager.open(tmp_path, limits=KEEP) as manager:
        both = (agent("a"), agent("b", "Running"))
        manager.import_legacy(file_of(tmp_path, *both, workers=parents))
        manager.cancel("b")
        manager.cleanup(0)
        fleet = manager._state.machine
        batches = read_legacy(
            file_of(tmp_path, *both, workers=parents),
            at_ms=1,
            limits=KEEP,
            record_bytes_max=1 << 20,
        )
        (child,) = [each for batch in batches for each in batch if each.agent_id == "b"]
        ((_, record),) = import_records(fleet, agents=[child])
        assert imported_place(record) == (None, 0)
        manager.import_legacy(file_of(tmp_path, *both, workers=parents))
        assert (manager.get("b").parent_id, manager.get("b").spawn_depth) == ("a", 1)


def imported_place(record: list[Any]) -> tuple[Any, ...]:
    return tuple(
        record[RECORD_FIELDS["import"].index(name) + 1] for name in ("parent_id", "spawn_depth")
    )


@pytest.mark.parametrize("line", [[("a", "b"), ("b", "a")], [("a", "b"), ("b", "c"), ("c", "b")]])
def test_a_circle_of_parents_is_refused(tmp_path: Path, line: list[tuple[str, str]]) -> None:
    """An agent that is its own ancestor makes the whole file invalid."""
    file = file_of(
        tmp_path,
        *(agent(name) for name, _ in line),
        workers=[worker(name, parent) for name, parent in line],
    )
    with (
        SubAgentManager.open(tmp_path) as manager,
        pytest.raises(LegacyError, match="its own ancestor"),
    ):
        manager.import_legacy(file)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "usage that is a list": ({"usage": []}, r"workers\[0\]\.usage"),
    "a spec that is a text": ({"spec": "x"}, r"workers\[0\]\.spec"),
    "negative tokens": ({"usage": {"total_tokens": -1}}, r"workers\[0\]\.usage\.total_tokens"),
    "a budget that is a text": ({"usage": {"token_budget": "1"}}, "usage.token_budget"),
}


@pytest.mark.parametrize(("changes", "place"), BAD.values(), ids=BAD.keys())
def test_a_wrong_worker_is_refused_by_its_place(
    tmp_path: Path, changes: dict[str, Any], place: str
) -> None:
    """A value of a wrong type in a worker refuses the whole file, and names the place."""
    file = file_of(tmp_path, agent("a"), workers=[{"id": "a"} | changes])
    with SubAgentManager.open(tmp_path) as manager, pytest.raises(LegacyError, match=place):
        manager.import_legacy(file)


def test_agents_of_unknown_statuses_may_be_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown status refuses the file, or, if asked for, only its agent, which is named."""
    file = file_of(tmp_path, agent("a"), agent("b", "Queued"), workers=[worker("b")])
    command = ["import", str(file), "--workspace", str(tmp_path)]
    assert run_cli(command) == 4
    assert "agents[1].status" in capsys.readouterr().err
    assert run_cli([*command, "--skip-unknown"]) == 0
    err = capsys.readouterr().err
    assert "agents[1].status" in err
    assert "'Queued'; the agent is left out" in err
    with SubAgentManager.open(tmp_path) as manager:
        (only,) = manager.agents(include_archived=True)
        assert (only.agent_id, len(only.metadata["ownerless_workers"])) == ("a", 1)
