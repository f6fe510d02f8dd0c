"""Pause, resume and retry: other processes hold the tasks of a run back, and repeat them."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from pathlib import Path

import pytest

from manager import Agent, SubAgentManager
from manager._cli.cli import run_cli
from manager._control.errors import RefusedError
from manager._run import execution
from manager._run.report import RunReport
from manager._run.run import Run
from manager.view import read_fleet
from tests.manager.control_support import STATE, ask, meanwhile, task
from tests.manager.runner_support import (
    Runner,
    is_running,
    pids,
    put_in_state,
    run,
    until,
    watchdog,
)

__all__ = ["watchdog"]  # a fixture for every test here

SLEEPER = "echo $$ >>pids; echo begun; until [ -e go ]; do sleep 0.01; done"
PAUSED = "paused by request"


def test_a_paused_task_runs_again_when_it_is_resumed(tmp_path: Path) -> None:
    """A pause stops the running command, and frees its place. The run waits for what is paused, and
    runs it again after the resume."""
    waits: list[bool] = []

    def control() -> None:
        pids(tmp_path / "pids", 1)
        reply = ask(tmp_path, "pause", ref="long")
        assert (reply["status"], reply["reason"]) == ("interrupted", PAUSED)
        assert not is_running(*pids(tmp_path / "pids", 1))
        until((tmp_path / "other").exists, "the other task has run in its place")
        until(lambda: waits and waits[-1], "the run waits for the resume")
        (tmp_path / "go").touch()
        assert ask(tmp_path, "resume", ref="long")["status"] in ("running", "completed")

    lines = (
        task("long", SLEEPER),
        task("other", "touch other"),
        task("last", "true", after=["long"]),
    )
    with meanwhile(control):
        report = run(tmp_path, *lines, jobs=1, tell=lambda report: waits.append(report.is_waiting))
    assert report.exit_code == 0
    assert len(pids(tmp_path / "pids", 2)) == 2
    assert not waits[-1]


def test_a_paused_task_may_be_cancelled(tmp_path: Path) -> None:
    """The run ends if the task that it waits for is cancelled."""

    def control() -> None:
        pids(tmp_path / "pids", 1)
        ask(tmp_path, "pause", ref="a")
        ask(tmp_path, "cancel", ref="a")

    with meanwhile(control):
        report = run(tmp_path, task("a", SLEEPER))
    assert report.counts["cancelled"] == 1


@pytest.mark.slow
def test_a_run_that_is_stopped_while_it_waits_leaves_the_task_to_the_next(tmp_path: Path) -> None:
    """A pause ends with its run: the next run runs the task."""
    with Runner(tmp_path, task("a", SLEEPER)) as runner:
        pids(tmp_path / "pids", 1)
        ask(tmp_path, "pause", ref="a")
        runner.send(signal.SIGINT)
        code, messages = runner.end()
    assert code == 130
    assert "continue with: subagents resume" in messages
    (tmp_path / "go").touch()
    assert run(tmp_path, task("a", SLEEPER)).exit_code == 0


def test_a_run_that_is_paused_starts_nothing(tmp_path: Path) -> None:
    """`pause` without an agent starts nothing new, and lets commands run on. `resume` without one
    ends that."""

    def control() -> None:
        pids(tmp_path / "pids", 1)
        assert ask(tmp_path, "pause") == {"paused": True}
        (tmp_path / "go").touch()
        ask(tmp_path, "wait", ref="a")
        until(lambda: seen[-1].is_waiting, "the run waits")
        assert not (tmp_path / "b").exists()
        assert ask(tmp_path, "resume") == {"paused": False}

    seen: list[RunReport] = []
    with meanwhile(control):
        report = run(tmp_path, task("a", SLEEPER), task("b", "touch b"), jobs=1, tell=seen.append)
    assert report.exit_code == 0
    assert (tmp_path / "b").exists()


def test_a_task_that_does_not_run_is_not_paused(tmp_path: Path) -> None:
    """Only a running task can be paused, and only an interrupted one resumed. A retry needs a task
    of this run that has ended and not completed. The errors say so, and nothing changes."""

    def control() -> None:
        pids(tmp_path / "pids", 1)
        for verb, ref, problem in (
            ("pause", "queued", "is queued"),
            ("pause", "done", "has ended"),
            ("pause", "elsewhere", "interrupt needs a running agent"),
            ("resume", "queued", "not interrupted"),
            ("resume", "long", "not interrupted"),
            ("resume", "elsewhere", "nothing runs agent elsewhere here"),
            ("retry", "long", "is running; only one that has ended"),
            ("retry", "done", "has completed"),
            ("spawn", "x", "no worker for 'general'"),
        ):
            with pytest.raises(RefusedError, match=problem):
                ask(tmp_path, verb, **{"prompt" if verb == "spawn" else "ref": ref})
        (tmp_path / "go").touch()

    put_in_state(tmp_path, ("elsewhere", "touch elsewhere", "interrupted"))
    lines = task("done", "true"), task("long", SLEEPER), task("queued", "true", after=["long"])
    with meanwhile(control):
        report = run(tmp_path, *lines, jobs=1)
    assert report.exit_code == 0
    assert not (tmp_path / "elsewhere").exists()


def test_a_retried_task_runs_in_the_run(tmp_path: Path) -> None:
    """A retried task, failed or cancelled, runs in the same run, after the tasks that it waits for,
    and those that wait for it follow."""

    def control() -> None:
        pids(tmp_path / "pids", 1)
        assert ask(tmp_path, "wait", ref="flaky")["status"] == "failed"
        ask(tmp_path, "cancel", ref="late")
        (tmp_path / "fixed").touch()
        replies = [ask(tmp_path, "retry", ref=ref) for ref in ("flaky", "late")]
        assert [reply["status"] for reply in replies] == ["queued", "queued"]
        with pytest.raises(RefusedError, match="only one that has ended"):
            ask(tmp_path, "retry", ref="late")
        ask(tmp_path, "wait", ref="next")
        (tmp_path / "go").touch()

    lines = (
        task("long", SLEEPER),
        task("flaky", "[ -e fixed ]"),
        task("next", "echo next >>order", after=["flaky"]),
        task("late", "echo late >>order", after=["long"]),
    )
    with meanwhile(control):
        report = run(tmp_path, *lines)
    assert report.exit_code == 0
    assert (tmp_path / "order").read_text() == "next\nlate\n"
    with SubAgentManager.open(tmp_path) as manager:
        assert [manager.get(name).attempt for name in ("flaky", "late", "next")] == [2, 2, 1]


# A command that ignores SIGTERM. A second one of this name looks whether the first one still runs.
STUBBORN = """if [ -e pids ]; then kill -0 $(cat pids) 2>/dev/null && touch both; exit 0; fi
trap '' TERM; echo $$ >pids; while :; do sleep 0.01; done"""


def test_a_retry_waits_until_the_cancelled_command_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is cancelled and retried begins again only when its first command has ended. The
    run goes on until then, and counts the task once."""
    monkeypatch.setattr(execution, "GRACE_S", 0.3)

    def control() -> None:
        pids(tmp_path / "pids", 1)
        ask(tmp_path, "cancel", ref="a")
        assert ask(tmp_path, "retry", ref="a")["status"] == "queued"

    with meanwhile(control):
        report = run(tmp_path, task("a", STUBBORN))
    assert (report.exit_code, report.counts["completed"], len(report.agents)) == (0, 1, 1)
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize("moment", ["room", "durable"])
def test_a_retry_of_a_task_that_begins_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A task that is cancelled and retried while its start is journaled completes, and is counted
    once."""
    original, moments = getattr(SubAgentManager, moment), iter([True])
    original_retry, has_come = Run.retry, threading.Event()
    retries: list[threading.Thread] = []

    async def at(manager: SubAgentManager, *arguments: int) -> None:
        if next(moments, False):
            await asyncio.to_thread(ask, tmp_path, "cancel", ref="a")
            retry = threading.Thread(target=ask, args=(tmp_path, "retry"), kwargs={"ref": "a"})
            retry.start()
            retries.append(retry)
            await asyncio.to_thread(retry.join if moment == "room" else has_come.wait)
        await original(manager, *arguments)

    async def retry(run: Run, agent_id: str) -> Agent:
        has_come.set()
        return await original_retry(run, agent_id)

    monkeypatch.setattr(SubAgentManager, moment, at)
    monkeypatch.setattr(Run, "retry", retry)
    report = run(tmp_path, task("a", "echo $SUBAGENT_ID >>ran"))
    retries[0].join()
    assert (report.exit_code, report.counts["completed"], len(report.agents)) == (0, 1, 1)
    assert (tmp_path / "ran").read_text().split()[-1:] == [*report.agents]


def test_an_earlier_attempt_is_not_retried(tmp_path: Path) -> None:
    """Only the newest agent of a task can be retried, so that no task runs twice."""
    line = "false"

    def old(report: RunReport) -> str:
        return next(iter(report.agents))

    first = old(run(tmp_path, line))
    second = old(run(tmp_path, line, retry_failed=True))
    where = ("--workspace", str(tmp_path))
    assert run_cli(["retry", first, *where]) == 1
    assert run_cli(["retry", second, *where]) == 0
    assert run_cli(["retry", second, *where]) == 1

    def control() -> None:
        until(lambda: begun, "the run has begun")
        with pytest.raises(RefusedError, match="nothing runs agent"):
            ask(tmp_path, "retry", ref=second)
        (tmp_path / "go").touch()

    def begin(report: RunReport) -> None:
        if report.counts["running"] == 1 and not begun:
            begun.append(True)

    begun: list[bool] = []
    with meanwhile(control):
        run(tmp_path, line, task("long", SLEEPER), tell=begin)
    assert len(read_fleet(tmp_path / STATE).agents(include_archived=True)) == 4


def test_the_commands_work_during_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pause`, `resume` and `retry` state what has become of the agent."""
    where = ("--workspace", str(tmp_path))

    def control() -> None:
        pids(tmp_path / "pids", 1)
        for line in ("pause", "pause long", "resume long -o json", "resume", "retry failed"):
            codes.append(run_cli([*line.split(), *where]))
        (tmp_path / "go").touch()

    codes: list[int] = []
    with meanwhile(control):
        run(tmp_path, task("failed", "false"), task("long", SLEEPER), jobs=1)
    assert codes == [0] * 5
    out = capsys.readouterr().out
    assert out.startswith("paused: no sub-agent starts\nlong: interrupted\n{")
    assert '"reason": "paused by request"' in out
    assert out.endswith("}\nresumed: sub-agents start again\nfailed: queued\n")


