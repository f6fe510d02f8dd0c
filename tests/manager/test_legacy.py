"""Import of the former JSON file: agents are mapped field by field, or the file is refused."""

from __future__ import annotations

import errno
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manager import Agent, LegacyError, Limits, NameInUseError, SubAgentManager
from manager._cli.cli import run_cli
from manager.again import TASK_TYPE
from tests.manager_support import ids

AT_MS = 1_700_000_000_000
FULL: dict[str, Any] = {
    "id": "agent_0123abcd",
    "session_name": "a session",
    "agent_type": "explore",
    "prompt": "look around",
    "assignment": {"objective": "find it", "role": "explorer"},
    "model": "model-1",
    "nickname": "Blue",
    "status": "Completed",
    "result": "found",
    "steps_taken": 7,
    "checkpoint": {"messages": [1, 2.5, None, "é"]},
    "needs_input": ["what?"],
    "duration_ms": 2000,
    "allowed_tools": ["read", "list"],
    "updated_at_ms": AT_MS,
    "session_boot_id": "boot_0",
}
KEPT = {"objective": "find it", "nickname": "Blue"}
BARE: dict[str, Any] = {"id": "agent_bare", "prompt": "p", "status": "Completed"}


def write(tmp_path: Path, *agents: Any, **others: Any) -> Path:
    path = tmp_path / "subagents.json"
    path.write_text(json.dumps({"schema_version": 1, "agents": list(agents)} | others))
    return path


def imported(tmp_path: Path, *agents: Any, **others: Any) -> list[Agent]:
    with SubAgentManager.open(tmp_path) as manager:
        agents = manager.import_legacy(write(tmp_path, *agents, **others))
        assert list(agents) == [manager.get(agent.agent_id) for agent in agents]
        return list(agents)


# --- fields ---


def test_each_field_is_mapped(tmp_path: Path) -> None:
    """All fields of the file's agent are in the Agent, which is durable when the import returns."""
    with SubAgentManager.open(tmp_path) as manager:
        (agent,) = manager.import_legacy(write(tmp_path, FULL))
        assert manager.stats().durable_lsn >= agent.lsn
    expected = Agent(
        agent_id="agent_0123abcd",
        name="a session",
        agent_type="explore",
        role="explorer",
        model="model-1",
        prompt="look around",
        status="completed",
        reason=None,
        result="found",
        steps_taken=7,
        checkpoint={"messages": [1, 2.5, None, "é"]},
        needs_input=["what?"],
        allowed_tools=("read", "list"),
        parent_id=None,
        spawn_depth=0,
        token_budget=None,
        tokens_used=0,
        metadata=KEPT,
        created_at_ms=AT_MS - 2000,
        started_at_ms=AT_MS - 2000,
        updated_at_ms=AT_MS,
        ended_at_ms=AT_MS,
        boot_id="boot_0",
        from_prior_session=True,
        lsn=agent.lsn,
        starts=1,
    )
    assert agent == expected
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.agents(include_archived=True) == [expected]


@pytest.mark.parametrize(
    ("status", "expected", "reason"),
    [
        ("Completed", "completed", None),
        ("Cancelled", "cancelled", None),
        ("BudgetExhausted", "budget_exhausted", None),
        ("Running", "interrupted", "process restarted"),
        ({"Failed": "it broke"}, "failed", "it broke"),
        ({"Interrupted": "by hand"}, "interrupted", "by hand"),
    ],
)
def test_each_status_is_mapped(
    tmp_path: Path, status: Any, expected: str, reason: str | None
) -> None:
    """Each status has its counterpart; a running agent is interrupted and can be resumed."""
    with SubAgentManager.open(tmp_path) as manager:
        (agent,) = manager.import_legacy(write(tmp_path, FULL | {"status": status}))
        assert (agent.status, agent.reason) == (expected, reason)
        assert agent.ended_at_ms == (None if expected == "interrupted" else AT_MS)
        assert manager.counts()[expected] == 1
        assert manager.get("a session") == agent
        if expected == "interrupted":
            assert manager.resume("a session").checkpoint == FULL["checkpoint"]


