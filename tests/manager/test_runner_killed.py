"""The end of a runner: signals, and kill -9 at any moment."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import random
import signal
import subprocess
import termios
import time
from collections import Counter
from itertools import count
from pathlib import Path

import pytest

from journal import JournalReader
from manager import SubAgentManager
from manager._run.report import RunReport
from manager._run.runner import _GIVEN_UP_S
from manager.view import read_fleet
from tests.manager.runner_support import (
    PYTHON,
    TIMEOUT_S,
    Runner,
    is_running,
    pids,
    put_in_state,
    run,
    until,
    watchdog,
)
from tests.soak import soak_runner
from tests.tiers import slow_but_every

__all__ = ["watchdog"]  # a fixture for every test here

SLEEPERS = tuple(f"sleep 1000 & echo $! >>pids; echo $$ >>pids; wait # {n}" for n in range(3))


STOPS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("number", "code"), slow_but_every(3, STOPS))
def test_a_signal_interrupts_the_commands(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """A signal stops each command with its children and interrupts it; the next run resumes it."""
    with Runner(tmp_path, *SLEEPERS, "touch ran", jobs=3) as runner:
        sleeping = pids(tmp_path / "pids", 6)
        runner.send(number)
        exit_code, messages = runner.end()
    assert exit_code == code
    assert f"stopped by {number.name}" in messages
    assert messages.count("stopping 3 commands within 5 s; Ctrl-C again kills them at once") == 1
    assert "Traceback" not in messages
    assert not any(is_running(pid) for pid in sleeping)
    fleet = read_fleet(tmp_path / ".subagents").agents()
    assert [a.status for a in fleet] == ["interrupted"] * 3 + ["queued"]
    assert {a.reason for a in fleet[:3]} == {f"stopped by {number.name}"}
    for path in tmp_path.glob("pids"):
        path.unlink()
    with Runner(tmp_path, *SLEEPERS, "touch ran", jobs=4) as runner:
        sleeping = pids(tmp_path / "pids", 6)
        until((tmp_path / "ran").exists, "the run of the queued command")
        runner.send(number)
        assert runner.end()[0] == code
    assert not any(is_running(pid) for pid in sleeping)


def test_a_run_under_nohup_ignores_sighup(tmp_path: Path) -> None:
    """A SIGHUP that is ignored at the start stays ignored."""
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    line = "touch up; until [ -e go ]; do sleep 0.01; done"
    with Runner(tmp_path, line, prelude=ignore) as runner:
        until((tmp_path / "up").exists, "the start of the command")
        runner.send(signal.SIGHUP)
        (tmp_path / "go").touch()
        assert runner.end()[0] == 0


def test_a_run_ends_well_when_its_terminal_goes_away(tmp_path: Path) -> None:
    """When a connection is lost, the commands are stopped, and the run ends with its exit code
    although it can print nothing more."""
    (tmp_path / "tasks.txt").write_text("touch up; sleep 1000")
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [*PYTHON, "-m", "manager", "run", "tasks.txt"],
        cwd=tmp_path,
        env=os.environ | {"TERM": "xterm"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
    )
    os.close(slave)
    until((tmp_path / "up").exists, "the start of the command")
    os.close(master)
    assert child.wait(TIMEOUT_S) == 129
    (agent,) = read_fleet(tmp_path / ".subagents").agents()
    assert (agent.status, agent.reason) == ("interrupted", "stopped by SIGHUP")


def test_a_second_signal_kills_at_once(tmp_path: Path) -> None:
    """After a second signal, a command that ignores TERM is killed at once."""
    patient = "import manager._run.execution; manager._run.execution.GRACE_S = 1e6"
    deaf = "trap 'echo TERM >>heard' TERM; echo $$ >>pids; while :; do sleep 0.01; done"
    with Runner(tmp_path, deaf, prelude=patient) as runner:
        (pid,) = pids(tmp_path / "pids", 1)
        runner.send(signal.SIGTERM)
        until((tmp_path / "heard").exists, "the TERM signal")
        assert is_running(pid)
        runner.send(signal.SIGINT)
        assert runner.end()[0] == 143
    assert not is_running(pid)
    assert read_fleet(tmp_path / ".subagents").agents()[0].reason == "stopped by SIGTERM"


def test_a_stopped_run_gives_up_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that was stopped, and waits only for a disk that takes nothing, reports that, and ends
    at the next signal. Its close is bounded, and the next run runs the task again."""
    durable, close = SubAgentManager.durable, SubAgentManager.close
    calls, limits = count(), list[float | None]()

    async def durable_once(manager: SubAgentManager, lsn: int | None = None) -> None:
        await (durable(manager, lsn) if next(calls) == 0 else asyncio.Event().wait())

    def close_late(manager: SubAgentManager, *, timeout_s: float | None = None) -> None:
        limits.append(timeout_s)
        close(manager)
        raise TimeoutError

    def stop(report: RunReport) -> None:
        if report.awaited or (report.counts["running"] and report.signal is None):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(SubAgentManager, "durable", durable_once)
    monkeypatch.setattr(SubAgentManager, "close", close_late)
    monkeypatch.setattr("manager._run.run._AWAITED_S", 0.05)
    report = run(tmp_path, "echo $$ >>pids; exec sleep 1000", tell=stop)
    assert (report.exit_code, report.awaited, report.unrecorded) == (143, 1, 1)
    assert limits == [_GIVEN_UP_S]
    assert "the last changes are not durable" in caplog.text


