"""Control of a run: other processes cancel its tasks, and wait for them."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from manager import SubAgentManager
from manager._cli import giving_up, reach
from manager._cli.cli import run_cli
from manager._control import place
from manager._control.errors import NoReplyError
from manager.view import read_fleet
from tests.manager.control_support import STATE, ask, meanwhile, task
from tests.manager.runner_support import is_running, pids, put_in_state, run, until, watchdog

__all__ = ["watchdog"]  # a fixture for every test here

SLEEPER = "echo $$ >>pids; echo begun; sleep 1000"


def test_a_cancelled_task_is_stopped_and_not_run_again(tmp_path: Path) -> None:
    """A cancel stops the running command with all of its group, and ends a queued task. The run
    goes on with the others, and no later run runs the cancelled ones."""

    def cancel() -> None:
        pids(tmp_path / "pids", 1)
        assert ask(tmp_path, "cancel", ref="queued")["status"] == "cancelled"
        assert ask(tmp_path, "cancel", ref="blocked")["status"] == "cancelled"
        assert ask(tmp_path, "cancel", ref="long", reason="enough")["status"] == "cancelled"

    lines = (
        task("long", SLEEPER),
        task("queued", "touch queued"),
        task("after long", "touch after", after=["long"]),
        task("blocked", "touch blocked", after=["long"]),
        task("other", "true"),
    )
    with meanwhile(cancel):
        report = run(tmp_path, *lines, jobs=1, retries=3)
    assert report.exit_code == 1
    assert report.blocked == ("after long",)
    statuses = {agent.name: agent.status for agent in report.agents.values()}
    assert statuses == {
        "long": "cancelled",
        "queued": "cancelled",
        "after long": "queued",
        "blocked": "cancelled",
        "other": "completed",
    }
    assert read_fleet(tmp_path / STATE).get("long").reason == "enough"
    assert not is_running(*pids(tmp_path / "pids", 1))
    assert run(tmp_path, *lines).counts["cancelled"] == 3
    assert sorted(os.listdir(tmp_path)) == [STATE, "pids"]


def test_a_cancel_wins_over_a_failure_and_its_retry(tmp_path: Path) -> None:
    """A command that fails because it was cancelled is not retried."""
    command = "trap 'exit 3' TERM; echo $$ >>pids; sleep 1000 & wait"

    def cancel() -> None:
        pids(tmp_path / "pids", 1)
        ask(tmp_path, "cancel", ref="a")

    with meanwhile(cancel):
        report = run(tmp_path, task("a", command), retries=3)
    assert [agent.status for agent in report.agents.values()] == ["cancelled"]
    assert len(pids(tmp_path / "pids", 1)) == 1


def test_a_run_goes_on_without_control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If the socket can't be made, the run says so and does its work."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "control")

    monkeypatch.setattr(place, "_remove_stale", fail)
    assert run(tmp_path, "true").exit_code == 0
    assert "no other process can cancel" in caplog.text
    assert "No space left" in caplog.text


def test_the_commands_work_during_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`cancel` and `wait` reach the process that runs, and state what has become of the agent."""
    where = ("--workspace", str(tmp_path))

    def control() -> None:
        pids(tmp_path / "pids", 1)
        with meanwhile(lambda: codes.append(run_cli(["wait", "good", *where]))):
            until(lambda: (tmp_path / "begun").exists(), "good has begun")
            codes.append(run_cli(["wait", "good", "--timeout-s", "0.01", *where]))
            (tmp_path / "go").touch()
        codes.append(run_cli(["cancel", "long", *where, "-o", "json", "--reason", "\x1b[31m"]))
        codes.append(run_cli(["wait", "long", *where]))

    codes: list[int] = []
    wait = "touch begun; until [ -e go ]; do sleep 0.01; done"
    with meanwhile(control):
        run(tmp_path, task("long", SLEEPER), task("good", wait))
    assert codes == [124, 0, 0, 1]
    out, err = capsys.readouterr()
    assert "good: completed\n" in out
    assert '"reason": "\\u001b[31m"' in out
    assert out.endswith("long: cancelled\n")
    assert "no reply within 0.01 s" in err


