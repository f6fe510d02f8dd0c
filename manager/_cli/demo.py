"""Demo: a kill -9 ends the process of many sub-agents, but loses no acknowledged change.

Each of 64 sub-agents hashes its share of the Python standard library. After each file it journals a
checkpoint, which is the number of its files and the digest so far. The child process writes each
durable change to a list of acknowledgements. After the kill, this process compares that list with
the recovered state.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from journal import JournalReader
from manager.agent import Agent
from manager.errors import ManagerError
from manager.limits import Limits
from manager.manager import SubAgentManager
from manager.result import AgentResult

_AGENTS = 64
_THREADS = 24
_FILES_MAX = 24 * _AGENTS
# The child process is killed when `_KILL_AT` sub-agents have completed and are acknowledged. If the
# kill is late, the child waits for it at `_WAIT_AT`.
_KILL_AT = _AGENTS // 2
_WAIT_AT = _AGENTS * 3 // 4
_TIMEOUT_S = 60.0
_POLL_S = 0.001
_LIMITS = Limits(max_running=_THREADS + 1)
_ROOT = "hash"
_ACKS = "acks.jsonl"


class Ack(NamedTuple):
    """A change that the child process knew to be durable."""

    agent_id: str
    lsn: int
    steps_taken: int
    status: str
    result: str | None


Acknowledge = Callable[[Agent], None]


def run_demo(say: Callable[[str], None] = print) -> int:
    """Run the demo and return its exit code, which is 1 if an acknowledged change is lost or a
    digest is wrong.
    """
    scratch = tempfile.mkdtemp(prefix="subagents-demo-")
    files = library_files()
    say(f"{_AGENTS} sub-agents of one parent hash {len(files)} files, {_THREADS} at a time. Each")
    say("file is one change in the journal, which is acknowledged when it is on stable storage.")
    say("")
    start_s = time.monotonic()
    _kill_half_way(scratch)
    acks = read_acks(os.path.join(scratch, _ACKS))
    say(f"kill -9    after {time.monotonic() - start_s:.2f} s and {len(acks)} acknowledged changes")

    start_s = time.monotonic()
    with SubAgentManager.open(scratch, limits=_LIMITS) as manager:
        took_ms = (time.monotonic() - start_s) * 1000
        fleet = {agent.agent_id: agent for agent in manager.agents(include_archived=True)}
        say(f"recovered  in {took_ms:.0f} ms: {_counts(manager)}")
        lost_changes = find_lost(acks, fleet)
        say(f"checked    {len(acks)} acknowledged changes: {len(lost_changes)} lost")
        for line in lost_changes:
            say(f"           {line}")
        interrupted = [agent for agent in fleet.values() if agent.status == "interrupted"]
        saved_files = sum(agent.steps_taken for agent in interrupted)
        _finish(manager)
        wrong = _wrong_digests(manager, files)
        say(f"resumed    from the checkpoints, without hashing {saved_files} files again")
        say(f"finished   {_counts(manager)}; {wrong or 'no'} digests differ from a plain run's")
        say("")
        _say_figures(manager, say)
    say("")
    say("Try next:")
    path = shlex.quote(manager.path)
    for command in (
        f"journal-inspect info {path}",
        f"journal-inspect log {path} -n 5 -r",
        f"journal-inspect verify {path}",
        f"subagents list --workspace {shlex.quote(scratch)}",
    ):
        say(f"  {command}")
    return 1 if lost_changes or wrong else 0


def library_files() -> list[str]:
    """Return files of the standard library, which every machine with this interpreter has."""
    files: list[str] = []
    for folder, folders, names in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = sorted(set(folders) - {"site-packages", "dist-packages", "__pycache__"})
        paths = (os.path.join(folder, name) for name in sorted(names) if name.endswith(".py"))
        files.extend(path for path in paths if os.access(path, os.R_OK))
        if len(files) >= _FILES_MAX:
            break
    return files[:_FILES_MAX]


def hashed(digest: str, path: str) -> str:
    """Return the digest so far with one more file added."""
    return hashlib.sha256(digest.encode() + Path(path).read_bytes()).hexdigest()


def read_acks(path: str) -> list[Ack]:
    """Return the child's acknowledgements, without a last line that the kill cut short."""
    with open(path, "rb") as file:
        return [Ack(*json.loads(line)) for line in file if line.endswith(b"\n")]


def find_lost(acks: Iterable[Ack], fleet: Mapping[str, Agent]) -> list[str]:
    """Return a line for each acknowledged change that `fleet` does not contain."""
    lines = []
    for ack in acks:
        agent = fleet.get(ack.agent_id)
        if agent is None:
            lines.append(f"{ack.agent_id} is missing, LSN {ack.lsn}")
        elif agent.lsn < ack.lsn or agent.steps_taken < ack.steps_taken:
            lines.append(f"{ack.agent_id} is at LSN {agent.lsn}, not {ack.lsn}")
        elif ack.status == "completed" and (agent.status, agent.result) != ack[3:]:
            lines.append(f"{ack.agent_id} is {agent.status}: {agent.result}, not {ack.result}")
    return lines


