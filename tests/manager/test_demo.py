"""The demo: what a new user sees in the first minute is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from journal import JournalReader
from manager import AgentResult, SubAgentManager
from manager._cli import demo as demo_module
from manager._cli.demo import Ack, find_lost, hashed, library_files, read_acks
from manager.view import read_fleet

TIMEOUT_S = 120


def run_demo(place: Path) -> tuple[int, str, str]:
    """Run the demo in an empty directory, with its scratch directory made in `place`."""
    (place / "empty").mkdir()
    child = subprocess.run(
        [sys.executable, "-P", "-m", "manager", "demo"],
        cwd=place / "empty",
        env=os.environ | {"TMPDIR": str(place)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    return child.returncode, child.stdout, child.stderr


def test_the_demo_loses_nothing_to_a_kill(tmp_path: Path) -> None:
    """P2: The demo is killed half-way, recovers, and finishes; its output can be verified."""
    code, output, messages = run_demo(tmp_path)
    assert code == 0, output + messages
    assert "Traceback" not in messages
    (scratch,) = tmp_path.glob("subagents-demo-*")
    acks = read_acks(str(scratch / "acks.jsonl"))
    assert f"{len(acks)} acknowledged changes: 0 lost" in output
    recovered = re.search(
        r"recovered .*: (?:\d+ queued, )?(\d+) interrupted, (\d+) completed", output
    )
    assert recovered, output
    completed = {ack.agent_id for ack in acks if ack.status == "completed"}
    assert 32 <= len(completed) <= int(recovered[2]) < 64
    assert "65 completed; no digests differ" in output
    fleet = read_fleet(scratch / ".subagents")
    agents = fleet.agents(include_archived=True)
    assert [a.status for a in agents] == ["completed"] * 65
    assert {a.parent_id for a in agents[1:]} == {agents[0].agent_id}
    with JournalReader.open(scratch / ".subagents") as reader:
        assert [f for f in reader.verify() if f.kind != "torn_tail"] == []
        resumed = sum(entry.record[0] == "resume" for entry in reader.entries(after=0))
    assert resumed == int(recovered[1])
    for line in ("journal-inspect info", "journal-inspect log", "journal-inspect verify"):
        assert f"  {line} {scratch / '.subagents'}" in output
    assert re.search(r"lock +held \d+\.\d us p50, \d+\.\d us p99", output)
    assert re.search(r"records per commit: \d+\.\d mean, \d+ p50, \d+ max", output)


def test_a_lost_acknowledgement_gives_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An acknowledged change that the state lacks is named, and the exit code is 1."""
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(tmp_path))
    never = Ack("agent_000000000000", 10**9, 1, "running", None)
    monkeypatch.setattr(demo_module, "read_acks", lambda path: [*read_acks(path), never])
    assert demo_module.run_demo() == 1
    output = capsys.readouterr().out
    assert "1 lost" in output
    assert "agent_000000000000 is missing" in output


def test_a_wrong_digest_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo's results are compared with a plain run over the same files."""
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(tmp_path))
    monkeypatch.setattr(demo_module, "hashed", lambda digest, path: hashed(digest, path)[::-1])
    assert demo_module.run_demo() == 1
    assert "digests differ" in capsys.readouterr().out


def test_lost_reports_missing_and_older_agents(tmp_path: Path) -> None:
    """An agent is lost if it is missing, older than acknowledged, or ended in another way."""
    with SubAgentManager.open(tmp_path) as manager:
        running = manager.spawn("work")
        running = manager.update_checkpoint(running.agent_id, "x", steps_taken=3)
        done = manager.update_from_result(manager.spawn("work").agent_id, AgentResult("good"))
    fleet = {agent.agent_id: agent for agent in (running, done)}
    acks = [
        Ack(running.agent_id, running.lsn, 3, "running", None),
        Ack(done.agent_id, done.lsn, 0, "completed", "good"),
    ]
    assert find_lost(acks, fleet) == []
    assert find_lost([acks[0]._replace(lsn=running.lsn - 1, steps_taken=2)], fleet) == []
    for wrong in (
        acks[0]._replace(agent_id="agent_none"),
        acks[0]._replace(lsn=running.lsn + 100),
        acks[0]._replace(steps_taken=4),
        acks[1]._replace(result="bad"),
    ):
        assert len(find_lost([*acks, wrong], fleet)) == 1
    revived = {**fleet, done.agent_id: replace(done, status="running")}
    assert len(find_lost(acks, revived)) == 1


def test_a_truncated_line_acknowledges_nothing(tmp_path: Path) -> None:
    """The kill may come in the middle of a write, so a truncated last line does not count."""
    log = tmp_path / "acks.jsonl"
    log.write_text('["agent_a", 3, 1, "running", null]\n["agent_b", 4')
    assert read_acks(str(log)) == [Ack("agent_a", 3, 1, "running", None)]


def test_the_demo_hashes_the_same_files_each_time() -> None:
    """The set of files is stable, so that resumed work can be checked against them."""
    files = library_files()
    assert files == library_files()
    assert 64 <= len(files) == len(set(files))