@pytest.mark.parametrize(
    ("field", "value", "mapped"),
    [
        ("allowed_tools", [], {"allowed_tools": None}),
        ("allowed_tools", None, {"allowed_tools": None}),
        ("model", "", {"model": None}),
        ("model", None, {"model": None}),
        ("session_name", "", {"name": "agent_0123abcd"}),
        ("session_name", None, {"name": "agent_0123abcd"}),
        ("session_name", "agent_0123abcd", {"name": "agent_0123abcd"}),
        ("agent_type", None, {"agent_type": "general"}),
        ("agent_type", TASK_TYPE, {"agent_type": "general"}),  # a file makes no task of a run
        ("steps_taken", None, {"steps_taken": 0}),
        ("duration_ms", None, {"created_at_ms": AT_MS, "started_at_ms": AT_MS}),
        ("duration_ms", 2**64 - 1, {"created_at_ms": 0, "started_at_ms": 0}),
        ("session_boot_id", None, {"boot_id": ""}),
        ("result", None, {"result": None}),
        ("prompt", None, {"prompt": "find it"}),
        ("assignment", None, {"role": None, "metadata": {"nickname": "Blue"}}),
        ("nickname", None, {"metadata": {"objective": "find it"}}),
        ("novel", {"a": [None]}, {"metadata": KEPT | {"novel": {"a": [None]}}}),
        ("novel", None, {"metadata": KEPT | {"novel": None}}),
        (
            "assignment",
            {"objective": "x", "role": "r", "novel": 1},
            {"role": "r", "metadata": KEPT | {"objective": "x", "assignment": {"novel": 1}}},
        ),
    ],
)
def test_missing_empty_and_unknown_fields_are_imported(
    tmp_path: Path, field: str, value: Any, mapped: dict[str, Any]
) -> None:
    """A missing or empty field gets its default, and unknown fields are kept as metadata."""
    (plain,) = imported(tmp_path, FULL)
    (tmp_path / "other").mkdir()
    (agent,) = imported(tmp_path / "other", FULL | {field: value})
    assert agent == replace(plain, **mapped)


def test_an_agent_with_only_the_required_fields_is_imported(tmp_path: Path) -> None:
    """An id, a prompt and a status suffice; an agent without a time gets the time of the import."""
    (agent,) = imported(tmp_path, BARE)
    assert (agent.agent_id, agent.name, agent.prompt) == ("agent_bare", "agent_bare", "p")
    assert agent.created_at_ms == agent.started_at_ms == agent.updated_at_ms == agent.ended_at_ms
    assert agent.updated_at_ms > AT_MS
    assert agent.metadata == {}


