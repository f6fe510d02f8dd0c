"""Following a fleet from outside: each agent as it is, then again after each change."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from journal import Options
from manager import Agent, AgentResult, Limits, SubAgentManager, follow_fleet, read_fleet
from tests.manager.cli_support import subagents
from tests.support import TIMEOUT_S, bounded

# Both are small, so that segments roll and are removed while a follower reads.
OPTIONS = Options(segment_bytes=4096, checkpoint_min_bytes=1024, checkpoint_growth=0.5)
LIMITS = Limits(max_running=1000, max_admitted=1000)
THE_END = "the end"


class Follower(threading.Thread):
    """A thread that follows until it is shown the agent with the name `THE_END`."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path = path
        self.shown: queue.Queue[Agent] = queue.Queue()

    def run(self) -> None:
        for agent in follow_fleet(self._path):
            self.shown.put(agent)
            if agent.name == THE_END:
                return

    def next(self) -> Agent:
        return self.shown.get(timeout=TIMEOUT_S)


@contextmanager
def followed(path: Path) -> Iterator[Follower]:
    follower = Follower(path)
    follower.start()
    try:
        yield follower
    finally:
        follower.join(timeout=TIMEOUT_S)
        assert not follower.is_alive()


def open_at(tmp_path: Path) -> SubAgentManager:
    return SubAgentManager.open(tmp_path, limits=LIMITS, options=OPTIONS)


def test_changes_follow_the_current_agents(tmp_path: Path) -> None:
    """The current agents come first, oldest first, then each change with affected ancestors."""
    with open_at(tmp_path) as manager:
        root = manager.spawn("root")
        child = manager.spawn("child", parent_id=root.agent_id)
        manager.wait_durable()
        with followed(tmp_path / ".subagents") as follower:
            assert [follower.next(), follower.next()] == [root, child]
            manager.record_usage(child.agent_id, input_tokens=1, output_tokens=2)
            assert [follower.next().tokens_used, follower.next().agent_id] == [3, root.agent_id]
            ended = manager.update_from_result(child.agent_id, AgentResult("done"))
            assert follower.next() == ended
            manager.cleanup(0)  # removed agents are not shown
            end = manager.spawn("stop", name=THE_END)
            assert follower.next() == end


def test_following_continues_with_the_next_writer(tmp_path: Path) -> None:
    """A running agent is shown as interrupted when its writer is gone, and by the next writer."""
    with open_at(tmp_path) as manager:
        agent = manager.spawn("work")
        queued = manager.spawn("stays as it is", queued=True)
        manager.wait_durable()
        follower = Follower(tmp_path / ".subagents")
        follower.start()
        assert [follower.next(), follower.next()] == [agent, queued]
        last = manager.update_checkpoint(agent.agent_id, "unseen by then", steps_taken=1)
    while (orphan := follower.next()).status == "running":
        assert orphan == last
    assert orphan == read_fleet(tmp_path / ".subagents").get(agent.agent_id)
    assert (orphan.reason, orphan.lsn) == ("process restarted", last.lsn)
    with open_at(tmp_path) as manager:
        manager.spawn("stop", name=THE_END)
        interrupted = follower.next()
        assert interrupted == manager.get(agent.agent_id)
        assert interrupted.from_prior_session
        follower.join(timeout=TIMEOUT_S)
        assert not follower.is_alive()


def test_a_follower_catches_up_after_compaction(tmp_path: Path) -> None:
    """A slow follower skips records that are no longer kept, and ends with the current state."""
    with open_at(tmp_path) as manager:
        agents = [manager.spawn("work") for _ in range(10)]
        unchanged = manager.spawn("stays as it is")
        manager.wait_durable()
        stream = follow_fleet(tmp_path / ".subagents")
        first = [next(stream) for _ in range(11)]
        assert first == [*agents, unchanged]
        for step in range(300):  # meanwhile the follower reads nothing
            ref = agents[step % 10].agent_id
            manager.update_checkpoint(ref, "x" * 100, steps_taken=step)
            if step % 100 == 99:
                manager.wait_durable()
                manager.compact()
        manager.spawn("stop", name=THE_END)
        manager.wait_durable()
        last: dict[str, Agent] = {}
        count = 0
        for agent in stream:
            count += 1
            last[agent.agent_id] = agent
            if agent.name == THE_END:
                break
        stream.close()  # type: ignore[attr-defined]
        now = {agent.agent_id: agent for agent in manager.agents()}
        del now[unchanged.agent_id]  # it is not shown again
        assert last == now
        assert count < 300


# --- on the command line ---


@pytest.mark.parametrize("output", ["text", "jsonl"])
def test_list_follow_prints_a_line_for_each_change(tmp_path: Path, output: str) -> None:
    """`list --follow` prints each agent in a line at once; stopping it gives exit code 130."""
    with open_at(tmp_path) as manager:
        first = manager.spawn("first prompt")
        manager.spawn("not chosen", queued=True)
        manager.wait_durable()
        command = [sys.executable, "-P", "-m", "manager", "list", "--follow", "-o", output]
        child = subprocess.Popen(
            [*command, "--status", "running"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with child, bounded(child):
            assert child.stdout
            assert child.stderr
            lines = [child.stdout.readline()]
            second = manager.spawn("second prompt")
            lines.append(child.stdout.readline())
            child.send_signal(signal.SIGINT)
            assert child.wait(timeout=TIMEOUT_S) == 130
            assert "Traceback" not in child.stderr.read()
    for line, agent in zip(lines, (first, second), strict=True):
        if output == "jsonl":
            document = json.loads(line)
            assert document["schema_version"] == 1
            assert (document["agent_id"], document["lsn"]) == (agent.agent_id, agent.lsn)
        else:
            assert line.startswith(f"{agent.agent_id}  running ")
            assert agent.prompt in line


def test_list_follow_refuses_json(tmp_path: Path) -> None:
    """`list --follow -o json` gives exit code 2, because its array would never be complete."""
    code, out, messages = subagents("list", "--follow", "-o", "json", cwd=tmp_path)
    assert (code, out, "jsonl" in messages) == (2, "", True)


def test_import_adds_the_agents_of_a_file_once(tmp_path: Path) -> None:
    """`import FILE` adds the file's agents once; a bad file gives exit code 4, a live writer 5."""
    agents = [
        {"id": f"a{n}", "prompt": f"prompt {n}", "status": status}
        for n, status in enumerate(("Completed", "Running"))
    ]
    path = tmp_path / "old.json"
    assert subagents("import", "old.json", cwd=tmp_path)[0] == 4
    path.write_text("{}")
    assert subagents("import", "old.json", cwd=tmp_path)[0] == 4
    assert os.listdir(tmp_path) == ["old.json"]  # a refused file creates no state
    path.write_text(json.dumps({"schema_version": 1, "agents": agents}))
    for imported in (2, 0):
        code, out, messages = subagents("import", "old.json", cwd=tmp_path)
        assert (code, out) == (0, "")
        assert messages == f"subagents: {imported} sub-agents imported from old.json\n"
    code, out, _ = subagents("list", cwd=tmp_path)
    assert code == 0
    assert ["completed" in line for line in out.splitlines()] == [False, True, False]
    assert "interrupted" in out.splitlines()[2]
    path.write_text('{"schema_version": 1, "agents": [{}]}')
    code, _, messages = subagents("import", "old.json", cwd=tmp_path)
    assert (code, "old.json: agents[0].id" in messages) == (4, True)
    assert subagents("import", "nothing.json", cwd=tmp_path)[0] == 4
    with open_at(tmp_path):
        assert subagents("import", "old.json", cwd=tmp_path)[0] == 5