def test_a_state_with_a_mirror_is_changed_during_a_run_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its mirror, a state that has one is not changed, and the command says what to do."""
    assert run(tmp_path, task("a", "false"), mirror=f"file://{tmp_path}/mirror").exit_code == 1
    assert run_cli(["retry", "a", "--workspace", str(tmp_path)]) == 1
    assert "while subagents run --mirror" in capsys.readouterr().err
    assert len(read_fleet(tmp_path / STATE).agents(include_archived=True)) == 1


def test_the_commands_without_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a process that has the state open, `retry` opens it, and the next run runs the task.
    `pause`, `resume` and `spawn` say that nothing runs, and change nothing."""
    monkeypatch.setattr("manager._cli.reach._LOCKED_FOR_S", 0)
    where = ("--workspace", str(tmp_path))
    assert run(tmp_path, task("a", "[ -e fixed ]")).exit_code == 1
    before = read_fleet(tmp_path / STATE).lsn
    for line in ("pause a", "pause", "resume a", "resume", "spawn p"):
        assert run_cli([*line.split(), *where]) == 1
        assert "no process that takes requests" in capsys.readouterr().err
    assert read_fleet(tmp_path / STATE).lsn == before
    assert run_cli(["retry", "a", *where, "-o", "json"]) == 0
    reply = json.loads(capsys.readouterr().out)
    assert (reply["name"], reply["status"], reply["reason"]) == ("a", "queued", None)
    (tmp_path / "fixed").touch()
    assert run(tmp_path).exit_code == 0