def test_workers_are_kept_with_their_agents(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each worker goes to the agent that it names. Workers of unknown agents are logged."""
    workers = [{"agent_id": "a", "x": 1}, {"worker_id": "b"}, {"id": "a"}, {"id": "c"}, {}]
    one, two = imported(
        tmp_path, BARE | {"id": "a"}, BARE | {"id": "b"}, workers=workers, unknown="ignored"
    )
    assert one.metadata == {
        "workers": [{"agent_id": "a", "x": 1}, {"id": "a"}],
        "ownerless_workers": [{"id": "c"}, {}],
        "legacy_file": {"unknown": "ignored"},
    }
    assert two.metadata == {"workers": [{"worker_id": "b"}]}
    assert (
        "workers of no agent in the file, kept in the metadata of the first agent: 2" in caplog.text
    )


def test_the_command_line_prints_log_messages_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints log messages on stderr once, and only while it runs."""
    file = write(tmp_path, BARE, workers=[{"id": "c"}])
    for directory in ("one", "two"):
        (tmp_path / directory).mkdir()
        assert run_cli(["import", str(file), "--workspace", str(tmp_path / directory)]) == 0
        assert capsys.readouterr().err.splitlines() == [
            f"subagents: {file}: workers of no agent in the file, kept in the metadata of the "
            "first agent: 1",
            f"subagents: 1 sub-agent imported from {file}",
        ]


def test_a_narrowed_mode_is_reported_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command reports a narrowed directory mode once, in the format of its other messages."""
    with SubAgentManager.open(tmp_path) as manager:
        path = Path(manager.path)
    path.chmod(0o755)
    file = write(tmp_path, BARE)
    assert run_cli(["import", str(file), "--workspace", str(tmp_path)]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"subagents: {path}: mode 0755 let others read the journal; it was narrowed to 0700",
        f"subagents: 1 sub-agent imported from {file}",
    ]


def test_a_closed_stderr_stops_no_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log message that can't be written, such as to a closed pipe, does not stop the import."""

    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    file = write(tmp_path, BARE, workers=[{"id": "c"}])
    monkeypatch.setattr("sys.stderr", Closed())
    assert run_cli(["import", str(file), "--workspace", str(tmp_path)]) == 0
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.get("agent_bare").status == "completed"


# --- names and ids ---


def test_an_imported_agent_takes_no_name_of_a_live_one(tmp_path: Path) -> None:
    """An agent whose name is taken, or is an id, is called by its id; metadata keeps the name."""
    live = {"status": "Running", "session_name": "same"}
    agents = [
        BARE | {"id": "first"} | live,
        BARE | {"id": "second"} | live,
        BARE | {"id": "third"} | live | {"status": "Completed"},
        BARE | {"id": "fourth", "session_name": "first"},
        BARE | {"id": "fifth", "session_name": "here", "status": {"Interrupted": ""}},
        BARE | {"id": "sixth", "session_name": "n" * 257},
        BARE | {"id": "seventh", "session_name": "agent_0123456789ab"},
    ]
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("work", name="here")
        agents_by_id = {a.agent_id: a for a in manager.import_legacy(write(tmp_path, *agents))}
        assert {ref: agent.name for ref, agent in agents_by_id.items()} == {
            "first": "same",
            "second": "second",
            "third": "same",
            "fourth": "fourth",
            "fifth": "fifth",
            "sixth": "sixth",
            "seventh": "seventh",
        }
        for agent in agents:
            imported_agent = agents_by_id[agent["id"]]
            metadata_name = (
                None if imported_agent.name == agent["session_name"] else agent["session_name"]
            )
            assert imported_agent.metadata.get("session_name") == metadata_name
        assert manager.get("same") == agents_by_id["first"]
        assert manager.get("first") == agents_by_id["first"]
        with pytest.raises(NameInUseError) as caught:
            manager.spawn("new", name="second")
        assert caught.value.agent_id == "second"
        late = BARE | {"id": "eighth", "session_name": "seventh"}
        (last,) = manager.import_legacy(write(tmp_path, late))
        assert (last.name, last.metadata) == ("eighth", {"session_name": "seventh"})


def test_an_id_that_is_the_name_of_a_live_agent_is_refused(tmp_path: Path) -> None:
    """An id that would shadow the name of a live agent is refused, and nothing is imported."""
    with SubAgentManager.open(tmp_path) as manager:
        holder = manager.spawn("work", name="agent_bare")
        many = [BARE | {"id": f"a{number}"} for number in range(200)]
        path = write(tmp_path, *many, BARE)
        with pytest.raises(NameInUseError) as caught:
            manager.import_legacy(path)
        assert caught.value.agent_id == holder.agent_id
        assert manager.agents(include_archived=True) == [holder]
        manager.cancel(holder.agent_id)
        assert len(manager.import_legacy(path)) == 201


def test_importing_twice_changes_nothing(tmp_path: Path) -> None:
    """An id that already exists is skipped in any status, and new ones are imported."""
    running = BARE | {"status": "Running"}
    with SubAgentManager.open(tmp_path) as manager:
        manager.import_legacy(write(tmp_path, running))
        manager.resume("agent_bare")
        before = manager.agents(include_archived=True), manager.stats().last_lsn
        assert manager.import_legacy(write(tmp_path, running)) == ()
        assert (manager.agents(include_archived=True), manager.stats().last_lsn) == before
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.import_legacy(write(tmp_path, running)) == ()
        assert ids(manager.import_legacy(write(tmp_path, running, FULL))) == {FULL["id"]}


def test_an_import_may_exceed_the_limits(tmp_path: Path) -> None:
    """All agents of the file are imported, even above the limits, and new spawns are refused."""
    limits = Limits(max_running=1, max_admitted=2)
    agents = [BARE | {"id": f"a{number}", "status": "Running"} for number in range(300)]
    with SubAgentManager.open(tmp_path, limits=limits) as manager:
        path = write(tmp_path, *agents)
        imported_agents = manager.import_legacy(path)
        assert [agent.agent_id for agent in imported_agents] == [agent["id"] for agent in agents]
        assert manager.counts()["interrupted"] == 300
        with pytest.raises(Exception, match="max_admitted"):
            manager.spawn("new", queued=True)


def test_an_interrupted_import_is_completed_by_another(tmp_path: Path) -> None:
    """A crash may leave some of the slices; repeating the import adds the rest."""
    agents = [BARE | {"id": f"a{number}"} for number in range(200)]
    with SubAgentManager.open(tmp_path) as manager:
        path = write(tmp_path, *agents[:64])
        manager.import_legacy(path)
        path = write(tmp_path, *agents)
        assert len(manager.import_legacy(path)) == 136
        assert ids(manager.agents(include_archived=True)) == {agent["id"] for agent in agents}


@pytest.mark.parametrize("levels", range(94, 102))
def test_an_imported_fleet_reopens(tmp_path: Path, levels: int) -> None:
    """A worker nested too deep for the metadata is refused by its place; others reopen."""
    nested = json.loads("[" * levels + "]" * levels)
    path = write(tmp_path, BARE, workers=[{"id": BARE["id"], "x": nested}])
    if levels > 97:
        with pytest.raises(LegacyError, match=r"workers\[0\]"):
            imported(tmp_path, BARE, workers=[{"id": BARE["id"], "x": nested}])
        return
    with SubAgentManager.open(tmp_path) as manager:
        manager.import_legacy(path)
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.get(BARE["id"]).metadata["workers"][0]["x"] == nested


def test_an_unknown_field_named_like_a_mapped_one_is_kept(tmp_path: Path) -> None:
    """An unknown field keeps its name, and the mapped one stays in its assignment."""
    agent = BARE | {"objective": "mine", "assignment": {"objective": "assigned", "role": "r"}}
    (imported_agent,) = imported(tmp_path, agent)
    assert imported_agent.metadata["objective"] == "mine"
    assert imported_agent.metadata["assignment"] == {"objective": "assigned"}
    assert (imported_agent.role, "mine" in imported_agent.prompt) == ("r", False)
