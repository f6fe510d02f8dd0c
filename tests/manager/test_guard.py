"""The guard of a runner, which kills what the runner leaves, and nothing else."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from manager._cli.cli import run_cli
from manager._run import execution as execution_module
from manager._run import guard as guard_module
from manager._run import process as process_module
from manager._run import runner as runner_module
from manager._run.process import Guard, GuardError
from manager._run.report import RunReport
from tests.manager.runner_support import (
    agents,
    is_running,
    only,
    put_in_state,
    run,
    until,
    watchdog,
)

__all__ = ["watchdog"]  # a fixture for every test here


def sleeper() -> subprocess.Popen[bytes]:
    """Start a process group of two processes."""
    script = "sleep 1000 & echo $!; wait"
    return subprocess.Popen(
        ["/bin/sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True
    )


def test_the_guard_kills_the_watched_groups() -> None:
    """The guard kills the watched groups when its runner's pipe closes, and no forgotten one."""
    with sleeper() as forgotten, sleeper() as watched:
        assert forgotten.stdout
        assert watched.stdout
        children = int(forgotten.stdout.readline()), int(watched.stdout.readline())
        with Guard() as guard:
            for process in (forgotten, watched):
                guard.watch(process.pid)
            guard.forget(forgotten.pid)
        assert watched.wait() == -signal.SIGKILL
        assert not is_running(children[1])
        assert forgotten.poll() is None
        assert is_running(children[0])
        os.killpg(forgotten.pid, signal.SIGKILL)


def test_the_guard_stays_until_the_killed_groups_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard ends only after the killed processes are gone, which may take time."""
    killed: list[int] = []
    running = [True, True, False]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"+17\n+18\n-17\n")))
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(os, "killpg", lambda group, number: killed.append(group))
    monkeypatch.setattr(guard_module, "is_running", lambda groups: running.pop(0))
    guard_module.main()
    assert (killed, running) == ([18], [])


def test_a_killed_process_counts_as_gone_before_it_is_reaped() -> None:
    """A zombie counts as gone: in a container, the first process may never reap an orphan."""
    process = sleeper()
    assert process.stdout
    process.stdout.readline()
    assert guard_module.is_running({process.pid, 1 << 22})
    os.killpg(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    until(lambda: not guard_module.is_running({process.pid}), "the end of the other process")
    with process:
        assert process.wait() == -signal.SIGKILL


def test_the_guard_forgets_ended_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard stops watching a group that has ended, because the kernel reuses its number."""
    lines: list[str] = []

    class Telling(Guard):
        def _send(self, line: str) -> None:
            super()._send(line)
            lines.append(line)

    monkeypatch.setattr(runner_module, "Guard", Telling)
    run(tmp_path, "true", "false", "sleep 1000", timeout_s=0.3)
    watched = [line[1:] for line in lines if line.startswith("+")]
    assert len(watched) == 3
    assert sorted(watched) == sorted(line[1:] for line in lines if line.startswith("-"))


def test_the_guard_kills_no_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group whose number has become a stranger's is not killed."""
    killed: list[int] = []
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"+17\n+18\n")))
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(os, "killpg", lambda group, number: killed.append(group))
    monkeypatch.setattr(guard_module, "is_reused", lambda group, leader: group == 17)
    monkeypatch.setattr(guard_module, "is_running", lambda groups: False)
    guard_module.main()
    assert killed == [18]


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="nothing tells two processes apart")
def test_a_number_is_reused_once_its_process_is_reaped() -> None:
    """A process that has the number of a reaped leader is a stranger. A group without its leader
    keeps its number, and so does a leader that nobody has reaped."""
    with sleeper() as process:
        assert process.stdout
        child = int(process.stdout.readline())
        handle = os.pidfd_open(process.pid)
        assert not guard_module.is_reused(process.pid, handle)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not guard_module.is_reused(process.pid, handle)
        process.wait()
        assert not guard_module.is_reused(process.pid, handle)  # its child has the group
        assert guard_module.is_reused(os.getpid(), handle)
        assert guard_module.is_reused(os.getpid(), guard_module._open_process(process.pid))
        os.kill(child, signal.SIGKILL)
        os.close(handle)