def test_the_commands_work_without_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a process that has the state open, `cancel` and `answer` open it. `wait` knows ended
    agents, and says that nothing can end the others."""
    where = ("--workspace", str(tmp_path))
    assert run_cli(["cancel", "a", *where]) == 4
    assert not (tmp_path / STATE).exists()
    put_in_state(tmp_path, ("a", "true", "queued"), ("b", "true", "interrupted"))
    monkeypatch.setattr(reach, "_LOCKED_FOR_S", 0)
    assert run_cli(["wait", "a", *where]) == 1
    assert "start one: subagents run" in capsys.readouterr().err
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("p", name="c", agent_type="survey", queued=True)
    assert run_cli(["wait", "c", *where]) == 1
    message = capsys.readouterr().err
    assert "workers run agents of the type 'survey'" in message
    assert "subagents run" not in message
    assert run_cli(["cancel", "a", *where]) == 0
    assert run_cli(["wait", "a", *where]) == 1
    assert run_cli(["answer", "b", "[1]", *where]) == 0
    assert read_fleet(tmp_path / STATE).get("b").answer == "[1]"
    assert run_cli(["answer", "b", "[1]", "--json", *where]) == 0
    assert read_fleet(tmp_path / STATE).get("b").answer == [1]
    assert capsys.readouterr().out == "a: cancelled\n" * 2 + "b: interrupted\n" * 2
    assert run_cli(["answer", "b", "[", "--json", *where]) == 2
    assert run_cli(["answer", "a", "1", *where]) == 1
    assert run_cli(["cancel", "nobody", *where]) == 1


@pytest.mark.parametrize("late", [TimeoutError, KeyboardInterrupt])
@pytest.mark.parametrize("verb", ["cancel", "import"])
def test_an_interrupted_change_does_not_wait_for_the_disk(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    late: type[BaseException],
) -> None:
    """Ctrl-C while a change waits for a full disk ends the command after a bounded time, or at the
    next Ctrl-C, and a message says that the change may be missing. The exit does not wait again."""
    where = ("--workspace", str(tmp_path))
    put_in_state(tmp_path, ("a", "true", "queued"))
    assert run_cli(["export", str(tmp_path / "a"), *where]) == 0
    close, limits, at_exit = SubAgentManager.close, list[float | None](), list[object]()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def close_late(manager: SubAgentManager, *, timeout_s: float | None = None) -> None:
        limits.append(timeout_s)
        close(manager)
        raise late

    monkeypatch.setattr(SubAgentManager, "durable", interrupted)
    monkeypatch.setattr(SubAgentManager, "wait_durable", interrupted)
    monkeypatch.setattr(SubAgentManager, "close", close_late)
    monkeypatch.setattr("atexit.register", lambda *call: at_exit.append(call))
    assert run_cli([verb, "a" if verb == "cancel" else str(tmp_path / "a"), *where]) == 130
    assert (limits, at_exit) == ([giving_up.CLOSE_S], [(os._exit, 130)])
    assert "subagents: interrupted before " in capsys.readouterr().err


def test_a_pruned_task_is_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`prune` removes a completed task with its output, so that the same file runs it again."""
    where, line = ("--workspace", str(tmp_path)), task("a", "echo x >>ran")
    for _ in range(2):
        run(tmp_path, line)
    assert run_cli(["prune", "a", *where, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema_version": 1, "pruned": 1}
    assert os.listdir(tmp_path / STATE / "output") == []
    run(tmp_path, line)
    assert (tmp_path / "ran").read_text() == "x\nx\n"
    assert run_cli(["prune", *where]) == 2
    assert run_cli(["prune", "a", "--ended-for-s", "0", *where]) == 2
    assert run_cli(["prune", "--ended-for-s", "0", *where]) == 0
    assert capsys.readouterr().out == "1 sub-agent pruned\n"
    assert run_cli(["prune", "a", *where]) == 1


def test_a_writer_without_control_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a process has the state open without control, the command says so, and changes nothing."""
    monkeypatch.setattr(reach, "_LOCKED_FOR_S", 0)
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("p", name="a")
        for verb in (["cancel", "a"], ["pause"], ["resume", "a"]):
            assert run_cli([*verb, "--workspace", str(tmp_path)]) == 5
            assert "open(..., control=True)" in capsys.readouterr().err
        assert manager.get("a").status == "running"


def test_the_last_end_of_a_run_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait whose process ends before it replies finds the agent's end in the state."""

    def none(*_: object, **__: object) -> None:
        raise NoReplyError("gone")

    assert run(tmp_path, task("a", "true")).exit_code == 0
    monkeypatch.setattr(reach, "request", none)
    assert run_cli(["wait", "a", "--workspace", str(tmp_path)]) == 0


def test_a_run_goes_on_where_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that no thread can serve requests of says so and does its work. A command that can't go
    on without a thread ends in a message, and not in a traceback."""
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if "control" in thread.name or "_write_all" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail)
    assert run(tmp_path, "true").exit_code == 0
    assert "no other process can cancel" in caplog.text
    assert run_cli(["run", "--yes", "--print", "--workspace", str(tmp_path)]) == 4