def test_a_command_that_succeeded_before_the_signal_is_completed(tmp_path: Path) -> None:
    """A command that ended before the signal has completed, even if its end is handled after it."""
    # The first end is held back until the signal has arrived.
    prelude = """
        import os, signal, manager._run.runner
        from manager._run.process import Command
        finish = Command.finish
        async def finish_late(self):
            os.kill(os.getpid(), signal.SIGTERM)
            return await finish(self)
        Command.finish = finish_late
    """
    with Runner(tmp_path, "echo done", "true", jobs=1, prelude=prelude) as runner:
        assert runner.end()[0] == 143
    fleet = read_fleet(tmp_path / ".subagents").agents(include_archived=True)
    assert [(a.status, a.result) for a in fleet] == [("completed", "done\n"), ("queued", None)]


def test_no_command_outlives_a_killed_runner(tmp_path: Path) -> None:
    """A killed runner leaves no process, and the next run finds its commands interrupted."""
    with Runner(tmp_path, *SLEEPERS, jobs=3) as runner:
        sleeping = pids(tmp_path / "pids", 6)
        runner.send(signal.SIGKILL)
        runner.end()
        # This runs at once: the next run's commands start only after the old ones are gone.
        running = "for pid in $(cat pids); do grep -q 'State:.[RSD]' /proc/$pid/status; done"
        check = f"! ({running.replace('; done', ' && exit 0; done; exit 1')}) 2>/dev/null"
        report = run(tmp_path, check)
        assert report.exit_code == 0
    assert report.others == 3
    assert not any(is_running(pid) for pid in sleeping)
    fleet = read_fleet(tmp_path / ".subagents").agents()
    assert {(a.status, a.reason) for a in fleet} == {("interrupted", "process restarted")}
    again = [line.replace("wait", "kill $!; wait") for line in SLEEPERS]
    assert run(tmp_path, *again).exit_code == 0


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_runner_killed_while_starting_a_command_leaves_no_process(
    tmp_path: Path, moment: str
) -> None:
    """No process survives a kill just before the guard knows of it, nor one just after."""
    prelude = f"""
        import os, signal
        from manager._run.process import Guard
        watch = Guard.watch
        def watch_and_die(self, group):
            with open({str(tmp_path / "pids")!r}, "a") as file:
                print(group, file=file)
            if {moment == "after"}:
                watch(self, group)
            os.kill(os.getpid(), signal.SIGKILL)
        Guard.watch = watch_and_die
    """
    with Runner(tmp_path, "touch ran; sleep 1000", prelude=prelude) as runner:
        assert runner.end()[0] == -signal.SIGKILL
    (pid,) = pids(tmp_path / "pids", 1)
    until(lambda: not is_running(pid), "the end of the command")
    assert not (tmp_path / "ran").exists()


