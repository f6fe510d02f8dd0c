"""Commands that `subagents run --on` runs on the workers of `subagents worker`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journal import Tables
from manager import Dispatcher, SubAgentManager
from manager._cli.cli import run_cli
from manager._remote.dispatcher import open_dispatcher
from manager._run.report import RunReport
from manager._run.worker import STATE_DIR
from tests.installed import import_package
from tests.manager.runner_support import agents, only, run, watchdog
from tests.remote.conftest import Start
from tests.support import until

import_package("nats")
__all__ = ["watchdog"]


def line(command: str, **fields: object) -> str:
    return json.dumps({"command": command, **fields})


def test_commands_run_in_the_worker_s_directory(
    start: Start,
    workspace: Path,
    fleet_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A command runs in its directory below the worker's, with the worker's environment and the
    task's variables. Its queue, order, time limit, exit and retries are as the file and the options
    say, and its output stays on the worker."""
    monkeypatch.setenv("OF_WORKER", "w")
    worker = start("w", "--queue", "gpu", "--queue", "default", "--name", "gpu1")
    (workspace.parent / "w" / "sub").mkdir()
    monkeypatch.setenv("OF_WORKER", "m")
    monkeypatch.setattr("manager._run.remote.pause_s", lambda tries: 0.01)
    report = run(
        workspace,
        line("pwd; echo $OF_WORKER$X$SUBAGENT_NAME", name="a", cwd="sub", env={"X": "x"}),
        line("cat made", name="b", queue="gpu", after=["c"]),
        line("echo c > made", name="c"),
        line("exec sleep 60", name="slow", timeout_s=0.1),
        line("[ -e tried ] || { touch tried; exit 7; }", name="again"),
        line("kill -9 $$", name="killed"),
        jobs=10,
        retries=1,
        on=fleet_url,
    )
    ended = {agent.name: agent for agent in agents(report)}
    assert ended["a"].result == f"{workspace.parent}/w/sub\nwxa\n"
    assert ended["b"].result == "c\n"
    assert str(ended["slow"].reason).startswith("timed out after 0.1 s")
    assert (ended["again"].status, ended["again"].attempt) == ("completed", 2)
    assert str(ended["killed"].reason).startswith("killed by SIGKILL")
    assert ended["killed"].checkpoint["signal"] == signal.SIGKILL
    assert +report.counts == {"completed": 4, "failed": 2}
    assert report.exit_code == 1
    for agent in ended.values():
        assert agent.lease is not None
        assert agent.lease["worker"].startswith("gpu1.")
    assert run_cli(["list", "--workspace", str(workspace)]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[0].split()[:4] == ["AGENT", "STATUS", "SECONDS", "WORKER"]
    assert all(" gpu1." in row for row in listed[1:])
    outputs = os.listdir(workspace.parent / "w" / STATE_DIR / "output")
    assert f"{ended['b'].agent_id}.1.out.0" in outputs
    assert not (workspace / ".subagents" / "output").exists()
    assert run_cli(["worker", fleet_url, "--dir", str(workspace.parent / "w")]) == 4
    assert "another worker uses this directory" in capsys.readouterr().err
    worker.send_signal(signal.SIGTERM)
    assert worker.wait() == 128 + signal.SIGTERM


def test_no_cwd_leads_out_of_the_worker_s_directory(
    start: Start, workspace: Path, fleet_url: str
) -> None:
    """A task whose `cwd` is absolute, or leads out of the worker's directory, fails without running
    its command. A symlink there is followed, and its parent is the directory that it is in."""
    start("w")
    (workspace.parent / "w" / "link").symlink_to(workspace)
    out = ["/", str(workspace.parent / "w"), "..", "a/../..", "link/../.."]
    inside = ["a/..", "link", "link/..", "./"]
    lines = [line("pwd -P", name=cwd, cwd=cwd) for cwd in (*out, *inside)]
    ended = {agent.name: agent for agent in agents(run(workspace, *lines, on=fleet_url))}
    for cwd in out:
        assert (ended[cwd].status, ended[cwd].result) == ("failed", None)
        assert "is not at or below the directory of the worker" in str(ended[cwd].reason)
    folders = [str(ended[cwd].result).strip() for cwd in inside]
    assert folders == [str(workspace.parent / "w"), str(workspace), *folders[:1] * 2]


def stop_when_running(report: RunReport) -> None:
    if any(agent.status == "running" for agent in agents(report)):
        os.kill(os.getpid(), signal.SIGTERM)


def stop_once_there(path: Path) -> Callable[[], None]:
    """Return a function that stops this process's run once the path exists."""

    def stop() -> None:
        until(path.exists, f"{path.name}, which the command makes")
        os.kill(os.getpid(), signal.SIGTERM)

    return stop


def test_a_signal_ends_the_run_and_not_its_commands(
    start: Start, workspace: Path, fleet_url: str
) -> None:
    """A run that is stopped leaves its commands running, and the next run gets their results.
    A worker that is stopped hands its command back to another one."""
    first = start("w1")
    command = "while [ ! -e go ]; do sleep 0.01; done; cat go"
    stopped = run(workspace, command, on=fleet_url, tell=stop_when_running)
    assert (stopped.exit_code, only(stopped).status) == (128 + signal.SIGTERM, "running")
    (workspace.parent / "w1" / "go").write_text("first")
    report = run(workspace, command, on=fleet_url)
    assert (only(report).result, only(report).starts) == ("first", 1)

    (workspace.parent / "w1" / "go").unlink()
    second_task = f"touch begun; {command}"
    # A worker hands back only what it has got. It begins once the manager has confirmed that.
    stopping = threading.Thread(target=stop_once_there(workspace.parent / "w1" / "begun"))
    stopping.start()
    run(workspace, second_task, on=fleet_url)
    stopping.join()
    first.send_signal(signal.SIGTERM)
    (workspace.parent / "w2").mkdir()
    (workspace.parent / "w2" / "go").write_text("second")
    start("w2")
    report = run(workspace, second_task, on=fleet_url)
    assert (only(report).result, only(report).starts) == ("second", 2)
    assert only(report).lease is not None
    assert first.wait() == 128 + signal.SIGTERM


def test_results_that_come_while_a_run_starts_count(
    start: Start, workspace: Path, fleet_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that a worker reports before the run has begun to follow its tasks starts the tasks
    after it, is retried if it is a failure, and is in the job log."""
    monkeypatch.setattr("manager._run.remote.pause_s", lambda tries: 0.01)
    start("w")
    folder = workspace.parent / "w"
    waiting = "while [ ! -e go ]; do sleep 0.01; done"
    lines = (
        line(f"touch first; {waiting}", name="first"),
        line("true", name="second", after=["first"]),
        line(f"touch fails; {waiting}; [ -e tried ] || {{ touch tried; exit 7; }}", name="fails"),
    )

    def stop_once_both_run() -> None:
        until((folder / "first").exists, "the first task")
        stop_once_there(folder / "fails")()

    stopping = threading.Thread(target=stop_once_both_run)
    stopping.start()
    stopped = run(workspace, *lines, on=fleet_url)
    stopping.join()
    on_worker = [agent.agent_id for agent in agents(stopped) if agent.status == "running"]
    assert len(on_worker) == 2

    def open_slowly(url: str, manager: SubAgentManager, *rest: Any, **more: Any) -> Dispatcher:
        dispatcher = open_dispatcher(url, manager, *rest, **more)
        (folder / "go").touch()
        until(lambda: all(manager.get(ref).ended_at_ms for ref in on_worker), "both results")
        return dispatcher

    monkeypatch.setattr("manager._run.remote.open_dispatcher", open_slowly)
    log = workspace / "log"
    report = run(workspace, *lines, on=fleet_url, retries=1, joblog=str(log))
    assert +report.counts == {"completed": 3}
    assert [agent.attempt for agent in agents(report)] == [1, 1, 2]
    rows = [row.split("\t") for row in log.read_text().splitlines()[1:]]
    assert sorted((row[0], row[6]) for row in rows) == [*zip("1233", "0007", strict=True)]


def test_a_worker_without_its_guard_hands_its_tasks_back(
    start: Start, workspace: Path, fleet_url: str
) -> None:
    """A worker whose guard has died hands its tasks back, and exits with an error. Other workers
    run them."""
    first = start("w1")
    names = [f"a{number}" for number in range(6)]
    lines = [line("touch begun; while [ ! -e go ]; do sleep 0.01; done", name=n) for n in names]
    begun = workspace.parent / "w1" / "begun"

    def kill_guard() -> None:
        until(begun.exists, "a command on the first worker")
        os.kill(guard_of(first), signal.SIGKILL)
        (begun.parent / "go").touch()
        first.wait(timeout=30)
        (workspace.parent / "w2").mkdir()
        (workspace.parent / "w2" / "go").touch()
        start("w2")

    killing = threading.Thread(target=kill_guard)
    killing.start()
    report = run(workspace, *lines, on=fleet_url)
    killing.join()
    assert first.returncode == 1
    assert +report.counts == {"completed": len(names)}


def guard_of(worker: subprocess.Popen[bytes]) -> int:
    """Return the process of a worker's guard."""
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    return next(int(pid) for pid in children if is_guard(pid))


def is_guard(pid: str) -> bool:
    return b"guard.py" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_worker_waits_for_the_commands_of_the_one_before(
    start: Start,
    fleet_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A worker does not start while the guard of a killed one still ends its commands. After a
    while it gives up, and says why."""
    monkeypatch.setattr("manager._run.process._LOCK_TIMEOUT_S", 0.2)
    killed = start("w")
    state = tmp_path / "w" / STATE_DIR
    until((state / "results").exists, "the start of the worker")
    guard = guard_of(killed)
    os.kill(guard, signal.SIGSTOP)
    killed.kill()
    killed.wait()
    try:
        assert run_cli(["worker", fleet_url, "--dir", str(tmp_path / "w")]) == 124
    finally:
        os.kill(guard, signal.SIGCONT)
    message = " ".join(capsys.readouterr().err.split())
    assert f"{state / 'LOCK'}: commands of an earlier run" in message


def test_a_worker_refuses_a_symlink_in_place_of_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A symlink at the place of the worker's own directory is refused, and its target is left as it
    was. The directory that is given may be a symlink."""
    (tmp_path / "target").mkdir()
    (tmp_path / "w").mkdir()
    (tmp_path / "link").symlink_to("w")
    (tmp_path / "w" / STATE_DIR).symlink_to(tmp_path / "target")
    assert run_cli(["worker", "nats://127.0.0.1:1", "--dir", str(tmp_path / "link")]) == 4
    message = " ".join(capsys.readouterr().err.split())
    assert f"{tmp_path / 'w' / STATE_DIR}: is a symlink or not a directory" in message
    assert [*(tmp_path / "target").iterdir()] == []


@pytest.mark.slow
def test_a_result_outlives_its_worker(start: Start, workspace: Path, fleet_url: str) -> None:
    """A result that no manager has heard is reported by the next worker in the same directory."""
    first = start("w")
    command = "touch begun; while [ ! -e go ]; do sleep 0.01; done; cat go"
    # A worker begins no command before the manager has confirmed it.
    stopping = threading.Thread(target=stop_once_there(workspace.parent / "w" / "begun"))
    stopping.start()
    run(workspace, command, on=fleet_url)
    stopping.join()
    (workspace.parent / "w" / "go").write_text("kept")
    spool = workspace.parent / "w" / STATE_DIR / "results"

    def is_kept() -> bool:
        view = Tables.read(str(spool))
        return any(len(view.table(name)) for name in view.names())

    until(is_kept, "a result in the spool")
    first.kill()
    first.wait()
    start("w")
    report = run(workspace, command, on=fleet_url)
    assert (only(report).result, only(report).starts) == ("kept", 1)


def test_a_run_without_workers_takes_its_tasks_back(
    start: Start, workspace: Path, fleet_url: str
) -> None:
    """A run without `--on` runs the tasks here that ran on workers, and a failed task that halts a
    run also stops those on workers."""
    start("w")
    stopped = run(workspace, "[ -e here ] || exec sleep 60", on=fleet_url, tell=stop_when_running)
    assert only(stopped).status == "running"
    (workspace / "here").touch()
    report = run(workspace, "[ -e here ] || exec sleep 60")
    assert (only(report).status, only(report).lease) == ("completed", None)

    lines = "touch begun; exec sleep 60", "while [ ! -e begun ]; do sleep 0.01; done; exit 1"
    report = run(workspace, *lines, on=fleet_url, halt="now")
    assert [agent.status for agent in agents(report)] == ["interrupted", "failed"]
    assert str(agents(report)[0].reason).startswith("stopped because")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "-", "--on", "http://x"), "--on: http://x: is not the address of a server"),
        (("run", "-", "--creds", __file__), "--creds is for the servers of --on"),
        (("run", "-", "--on", "nats://x", "--tag"), "show commands that run here"),
        (("output", "x", "--creds", __file__), "--creds is for the servers of --on"),
        (("output", "x", "--on", "http://x"), "--on: http://x"),
        (("worker", "nats://x/a.b"), "the fleet's name has only letters"),
        (("worker", "nats://x", "--name", "a.b"), "the name of a worker has only letters"),
        (("worker", "nats://x", "--queue", ""), "--queue must be the name of a queue, not ''"),
    ],
    ids=[
        "address",
        "creds",
        "tag",
        "creds of output",
        "address of output",
        "fleet",
        "name",
        "queue",
    ],
)
def test_wrong_arguments_are_usage_errors(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong address, name or combination of options exits with 2 before anything starts."""
    folder = "--dir" if arguments[0] == "worker" else "--workspace"
    assert run_cli([*arguments, folder, str(tmp_path)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert [*tmp_path.iterdir()] == []