def test_no_signal_is_sent_to_a_reaped_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group gets signals only while its leader is not reaped, whether it has exited or not,
    because the kernel gives the number of a reaped process to another one."""
    killpg = os.killpg
    signalled: list[int] = []

    def check(group: int, number: int) -> None:
        os.waitid(os.P_PID, group, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # raises for a reaped one
        signalled.append(group)
        killpg(group, number)

    monkeypatch.setattr(os, "killpg", check)
    sleeper = '{"command": "sleep 1000", "timeout_s": 0.3}'
    report = run(tmp_path, "true", sleeper, "false", "echo a & exit 3")
    assert +report.counts == {"completed": 1, "failed": 3}
    assert len(set(signalled)) == 4


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="each exit takes a thread")
@pytest.mark.parametrize("has_pidfds", [True, False])
def test_more_exits_than_threads_are_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_pidfds: bool
) -> None:
    """An exit for which no thread is left is seen by a pidfd, or by one more thread."""
    monkeypatch.setattr(process_module, "_THREADS_MAX", 1)
    opened: list[int] = []

    def open_pidfd(pid: int, flags: int = 0) -> int:
        opened.append(pid)
        if not has_pidfds:
            raise OSError
        return pidfd_open(pid, flags)

    pidfd_open = os.pidfd_open
    monkeypatch.setattr(os, "pidfd_open", open_pidfd)
    report = run(tmp_path, *(f"exit {n}; true" for n in range(4)), jobs=4)
    assert +report.counts == {"completed": 1, "failed": 3}
    assert opened
    assert process_module.ExitWatch._threads == 0


def test_ignored_ends_of_children_hang_no_run(tmp_path: Path) -> None:
    """A run whose parent ignored SIGCHLD ends, though the system reaps its commands by itself."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        report = run(tmp_path, "true", "echo >>ran")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert report.counts["running"] == 0
    assert (tmp_path / "ran").exists()


def test_a_command_whose_exit_code_is_lost_has_not_completed(tmp_path: Path) -> None:
    """If other code of the process reaps a command, such as a handler of SIGCHLD, its exit code is
    unknown, and the command counts as failed."""

    def reap(*_: object) -> None:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    before = signal.signal(signal.SIGCHLD, reap)
    try:
        ended = agents(run(tmp_path, *(f"sleep 0.0{n}; exit 3" for n in range(4)), jobs=4))
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert {agent.status for agent in ended} == {"failed"}
    for agent in ended:  # the runner may still be the first
        exits = {"exit 3": 3}.get(agent.reason or "")
        assert agent.checkpoint["exit_code"] == exits
        assert exits or "has taken its exit code" in (agent.reason or "")


def test_a_command_that_cannot_be_killed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that has become another user's hangs no timeout: its process is named, and the run
    and the next one go on."""
    monkeypatch.setattr(process_module, "_KILL_TIMEOUT_S", 0.1)
    monkeypatch.setattr(execution_module, "GRACE_S", 0.1)
    killpg = os.killpg

    def refuse(group: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "killpg", refuse)
    report = run(tmp_path, "echo $$ >pid; exec sleep 1000", "sleep 0.5", jobs=1, timeout_s=0.3)
    monkeypatch.undo()
    pid = int((tmp_path / "pid").read_text())
    reasons = [agent.reason for agent in report.agents.values()]
    assert reasons[0] == (
        f"timed out after 0.3 s; process {pid} could not be killed, and still runs"
    )
    assert report.counts["failed"] == 2
    assert run(tmp_path, "true").exit_code == 0
    killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_process_that_outlives_its_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that its command has left and that can't be killed is named, at once and in the
    agent, however the command has ended. One that can be killed is not named."""
    kill = os.kill

    def kill_leader(group: int, number: int) -> None:
        kill(group, number)

    def refuse(pid: int, number: int) -> None:
        if pid == int((tmp_path / "pid").read_text()):
            raise PermissionError
        kill(pid, number)

    monkeypatch.setattr(os, "killpg", kill_leader)
    leave = "sleep 1000 >/dev/null 2>&1 & echo $! >pid"
    for end, problem in ("exit 0", ""), ("exit 3", "exit 3; "):
        monkeypatch.setattr(os, "kill", refuse)
        agent = only(run(tmp_path, f"{leave}; {end}"))
        monkeypatch.setattr(os, "kill", kill)
        pid = int((tmp_path / "pid").read_text())
        named = f"process {pid} could not be killed, and still runs"
        assert agent.reason == problem + named
        assert f"{agent.name}: {named}" in caplog.text
        assert only(run(tmp_path, f"{leave}; {end}; true")).reason == (problem[:-2] or None)
        for each in pid, int((tmp_path / "pid").read_text()):
            kill(each, signal.SIGKILL)