def _kill_half_way(scratch: str) -> None:
    """Run the child process, and kill it when half of its sub-agents have completed."""
    package = str(Path(__file__).parents[2])
    paths = [package, os.environ.get("PYTHONPATH", "")]
    child = subprocess.Popen(  # noqa: S603 - this file, by our own interpreter
        [sys.executable, "-P", "-m", "manager._cli.demo", scratch],
        stdin=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    acks = os.path.join(scratch, _ACKS)
    until = time.monotonic() + _TIMEOUT_S
    try:
        while _completed(acks) < _KILL_AT:
            if child.poll() is not None or time.monotonic() > until:
                code = child.poll()
                fault = "has hung" if code is None else f"has ended by itself with code {code}"
                raise ManagerError(f"the child process that the demo was to kill {fault}")
            time.sleep(_POLL_S)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert child.stdin
        child.stdin.close()


def _completed(acks: str) -> int:
    return Path(acks).read_bytes().count(b'"completed"') if os.path.exists(acks) else 0


def _child(scratch: str) -> None:
    log = os.open(os.path.join(scratch, _ACKS), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def acknowledge(agent: Agent) -> None:
        ack = Ack(agent.agent_id, agent.lsn, agent.steps_taken, agent.status, agent.result)
        os.write(log, json.dumps(ack).encode() + b"\n")
        if agent.status == "completed" and manager.counts()["completed"] >= _WAIT_AT:
            # On a slow machine, the kill could come after all work is done. So wait here until the
            # parent kills this process, or ends itself.
            os.read(0, 1)

    files = library_files()
    with SubAgentManager.open(scratch, limits=_LIMITS) as manager:
        root = manager.spawn("hash the standard library", name=_ROOT)
        for number in range(_AGENTS):
            share = files[number::_AGENTS]
            manager.spawn(
                f"hash {len(share)} files",
                name=f"{_ROOT}-{number + 1}",
                parent_id=root.agent_id,
                metadata={"files": share},
                queued=True,
            )
        manager.wait_durable()
        acknowledge(root)
        _hash_all(manager, acknowledge)


def _finish(manager: SubAgentManager) -> None:
    manager.resume(_ROOT)
    _hash_all(manager, lambda agent: None)
    root = manager.update_from_result(_ROOT, AgentResult(_counts(manager)))
    manager.wait_durable(root.lsn)


def _hash_all(manager: SubAgentManager, acknowledge: Acknowledge) -> None:
    """Start or resume each live child, and hash its files."""

    def work(agent: Agent) -> None:
        begin = manager.resume if agent.status == "interrupted" else manager.start
        _hash(manager, begin(agent.agent_id), acknowledge)

    agents = [a for a in manager.agents() if a.parent_id and a.status in ("queued", "interrupted")]
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(work, agents):
            pass


def _hash(manager: SubAgentManager, agent: Agent, acknowledge: Acknowledge) -> None:
    digest = agent.checkpoint or ""
    for step, path in enumerate(agent.metadata["files"][agent.steps_taken :], agent.steps_taken):
        digest = hashed(digest, path)
        agent = manager.update_checkpoint(agent.agent_id, digest, steps_taken=step + 1)
        manager.wait_durable(agent.lsn)
        acknowledge(agent)
    agent = manager.update_from_result(agent.agent_id, AgentResult(digest))
    manager.wait_durable(agent.lsn)
    acknowledge(agent)


def _wrong_digests(manager: SubAgentManager, files: list[str]) -> int:
    """Return the number of children whose result differs from a second hash of their files."""
    wrong = 0
    for number in range(_AGENTS):
        digest = ""
        for path in files[number::_AGENTS]:
            digest = hashed(digest, path)
        wrong += manager.get(f"{_ROOT}-{number + 1}").result != digest
    return wrong


def _counts(manager: SubAgentManager) -> str:
    counts = manager.counts().items()
    return ", ".join(f"{count} {status}" for status, count in counts if count)


def _say_figures(manager: SubAgentManager, say: Callable[[str], None]) -> None:
    stats, hold = manager.stats(), manager.lock_stats().hold
    with JournalReader.open(manager.path) as reader:
        killed = reader.segments()[0]
    batch = stats.commit_records
    say(f"journal    the killed process: {killed.last_lsn} records in {killed.frames} commits")
    say(f"           this one: {stats.records} records in {stats.commits} commits")
    say(f"           records per commit: {batch.mean:.1f} mean, {batch.p50} p50, {batch.max} max")
    p50_us, p99_us = hold.p50 / 1000, hold.p99 / 1000
    say(f"lock       held {p50_us:.1f} us p50, {p99_us:.1f} us p99; no I/O under it")


if __name__ == "__main__":
    _child(sys.argv[1])
