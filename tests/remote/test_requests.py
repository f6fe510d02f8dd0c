"""Requests of other processes to a run whose commands run on workers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from journal.testing import SimulatedDisk
from manager import AgentResult, SubAgentManager
from manager._cli.cli import run_cli
from manager._cli.remote_output import RemoteReader
from manager._control.errors import RefusedError, RequestError
from manager._run.facts import exit_of, printed
from manager._run.joblog import JobLog
from manager._run.options import RunOptions
from manager._run.remote import RemoteRun, TaskSupply
from manager._run.report import RunReport
from manager._run.worker import STATE_DIR
from manager.again import TASK_TYPE
from manager.agent import Agent, Lease
from manager.queue import DEFAULT
from tests.installed import import_package
from tests.manager.control_support import ask, meanwhile, task
from tests.manager.runner_support import agents, only, run, spawn_task, watchdog
from tests.remote.conftest import Start
from tests.support import TIMEOUT_S, until

import_package("nats")
__all__ = ["watchdog"]

WAITS = "touch begun-$SUBAGENT_NAME; while [ ! -e go ]; do sleep 0.01; done"


def test_a_held_supply_offers_nothing() -> None:
    """While the tasks are held, no worker is offered one."""
    with SubAgentManager.open("/", state_dir="s", disk=SimulatedDisk()) as manager:
        supply = TaskSupply()
        supply.offer(agent := manager.spawn("p", queued=True))
        supply.hold(True)
        assert [*supply.candidates((), [DEFAULT])] == []
        supply.hold(False)
        assert [*supply.candidates((), [DEFAULT])] == [agent.agent_id]


@contextmanager
def run_of_a_failure(
    **options: Any,
) -> Iterator[tuple[RemoteRun, SubAgentManager, RunReport, Agent]]:
    """Yield a run on workers, its manager, its report and its only agent, which has failed."""
    with SubAgentManager.open("/", state_dir="s", disk=SimulatedDisk()) as manager:
        metadata = {"task": "name:a", "command": "false"}
        manager.spawn("p", name="a", agent_type=TASK_TYPE, metadata=metadata)
        agent = manager.update_failed("a", "exit 1")
        report = RunReport()
        report.put(agent)
        yield (
            RemoteRun(manager, report, JobLog(None), RunOptions(**options), lambda report: None),
            manager,
            report,
            agent,
        )


def test_a_task_with_a_newer_attempt_is_not_retried() -> None:
    """A request to retry a failed task is refused once the run has queued its next try, and once
    the run has another agent for the task."""
    with run_of_a_failure() as (remote, manager, report, agent):
        remote._retries[agent.agent_id] = "agent_2"
        with pytest.raises(RequestError, match="has a newer attempt"):
            asyncio.run(remote.retry(agent.agent_id))
        remote._retries.clear()
        report.replace(agent, replace(agent, agent_id="agent_2"))
        with pytest.raises(RequestError, match="has a newer attempt"):
            asyncio.run(remote.retry(agent.agent_id))
        assert len(manager.agents()) == 1


def test_an_agent_that_a_retry_has_replaced_is_not_reported() -> None:
    """A change that becomes durable only after a retry has replaced its agent leaves the report as
    it is."""
    with run_of_a_failure() as (remote, manager, report, agent):
        newer = replace(agent, agent_id="agent_2", status="queued")

        async def durable(lsn: int | None = None) -> None:
            report.replace(agent, newer)

        async def changes() -> AsyncIterator[Agent]:
            yield agent

        async def follow() -> None:
            remote._changed = asyncio.Event()
            await remote._follow(changes())  # type: ignore[arg-type]

        manager.durable = durable  # type: ignore[method-assign]
        asyncio.run(follow())
        assert (report.agents, +report.counts) == ({"agent_2": newer}, {"queued": 1})


def test_a_failure_that_halts_a_run_withdraws_the_tasks_that_wait() -> None:
    """With `halt="soon"`, no worker gets a task that was offered before another one failed."""
    with run_of_a_failure(halt="soon") as (remote, manager, report, agent):
        waiting = manager.spawn("p", queued=True)
        remote._open.add(agent.agent_id)
        remote._supply.offer(waiting)

        async def note() -> None:
            remote._changed = asyncio.Event()
            remote._note(agent)

        asyncio.run(note())
        assert report.halted_by == agent
        assert [*remote._supply.candidates((), [DEFAULT])] == []


def test_requests_change_a_run_on_workers(
    start: Start, workspace: Path, fleet_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run on workers takes requests as other runs do: a paused task runs again when it is
    resumed, a failed one when it is retried, and a task that was cancelled, or cancelled and
    removed, does not keep the run from ending. `show` and `list` name worker and machine, and the
    time since the last sign of life."""
    folder = workspace.parent / "w"
    start("w", "--name", "gpu1")
    shown: dict[str, Any] = {}
    listed: list[str] = []

    def control() -> None:
        until((folder / "begun-long").exists, "a command runs")
        assert run_cli(["show", "long", "--workspace", str(workspace), "-o", "json"]) == 0
        shown.update(json.loads(capsys.readouterr().out))
        assert run_cli(["list", "--workspace", str(workspace)]) == 0
        listed.extend(capsys.readouterr().out.splitlines())
        assert ask(workspace, "pause") == {"paused": True}
        assert ask(workspace, "pause", ref="long")["reason"] == "paused by request"
        with pytest.raises(RefusedError, match="is queued, and not interrupted"):
            ask(workspace, "resume", ref="blocked")
        ask(workspace, "cancel", ref="blocked")
        (folder / "begun-long").unlink()
        ask(workspace, "resume", ref="long")
        assert ask(workspace, "resume") == {"paused": False}
        until((folder / "begun-long").exists, "the command runs again")
        ask(workspace, "cancel", ref="gone")
        ask(workspace, "prune", ref="gone")
        (folder / "fine").touch()
        assert ask(workspace, "retry", ref="fails")["status"] == "queued"
        ask(workspace, "wait", ref="last")
        with pytest.raises(RefusedError, match="completed"):
            ask(workspace, "retry", ref="last")
        (folder / "go").touch()

    lines = (
        task("fails", "[ -e fine ]"),
        task("long", WAITS),
        task("gone", WAITS, queue="nowhere"),
        task("blocked", "true", after=["long"]),
        task("last", "true", after=["fails"]),
    )
    with meanwhile(control):
        report = run(workspace, *lines, on=fleet_url)
    ended = {agent.name: agent for agent in agents(report)}
    assert {name: agent.status for name, agent in ended.items()} == {
        "fails": "completed",
        "long": "completed",
        "gone": "cancelled",
        "blocked": "cancelled",
        "last": "completed",
    }
    assert (ended["long"].starts, ended["fails"].attempt) == (2, 2)
    assert shown["worker"].startswith("gpu1.")
    assert shown["machine"] == socket.gethostname()
    assert 0 <= shown["worker_silent_s"] < TIMEOUT_S
    assert shown["started_at_ms"] >= shown["created_at_ms"]
    assert listed[0].split()[3:6] == ["WORKER", "MACHINE", "HEARD"]
    [row] = [row for row in listed if " long " in row]
    assert f" {shown['worker']}  {socket.gethostname()}  " in row
    assert " s ago " in row
    assert run_cli(["show", "long", "--workspace", str(workspace)]) == 0
    lines_of_ended = capsys.readouterr().out.splitlines()
    assert {f"worker: {shown['worker']}", "machine: gpu1"} <= {*lines_of_ended}


