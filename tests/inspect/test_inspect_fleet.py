"""journal-inspect agents, show, history, diff, checkpoint --write: a fleet now and earlier."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from journal_inspect.rendering import objects

from journal import JournalReader
from manager import (
    Agent,
    AgentResult,
    AmbiguousNameError,
    SubAgentManager,
    read_fleet,
    read_history,
)
from tests.inspect.inspect_support import (
    TIMEOUT_S,
    ask,
    checkpoints,
    contents,
    fleet,
    flip,
)
from tests.manager_support import PATIENT

FIELDS = [*Agent.__dataclass_fields__]


class Story:
    """A manager's life, and its agents after each of its records."""

    def __init__(self, workspace: Path) -> None:
        self.moments: dict[int, list[Agent]] = {}
        self.times: dict[int, datetime] = {}
        self.manager = SubAgentManager.open(workspace, options=PATIENT)
        self.path = Path(self.manager.path)
        self.note()

    def note(self) -> None:
        """Record the agents at this moment, by LSN."""
        self.manager.wait_durable(timeout_s=TIMEOUT_S)
        lsn = self.manager.stats().last_lsn
        self.moments[lsn] = self.manager.agents(include_archived=True)
        self.times[lsn] = datetime.now(UTC)


@pytest.fixture
def story(tmp_path: Path) -> Story:
    """Make agents that change, end and are removed, with two checkpoints and all segments kept."""
    story = Story(tmp_path)
    manager = story.manager
    with manager:
        manager.spawn("lead the others", name="lead", metadata={"k": 1})
        story.note()
        child = manager.spawn("child's work", parent_id="lead", token_budget=100)
        story.note()
        manager.compact()
        manager.record_usage(child.agent_id, input_tokens=3, output_tokens=4)
        story.note()
        manager.update_from_result(child.agent_id, AgentResult("it is\ndone", steps_taken=2))
        story.note()
        manager.spawn("fails", name="bad")
        story.note()
        manager.update_failed("bad", "no such file")
        story.note()
        manager.compact()
        manager.cleanup(0)
        story.note()
        manager.spawn("waits", name="bad", queued=True)
        story.note()
    return story


def as_shown(agent: Agent) -> dict[str, Any]:
    values = {name: getattr(agent, name) for name in Agent.__dataclass_fields__}
    plain: dict[str, Any] = objects.plain(values)
    return {"schema_version": 1, **plain}


# --- --at ---


def test_the_fleet_at_a_moment_equals_the_live_one(story: Story) -> None:
    """P6: The fleet shown for any LSN or time equals the live fleet at that moment."""
    assert len(story.moments) == 9
    for lsn, agents in story.moments.items():
        expected = [as_shown(agent) for agent in agents]
        for at in (lsn, story.times[lsn].isoformat()):
            answer = ask("agents", story.path, "--at", at, "-o", "json")
            assert answer.json == expected, (lsn, at)
            assert answer.code == (0 if agents else 1)
        for agent in agents:
            output = ask("show", story.path, agent.agent_id, "--at", lsn, "-o", "json").json
            children = [other.agent_id for other in agents if other.parent_id == agent.agent_id]
            assert output == as_shown(agent) | {"children": children}


def test_a_fleet_is_seen_up_to_the_damage(story: Story) -> None:
    """P4: A fleet is shown up to the damage; a later moment, and now, are refused."""
    with JournalReader.open(story.path) as reader:
        *_, entry = reader.entries()
    assert entry.path
    assert entry.offset
    flip(Path(entry.path), entry.offset + 44)
    lsn = entry.lsn - 1
    assert ask("agents", story.path, "--at", lsn, "-o", "json").json == [
        as_shown(agent) for agent in story.moments[lsn]
    ]
    for at in (["--at", entry.lsn], []):
        answer = ask("agents", story.path, *at)
        assert (answer.code, answer.out) == (3, "")
    history = ask("history", story.path, "lead", "--at", lsn)
    assert history.code == 0


# --- agents ---


def prompts(path: Path, *args: object) -> list[str]:
    return [agent["prompt"] for agent in ask("agents", path, *args, "-o", "json").json]


def test_agents_are_filtered(story: Story) -> None:
    """Agents are filtered by status, name or id with wildcards, parent, and text."""
    path, at = story.path, ["--at", list(story.moments)[6]]
    everybody = ["lead the others", "child's work", "fails"]
    assert prompts(path, *at) == everybody
    assert prompts(path, *at, "-s", "failed") == ["fails"]
    assert prompts(path, *at, "-s", "failed", "-s", "completed") == everybody[1:]
    assert prompts(path, *at, "--name", "l*d") == ["lead the others"]
    assert prompts(path, *at, "--name", "agent_*") == everybody
    assert prompts(path, *at, "--parent", "lead") == ["child's work"]
    assert prompts(path, *at, "--parent", "none") == ["lead the others", "fails"]
    assert prompts(path, *at, "-g", "no such") == ["fails"]
    assert prompts(path, *at, "--text", "^it is$|work") == ["child's work"]
    assert prompts(path, *at, "-g", "work", "--redact", "prompt") == []
    assert prompts(path, *at, "-s", "failed", "--name", "lead") == []
    answer = ask("agents", path, *at, "-s", "queued")
    assert (answer.code, answer.out) == (1, "")
    assert "no agent is queued, as of LSN " in answer.err
    assert "no agent matches" in ask("agents", path, *at, "--name", "none").err
    assert ask("agents", path, "--parent", "nobody").code == 1


