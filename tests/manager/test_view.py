"""The fleet seen from outside: the state after the next open, or the live writer's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from journal import (
    CompactedError,
    CorruptionError,
    DamageReason,
    FormatReason,
    FormatVersionError,
    Journal,
    JournalError,
    JournalReader,
    NotAJournalError,
    Options,
)
from manager import Agent, AgentResult, SubAgentManager, UnknownAgentError
from manager import records as recorded
from manager.agent import FIELDS
from manager.fleet import Fleet
from manager.history import read_history
from manager.view import follow_fleet, read_fleet
from tests.manager.fleet_support import values_of


def populate(manager: SubAgentManager) -> None:
    """Make at least one agent of each status, and two with the same name."""
    root = manager.spawn("root", name="root")
    manager.spawn(
        "queue", name="a", parent_id="root", queued=True, metadata={"n": [1, {"x": None}]}
    )
    manager.spawn("run", name="b", parent_id=root.agent_id, allowed_tools=[])
    manager.update_checkpoint("b", {"at": 3}, steps_taken=3)
    for result in ("first", "second"):
        manager.spawn("end", name="twice")
        manager.update_from_result("twice", AgentResult(result, input_tokens=5))
    manager.spawn("fail")
    for agent in manager.agents(status="running"):
        if agent.prompt == "fail":
            manager.update_failed(agent.agent_id, "why")
    manager.spawn("wait", name="c")
    manager.interrupt("c", "asked", needs_input=["what?"])
    manager.spawn("stop", name="d", queued=True)
    manager.cancel("d")


def test_a_workspace_is_not_the_directory_of_its_fleet(tmp_path: Path) -> None:
    """`read_fleet` and `read_history` of a workspace name the directory to give."""
    SubAgentManager.open(tmp_path).close()
    for read in (read_fleet, lambda path: read_history(path, "a")):
        with pytest.raises(NotAJournalError) as caught:
            read(tmp_path)
        state_dir = tmp_path / ".subagents"
        assert caught.value.__notes__ == [f"{tmp_path} is a manager's workspace: give {state_dir}"]


def wait_to_be_seen(path: Path, last_lsn: int) -> None:
    """Wait until a reader sees the last LSN, which the next frame or mark proves durable."""
    with JournalReader.open(path) as reader:
        for entry in reader.entries(after=last_lsn - 1, follow=True):
            assert entry.lsn == last_lsn
            break


def timeless(agents: Iterable[Agent]) -> list[Agent]:
    """Clear time and LSN, which differ for an agent that was interrupted by a restart."""
    return [replace(agent, updated_at_ms=0, lsn=0) for agent in agents]


@pytest.mark.parametrize("compactions", [0, 1, 2])
def test_a_view_without_a_writer_equals_the_next_open(tmp_path: Path, compactions: int) -> None:
    """P6: Without a writer, the view equals the next open, agent by agent, and writes nothing."""
    with SubAgentManager.open(tmp_path) as manager:
        populate(manager)
        for _ in range(compactions):
            manager.wait_durable()
            manager.compact()
            manager.spawn("later", queued=True)
        last_lsn = manager.stats().last_lsn
    before = {path.name: path.read_bytes() for path in (tmp_path / ".subagents").iterdir()}
    fleet = read_fleet(tmp_path / ".subagents")
    assert {p.name: p.read_bytes() for p in (tmp_path / ".subagents").iterdir()} == before
    with SubAgentManager.open(tmp_path) as manager:
        for include_archived in (False, True):
            viewed = fleet.agents(include_archived=include_archived)
            assert timeless(viewed) == timeless(manager.agents(include_archived=include_archived))
        assert fleet.agents(status="queued") == manager.agents(status="queued")
    assert fleet.lsn == last_lsn
    assert {a.reason for a in fleet.agents(status="interrupted")} == {"asked", "process restarted"}


@pytest.mark.parametrize("compacted", [False, True])
def test_a_view_shows_the_durable_state_of_a_live_writer(tmp_path: Path, compacted: bool) -> None:
    """P2: The view shows all that is durable, with running agents running."""
    with SubAgentManager.open(tmp_path) as manager:
        manager.update_from_result(manager.spawn("long ago").agent_id, AgentResult("x"))
    manager = SubAgentManager.open(tmp_path)
    try:
        populate(manager)
        manager.wait_durable()
        if compacted:
            manager.compact()
            manager.wait_durable(manager.spawn("later").lsn)
        last_lsn = manager.stats().last_lsn
        wait_to_be_seen(tmp_path / ".subagents", last_lsn)
        fleet = read_fleet(tmp_path / ".subagents")
        assert fleet.lsn == last_lsn
        assert fleet.agents() == manager.agents()
        assert fleet.agents(include_archived=True) == manager.agents(include_archived=True)
        assert fleet.get("b") == manager.get("b")
        assert fleet.get("b").status == "running"
    finally:
        manager.close()


@pytest.mark.parametrize("active", [False, True])
@pytest.mark.parametrize("later", [False, True])
def test_a_session_is_known_after_its_boot_record_is_compacted_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, active: bool, later: bool
) -> None:
    """The current session decides what is archived, even with no agents and a wrong clock."""
    path = tmp_path / ".subagents"
    with SubAgentManager.open(tmp_path) as manager:
        populate(manager)
    monkeypatch.setattr("manager.clock.now_ms", lambda: 1)  # the clock was set back
    with SubAgentManager.open(tmp_path) as manager:
        if active:
            manager.resume("b")
            manager.update_from_result(manager.spawn("end").agent_id, AgentResult("x"))
        manager.compact()
        manager.compact()
        if later:  # the view must not take these for agents of prior sessions
            manager.spawn("new")
            manager.start(manager.spawn("newer", queued=True).agent_id)
            manager.wait_durable()
            wait_to_be_seen(path, manager.stats().last_lsn)
        for include_archived in (False, True):
            viewed = read_fleet(path).agents(include_archived=include_archived)
            assert viewed == manager.agents(include_archived=include_archived)
        assert read_history(path, "b")[-1].after == manager.get("b")


def test_a_checkpoint_of_an_older_version_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a checkpoint names no session, that of the running or last started agents is used."""
    monkeypatch.setattr(
        Fleet,
        "freeze",
        lambda fleet: (dict(zip(FIELDS, values_of(r), strict=True)) for r in fleet.rows.freeze()),
    )
    with SubAgentManager.open(tmp_path) as manager:
        populate(manager)
    with SubAgentManager.open(tmp_path) as manager:
        manager.resume("b")
        manager.compact()
        manager.compact()
        viewed = read_fleet(tmp_path / ".subagents").agents(include_archived=True)
        assert viewed == manager.agents(include_archived=True)