def test_a_state_has_one_runner(tmp_path: Path) -> None:
    """A second runner is told which process has the lock, and starts nothing."""
    with Runner(tmp_path, *SLEEPERS) as runner:
        pids(tmp_path / "pids", 6)
        with Runner(tmp_path, "touch ran") as second:
            code, messages = second.end()
        assert code == 5
        assert f"locked by process {runner.process.pid}" in messages
        assert "Traceback" not in messages
        runner.send(signal.SIGTERM)
        assert runner.end()[0] == 143
    assert not (tmp_path / "ran").exists()


def test_a_lock_held_for_a_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run waits for a lock that a killed runner's child holds for a moment."""
    put_in_state(tmp_path, ("a", "true", "queued"))
    manager = SubAgentManager.open(tmp_path)
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        manager.close()

    monkeypatch.setattr(time, "sleep", sleep)
    assert run(tmp_path).exit_code == 0
    assert len(sleeps) == 1


def completions(state: Path) -> Counter[str]:
    """Return how often each agent completed, according to the journal from its first record on."""
    with JournalReader.open(state) as reader:
        return Counter(
            entry.record[1]
            for entry in reader.entries(after=0)
            if entry.record[0] == "result" and entry.record[3] == "completed"
        )


def starts(state: Path) -> Counter[str]:
    with JournalReader.open(state) as reader:
        return Counter(
            entry.record[1]
            for entry in reader.entries(after=0)
            if entry.record[0] in ("start", "resume")
        )


@pytest.mark.parametrize("count", [8, pytest.param(30, marks=pytest.mark.slow)])
def test_each_command_completes_once_whatever_is_killed(tmp_path: Path, count: int) -> None:
    """P1, P2: A run killed at random completes each command exactly once in the state.

    No command ran without a start in the journal.
    """
    rounds_max = 2 * count
    lines = [f"echo $SUBAGENT_ID >>ran; sleep {0.9 / count}; echo {n}" for n in range(count)]
    dice = random.Random(7)
    rounds = 0
    while True:
        with Runner(tmp_path, *lines, jobs=4) as runner:
            try:
                # After some rounds no run is cut short, so that the test ends.
                patience_s = dice.uniform(0.1, 0.6) if rounds < rounds_max else TIMEOUT_S
                code = runner.process.wait(patience_s)
            except subprocess.TimeoutExpired:
                runner.send(signal.SIGKILL)
                runner.end()
                rounds += 1
                continue
            _, messages = runner.end()
            assert code == 0, messages
            break
    assert rounds >= 2
    fleet = read_fleet(tmp_path / ".subagents").agents(include_archived=True)
    assert sorted(int(a.result or -1) for a in fleet) == list(range(count))
    assert {a.status for a in fleet} == {"completed"}
    assert completions(tmp_path / ".subagents") == {a.agent_id: 1 for a in fleet}
    ran, started = Counter((tmp_path / "ran").read_text().split()), starts(tmp_path / ".subagents")
    assert ran.keys() == started.keys()
    assert all(1 <= ran[agent_id] <= started[agent_id] for agent_id in started)


@pytest.mark.slow
def test_a_run_with_parents_survives_repeated_kills(tmp_path: Path) -> None:
    """A run that is killed repeatedly completes, and `list` and `show` always answer."""
    result = soak_runner.run(tmp_path, tasks=50, kills=3, seed=1, task_s=0.1)
    assert result.faults == []
    assert result.kills == 3
    assert len(result.answers) > 3