def test_agents_in_a_tree_are_below_their_parents(tmp_path: Path) -> None:
    """Children are below their parents; the ancestors of a matching agent are shown with it."""
    with SubAgentManager.open(tmp_path) as manager:
        for name, parent in {
            "a": None,
            "a1": "a",
            "a11": "a1",
            "a2": "a",
            "b": None,
            "b1": "b",
        }.items():
            manager.spawn(name, name=name, parent_id=parent)
        path = manager.path

    def tree(*args: str) -> list[tuple[str, str]]:
        parts = [line.partition("agent_") for line in ask("agents", path, "--tree", *args).lines]
        return [(twig, columns.split()[1]) for twig, _, columns in parts[1:]]

    assert tree() == [
        ("", "a"),
        ("|- ", "a1"),
        ("|  `- ", "a11"),
        ("`- ", "a2"),
        ("", "b"),
        ("`- ", "b1"),
    ]
    assert tree("--name", "a11") == [("", "a"), ("`- ", "a1"), ("   `- ", "a11")]


# --- show ---


def test_show_prints_all_fields_of_an_agent(story: Story) -> None:
    """An agent is shown by name or id, with readable times, long texts as lines, and children."""
    lsn = list(story.moments)[4]
    child = story.moments[lsn][1]
    at = ["--at", lsn]
    lines = ask("show", story.path, child.agent_id, *at, "--utc").lines
    assert [line for line in lines if line.startswith("  |")] == ["  | it is", "  | done"]
    names = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert names == [*Agent.__dataclass_fields__, "children"]
    assert any(line.startswith("ended_at_ms") and "+00:00" in line for line in lines)
    lines = ask("show", story.path, "lead", *at).lines
    assert lines[-1].split() == [child.agent_id, "completed"]
    answer = ask("show", story.path, "nobody")
    assert (answer.code, answer.out) == (1, "")
    assert "all of them: journal-inspect agents" in answer.err


# --- history ---


def test_history_is_each_change_of_an_agent(story: Story) -> None:
    """Each change has its time, LSN, record and changed fields; together they give the agent."""
    lead = story.moments[2][0]
    changes = ask("history", story.path, "lead", "-o", "json").json
    assert changes == ask("history", story.path, lead.agent_id, "-o", "jsonl").jsonl
    assert [(change["lsn"], change["kind"]) for change in changes] == [(2, "spawn"), (4, "usage")]
    usage = changes[1]
    assert usage["by_agent_id"] == story.moments[3][1].agent_id  # its child's tokens
    assert usage["fields"] == {"tokens_used": {"from": 0, "to": 7}}
    with JournalReader.open(story.path) as reader:
        times = {entry.lsn: entry.written_at_ns for entry in reader.entries()}
    assert [change["written_at_ns"] for change in changes] == [times[2], times[4]]
    value: dict[str, Any] = {}
    for change in changes:
        value |= {name: pair["to"] for name, pair in change["fields"].items()}
    agent = as_shown(story.moments[4][0])
    assert value.items() <= agent.items()


def test_history_of_a_removed_agent(story: Story) -> None:
    """A removed agent is found by id, or by a name no longer in use; its removal comes last."""
    child = story.moments[3][1]
    changes = ask("history", story.path, child.agent_id, "-o", "json").json
    assert [change["kind"] for change in changes] == ["spawn", "usage", "result", "remove"]
    assert [change["status"] for change in changes] == ["running", "running", "completed", None]
    assert changes[2]["fields"]["result"] == {"from": None, "to": "it is\ndone"}
    # Another agent has this name now, and is the one that is meant.
    assert [change["kind"] for change in ask("history", story.path, "bad", "-o", "json").json] == [
        "spawn"
    ]
    at = list(story.moments)[7]
    kinds = [
        change["kind"]
        for change in ask("history", story.path, "bad", "--at", at, "-o", "json").json
    ]
    assert kinds == ["spawn", "result", "remove"]
    text = ask("history", story.path, child.agent_id).lines
    assert text[0].split() == ["LSN", "WHEN", "KIND", "STATUS", "CHANGED"]
    assert text[-1].endswith("removed")
    assert "status: running -> completed" in text[3]