def test_agents_of_a_prior_session_are_shown_as_interrupted(tmp_path: Path) -> None:
    """Running agents of a prior session show as interrupted before the new one journals that."""
    with SubAgentManager.open(tmp_path) as manager:
        before = manager.spawn("before")
    path = tmp_path / ".subagents"
    with Journal.open(path, options=Options(application="subagents/1")) as journal:
        journal.append(recorded.boot("boot_2", 1, 1))
        journal.wait_durable()
        wait_to_be_seen(path, journal.last_lsn)
        viewed = read_fleet(path).get(before.agent_id)
        assert (viewed.status, viewed.reason) == ("interrupted", "process restarted")
        assert viewed.from_prior_session
        assert read_fleet(path, at=before.lsn).agents() == [before]


def test_a_journal_of_another_application_is_refused(tmp_path: Path) -> None:
    """A view and a follower refuse another application's journal, even without records. A manager
    refuses it, too."""
    path = tmp_path / ".subagents"
    Journal.open(path, options=Options(application="jobs/1")).close()
    for read in read_fleet, lambda path: next(follow_fleet(path)):
        with pytest.raises(FormatVersionError, match="'jobs/1', not for 'subagents/1'") as caught:
            read(path)
        assert caught.value.reason is FormatReason.OTHER_APPLICATION
    with pytest.raises(FormatVersionError, match="'jobs/1', not for 'subagents/1'"):
        SubAgentManager.open(tmp_path)