def output(workspace: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "manager", "output", "--workspace", str(workspace), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_output_of_a_worker_is_followed_to_its_end(
    start: Start, workspace: Path, fleet_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`output -f` prints what a command on a worker prints, and its end, although the run ends with
    it. A prune removes the files on the worker. Without a process that can ask, an error names the
    worker."""
    folder = workspace.parent / "w"
    start("w", "--name", "gpu1")
    codes: list[int] = []
    printed: list[str] = []

    def show(*options: str) -> int:
        return run_cli(["output", "b", "--workspace", str(workspace), *options])

    def has_warned() -> bool:
        return show("--stderr") == 0 and capsys.readouterr().out == "why\n"

    def has_begun() -> bool:
        printed.append(capsys.readouterr().out)
        return "".join(printed) == "begun\n"

    def control() -> None:
        until((folder / "begun-b").exists, "a command runs")
        ask(workspace, "wait", ref="a")
        ask(workspace, "prune", ref="a")
        until(has_warned, "stderr was printed")
        with meanwhile(lambda: codes.append(show("-f"))):
            until(has_begun, "the beginning was printed")
            (folder / "go").touch()

    line = f"echo begun; echo why >&2; {WAITS}; head -c 300000 /dev/zero; echo end"
    with meanwhile(control):
        report = run(workspace, task("a", "echo a"), task("b", line), on=fleet_url)
    printed.append(capsys.readouterr().out)
    assert codes == [0]
    assert "".join(printed) == "begun\n" + "\0" * 300_000 + "end\n"
    files = os.listdir(folder / STATE_DIR / "output")
    [agent] = [agent for agent in agents(report) if agent.name == "b"]
    assert sorted(files) == [f"{agent.agent_id}.1.{stream}.0" for stream in ("err", "out")]
    assert show() == 1
    assert "worker gpu1." in (message := capsys.readouterr().err)
    assert "no process that could ask it has the state open" in message


def test_a_worker_forgets_the_facts_of_an_earlier_start(
    start: Start, workspace: Path, fleet_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interrupted command that begins again on a worker has no exit and no length of its output
    until its end, also if a request ends it."""
    start("w")
    known = {"exit_code": None, "signal": 15, "stdout": {"bytes": 100, "cut_bytes": 0}}
    metadata = {"task": "name:a", "command": f"echo begun; {WAITS}"}
    with SubAgentManager.open(workspace) as manager:
        manager.spawn("p", name="a", agent_type=TASK_TYPE, metadata=metadata)
        manager.update_from_result("a", AgentResult("", status="interrupted", checkpoint=known))
    codes: list[int] = []

    def control() -> None:
        until((workspace.parent / "w" / "begun-a").exists, "the command runs")
        codes.append(run_cli(["output", "a", "--workspace", str(workspace)]))
        ask(workspace, "cancel", ref="a")

    with meanwhile(control):
        report = run(workspace, on=fleet_url)
    assert exit_of(only(report)) == (None, None)
    assert (codes, capsys.readouterr()) == ([0], ("begun\n", ""))


def test_the_lengths_of_an_earlier_start_end_no_output() -> None:
    """The output of a running command has no known length, also if its agent's checkpoint still
    states that of an earlier start."""
    known = {"stdout": {"bytes": 100, "cut_bytes": 0}}
    with SubAgentManager.open("/", state_dir="s", disk=SimulatedDisk()) as manager:
        manager.spawn("p", name="a")
        manager.update_from_result("a", AgentResult("", status="interrupted", checkpoint=known))
        assert printed(manager.get("a"), "stdout") == known["stdout"]
        assert printed(manager.resume("a"), "stdout") == {}


def test_the_output_of_a_new_start_is_read_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reader that gets the state of a new start reads all of its output, and forgets that a part
    of the earlier output was not kept. Once it has the whole output, it asks for no more."""
    kept = {1: (3, b"of the first start"), 2: (0, b"of the second")}

    def reply(path: str, verb: str, *, start: int, position: int, **_: Any) -> dict[str, Any]:
        first, data = kept[start]
        position = max(position, first)
        return {"at": "w.1", "position": position, "data": b64encode(data[position:]).decode()}

    monkeypatch.setattr("manager._control.client.request", reply)
    with SubAgentManager.open("/", state_dir="s", disk=SimulatedDisk()) as manager:
        lease: Lease = {"worker": "w.1", "epoch": 1, "lsn": 2, "sequence": 0, "lost": 0}
        agent = replace(manager.spawn("p"), lease=lease)
    reader = RemoteReader("s", agent, "out")
    assert (b"".join(reader.read()), reader.has_gap) == (b"the first start", True)
    reader.agent = replace(agent, starts=2)
    assert (b"".join(reader.read()), reader.has_gap) == (b"of the second", False)
    assert reader.bytes == 13
    kept.clear()
    ended = replace(reader.agent, status="completed", checkpoint={"stdout": {"bytes": 13}})
    reader.agent = ended
    assert [*reader.read()] == []


@pytest.mark.slow
def test_a_worker_that_has_gone_is_named(
    start: Start, workspace: Path, fleet_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output of a worker that was killed can't be read, and the error names the worker. One
    that is started in its directory gives it, also without a run, and then no task is started."""
    monkeypatch.setattr("manager._remote.inquiries._GATHER_S", 1.0)
    worker = start("w", "--name", "gpu1")
    run(workspace, task("b", "echo of b"), on=fleet_url)
    worker.kill()
    worker.wait()

    def look() -> None:
        until((workspace.parent / "v" / "begun-c").exists, "a command runs")
        _, message = output(workspace, "b").communicate()
        assert b"worker gpu1." in message
        assert b"it has gone, or can't be reached" in message
        start("w", "--name", "gpu1")
        until(lambda: output(workspace, "b").communicate() == (b"of b\n", b""), "the output")
        (workspace.parent / "v" / "go").touch()

    start("v", "--name", "gpu1")
    with meanwhile(look):
        run(workspace, task("c", WAITS), on=fleet_url)
    with SubAgentManager.open(workspace) as manager:
        spawn_task(manager, "true", name="later", metadata={"command": "true", "task": "x"})
    assert output(workspace, "b", "--on", fleet_url).communicate() == (b"of b\n", b"")
    with SubAgentManager.open(workspace) as manager:
        assert manager.get("later").status == "queued"
    assert run_cli(["output", "b", "--workspace", str(workspace), "--on", "http://x"]) == 2