def test_history_of_an_ambiguous_name(tmp_path: Path) -> None:
    """P1: A name that several removed agents had is refused with all their ids."""
    with SubAgentManager.open(tmp_path) as manager:
        for _ in range(2):
            manager.update_failed(manager.spawn("x", name="twice").agent_id, "x")
            manager.cleanup(0)
        manager.wait_durable()
        path = manager.path
    answer = ask("history", path, "twice")
    assert (answer.code, answer.out) == (1, "")
    assert "2 agents named 'twice' were removed: agent_" in answer.err
    with pytest.raises(AmbiguousNameError):
        read_history(path, "twice")


# --- diff ---


def test_diff_lists_differing_agents_and_fields(story: Story) -> None:
    """`diff` lists added, removed and changed agents between any two moments."""
    for first, before in story.moments.items():
        for last, after in story.moments.items():
            old = {agent.agent_id: as_shown(agent) for agent in before}
            new = {agent.agent_id: as_shown(agent) for agent in after}
            answer = ask("diff", story.path, first, last, "-o", "json")
            changes = {change["agent_id"]: change for change in answer.json["agents"]}
            assert (answer.json["from_lsn"], answer.json["to_lsn"]) == (first, last)
            for agent_id in old | new:
                was, now = old.get(agent_id), new.get(agent_id)
                change = changes.get(agent_id)
                if was and now:
                    ignored = ("lsn", "updated_at_ms")
                    fields = {k: v for k, v in now.items() if v != was[k] and k not in ignored}
                    changed_fields = change["fields"] if change else {}
                    assert {name: pair["to"] for name, pair in changed_fields.items()} == fields
                    assert {name: pair["from"] for name, pair in changed_fields.items()} == {
                        name: was[name] for name in fields
                    }
                else:
                    assert change
                    assert change["change"] == ("added" if now else "removed")
            assert answer.code == (1 if changes else 0)


def test_diff_takes_times_and_shows_a_table(story: Story) -> None:
    """Each agent that differs is one line, for moments given as LSNs or as times."""
    a, b = list(story.moments)[2], list(story.moments)[6]
    by_time = [story.times[lsn].isoformat() for lsn in (a, b)]
    lines = ask("diff", story.path, a, b).lines
    assert ask("diff", story.path, *by_time).lines == lines
    assert [line.split()[0] for line in lines] == ["CHANGE", "changed", "changed", "added"]
    assert any("tokens_used: 0 -> 7" in line for line in lines)
    same = ask("diff", story.path, a, a)
    assert (same.code, same.out) == (0, "")
    assert "no agent differs" in same.err
    lines = ask("diff", story.path, a, b, "-o", "jsonl").lines
    assert [json.loads(line)["change"] for line in lines] == ["changed", "changed", "added"]


# --- checkpoint --write ---


def test_the_state_at_a_moment_is_written_like_a_checkpoint(story: Story, tmp_path: Path) -> None:
    """P6: At a checkpoint's LSN the written items equal the checkpoint's.

    The journal is unchanged; the file belongs to its owner alone and is never overwritten.
    """
    before = contents(story.path)
    for file in checkpoints(story.path):
        lsn = int(file.stem[-20:])
        out = tmp_path / f"{lsn}.jsonl"
        answer = ask("checkpoint", story.path, "--write", out, "--at", lsn)
        assert (answer.code, answer.out) == (0, "")
        header, *items = map(json.loads, out.read_text().splitlines())
        assert header == {
            "schema_version": 1,
            "path": str(story.path),
            "lsn": lsn,
            "count": len(items),
        }
        assert items == json.loads(file.read_text())["items"]
        assert list(items[0]) == FIELDS[: FIELDS.index("lsn") + 1]
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        again = ask("checkpoint", story.path, "--write", out, "--at", lsn)
        assert (again.code, again.out) == (4, "")
        assert f"{out}: File exists; nothing was overwritten; choose another name" in again.err
    last = ask("checkpoint", story.path, "--write", "-").jsonl
    assert last[0]["lsn"] == max(story.moments)
    inside = ask("checkpoint", story.path, "--write", story.path / "new")
    assert (inside.code, inside.out) == (4, "")
    assert "lies inside the journal" in inside.err
    assert contents(story.path) == before


def test_read_fleet_at_a_moment_ignores_later_changes(tmp_path: Path) -> None:
    """P6: Later changes do not show, and a moment in the future is the last one that exists."""
    with fleet(tmp_path) as manager:
        now = manager.agents(include_archived=True)
        view = read_fleet(manager.path, at=10_000)
        assert view.agents(include_archived=True) == now
        assert view.lsn == max(agent.lsn for agent in now)
        assert read_fleet(manager.path, at=0).agents(include_archived=True) == []
        (spawned, changed) = read_history(manager.path, "lead")
        assert (spawned.before, spawned.kind, changed.kind) == (None, "spawn", "checkpoint")
        assert changed.before == spawned.after
        assert changed.after == manager.get("lead")