def test_a_ref_is_an_id_or_a_name(tmp_path: Path) -> None:
    """A view finds agents as the manager does: by id, or the newest agent of a name."""
    with SubAgentManager.open(tmp_path) as manager:
        populate(manager)
    fleet = read_fleet(tmp_path / ".subagents")
    assert fleet.get(fleet.get("a").agent_id) == fleet.get("a")
    twice = [agent for agent in fleet.agents(include_archived=True) if agent.name == "twice"]
    assert fleet.get("twice") == max(twice, key=lambda agent: agent.attempt)
    assert {agent.attempt for agent in twice} == {1, 2}
    with pytest.raises(UnknownAgentError):
        fleet.get("nobody")
    with pytest.raises(ValueError, match="status must be"):
        fleet.agents(status="done")  # type: ignore[arg-type]


def test_the_children_of_an_agent_are_found_by_its_id_or_name(tmp_path: Path) -> None:
    """A view returns the children of an agent, also archived ones, and no other descendants."""
    with SubAgentManager.open(tmp_path) as manager:
        populate(manager)
        manager.spawn("below", parent_id="b", queued=True)
    view = read_fleet(tmp_path / ".subagents")
    agents = view.agents(include_archived=True)
    for parent in agents:
        children = [agent for agent in agents if agent.parent_id == parent.agent_id]
        assert view.children(parent.agent_id) == children
    assert [child.name for child in view.children("root")] == ["a", "b"]
    assert view.children("a") == []
    with pytest.raises(UnknownAgentError):
        view.children("nobody")


def test_a_path_without_a_journal_is_an_error(tmp_path: Path) -> None:
    """A missing or foreign directory is an error; a journal without agents is an empty fleet."""
    with pytest.raises(FileNotFoundError):
        read_fleet(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(JournalError):
        read_fleet(tmp_path)
    SubAgentManager.open(tmp_path).close()
    fleet = read_fleet(tmp_path / ".subagents")
    assert (fleet.agents(include_archived=True), fleet.lsn) == ([], 1)


def test_a_compaction_during_the_read_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that a compaction overtakes restarts with the newer checkpoint, but not forever."""
    with SubAgentManager.open(tmp_path) as manager:
        populate(manager)
    expected = read_fleet(tmp_path / ".subagents").agents()
    records, failures = JournalReader.records, [1]

    def compacted(reader: JournalReader, after: int | None = None) -> object:
        if failures[0]:
            failures[0] -= 1
            raise CompactedError("gone", 7)
        return records(reader, after)

    monkeypatch.setattr(JournalReader, "records", compacted)
    assert read_fleet(tmp_path / ".subagents").agents() == expected
    failures[0] = 1000
    with pytest.raises(CorruptionError) as caught:
        read_fleet(tmp_path / ".subagents")
    assert caught.value.reason is DamageReason.OVERTAKEN


@pytest.mark.parametrize(
    "step", ["load_items", "check_loaded", "apply", "check_replayed", "end_replay"]
)
def test_a_refusal_keeps_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """P4: Adding the file to a fleet's error changes neither its words nor its reason."""
    with SubAgentManager.open(tmp_path) as manager:
        populate(manager)
        manager.compact()
        manager.spawn("later", queued=True)

    def refuse(*_: object) -> None:
        raise FormatVersionError("no such field", reason=FormatReason.NEWER_VERSION)

    monkeypatch.setattr(Fleet, step, refuse)
    # A writer's replay is the engine's, which sets the reasons for `load_items` and `apply` itself.
    is_writers = step == "end_replay"
    with pytest.raises(FormatVersionError) as caught:
        SubAgentManager.open(tmp_path) if is_writers else read_fleet(tmp_path / ".subagents")
    error = caught.value
    assert error.reason is FormatReason.NEWER_VERSION
    assert str(error.path).startswith(str(tmp_path))
    assert error.what.endswith("no such field")