def test_a_reused_number_names_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group with a process of its number is a stranger's once its leader was reaped."""
    monkeypatch.setattr(process_module, "_may_signal", lambda pid: False)
    with sleeper() as process:
        named = process_module._unkillable(process.pid)
        os.killpg(process.pid, signal.SIGKILL)
    assert named == []


def test_the_guard_ignores_the_signals_of_a_terminal(tmp_path: Path) -> None:
    """The guard ignores the signals of a terminal, and has a session of its own."""
    lock = tmp_path / "LOCK"
    lock.touch()
    with Guard() as guard:
        guard.lock(str(lock))  # once this returns, the guard is up
        assert os.getsid(guard.pid) == guard.pid
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            os.kill(guard.pid, number)
        # The guard still answers; without the file there is no lock to wait for.
        guard.lock(str(tmp_path / "none"))


def test_a_guard_waits_for_the_previous_one(tmp_path: Path) -> None:
    """A new run over the same state starts only after the old run's processes are gone."""
    lock = tmp_path / "LOCK"
    lock.touch()
    with sleeper() as watched, Guard() as second:
        with Guard() as first:
            first.lock(str(lock))
            first.watch(watched.pid)
            thread = threading.Thread(target=second.lock, args=(str(lock),))
            thread.start()
            thread.join(0.3)
            assert thread.is_alive()
        thread.join()
        assert watched.wait() == -signal.SIGKILL


def test_commands_that_cannot_be_killed_hold_up_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that waits for unkillable commands gives up with a message and starts nothing."""
    monkeypatch.setattr(process_module, "_LOCK_TIMEOUT_S", 0.2)
    put_in_state(tmp_path, ("a", "touch ran", "queued"))
    with Guard() as earlier:
        earlier.lock(str(tmp_path / ".subagents" / "LOCK"))
        with pytest.raises(TimeoutError, match="earlier run"):
            run(tmp_path)
    assert not (tmp_path / "ran").exists()
    monkeypatch.undo()
    assert run(tmp_path).exit_code == 0


def test_a_run_stops_when_its_guard_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the guard has died, nothing is started that could outlive the runner."""
    guards: list[Guard] = []

    class Watched(Guard):
        def __init__(self) -> None:
            super().__init__()
            guards.append(self)

    def tell(report: RunReport) -> None:
        if report.counts["completed"] == 1:
            os.kill(guards[0].pid, signal.SIGKILL)
            os.waitid(os.P_PID, guards[0].pid, os.WEXITED | os.WNOWAIT)

    monkeypatch.setattr(runner_module, "Guard", Watched)
    with pytest.raises(GuardError, match="has died"):
        run(tmp_path, "true", "echo $$ >>pids; touch ran", jobs=1, tell=tell)
    assert not (tmp_path / "ran").exists()


def test_a_guard_that_python_cannot_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A run from an archive, in a frozen program, or in a Python that does not know its path, says
    why it can't run. The executable of a frozen program would start the program again."""
    put_in_state(tmp_path, ("a", "touch ran", "queued"))
    command = ["run", "--yes", "--workspace", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(guard_module, "__file__", "/lib/all.zip/guard.py")
        assert run_cli(command) == 4
    assert "/lib/all.zip/guard.py: no guard can be started: the package is in an archive" in (
        capfd.readouterr().err
    )
    with monkeypatch.context() as patch:
        patch.setattr(sys, "frozen", True, raising=False)
        assert run_cli(command) == 4
    assert "no guard can be started: this program is frozen" in capfd.readouterr().err
    for lacking in ("", None):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", lacking)
            assert run_cli(command) == 4
        assert "sys.executable is empty; start" in capfd.readouterr().err
    assert not (tmp_path / "ran").exists()
    assert run_cli(command) == 0
