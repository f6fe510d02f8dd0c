"""The command `subagents run`: its progress, its messages, and what it refuses."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from signal import Signals
from typing import Any

import pytest

from manager import SubAgentManager
from manager._cli import progress, trust
from manager._cli.cli import run_cli
from manager._run.report import RunReport
from manager.view import read_fleet
from tests.manager.cli_support import NASTY, TIMEOUT_S, assert_harmless, subagents
from tests.manager.runner_support import spawn_task


def test_run_shows_progress_on_stderr_alone(tmp_path: Path) -> None:
    """Progress goes to stderr, with a summary as the last line; the exit code is 0."""
    (tmp_path / "tasks.txt").write_text("echo out\necho err >&2\n")
    code, out, messages = subagents("run", "tasks.txt", cwd=tmp_path)
    assert (code, out) == (0, "")
    assert messages.splitlines()[-1].startswith("subagents: 2 tasks: 2 completed; ")


def test_run_reads_stdin(tmp_path: Path) -> None:
    """TASKS may be `-`, and the workspace and the state directory may be elsewhere."""
    (tmp_path / "there").mkdir()
    args = ("--workspace", "there", "--state-dir", "kept/state")
    assert subagents("run", "-", *args, cwd=tmp_path, stdin="touch ran\n")[0] == 0
    assert (tmp_path / "there" / "ran").exists()
    assert len(read_fleet(tmp_path / "there" / "kept" / "state").agents(include_archived=True)) == 1
    code, out, _ = subagents("list", *args, cwd=tmp_path)
    assert (code, "touch ran" in out) == (0, True)


def test_run_lists_failed_tasks(tmp_path: Path) -> None:
    """Failed tasks are listed at each run with exit code and last lines, escaped."""
    line = json.dumps({"name": "bad", "command": ["sh", "-c", f"printf '%s' '{NASTY}'; exit 7"]})
    for _ in range(2):
        code, _, messages = subagents("run", "-", cwd=tmp_path, stdin=f"{line}\ntrue\n")
        assert code == 1
        assert "failed: bad: " in messages
        assert "exit 7\\na\\u001b[31m" in messages
        assert "2 tasks: 1 completed, 1 failed" in messages
        assert_harmless(messages)


def test_run_shows_the_first_of_many_failures(tmp_path: Path) -> None:
    """Ten failures are shown, with the command that lists the others."""
    _, _, messages = subagents("run", "-", cwd=tmp_path, stdin="false\n" * 12)
    assert messages.count("false: exit 1") == 10
    assert "2 more; subagents list --status failed" in messages


def test_run_refuses_a_bad_line_before_anything_starts(tmp_path: Path) -> None:
    """A bad line is named with exit code 2, and no state is created."""
    (tmp_path / "tasks.txt").write_text('touch ran\n{"comand": "true"}\n')
    code, _, messages = subagents("run", "tasks.txt", cwd=tmp_path)
    assert code == 2
    assert messages.startswith("subagents: tasks.txt:2: unknown key 'comand'")
    assert os.listdir(tmp_path) == ["tasks.txt"]
    code, _, messages = subagents("run", "-", cwd=tmp_path, stdin="{}\n")
    assert (code, "stdin:1: " in messages) == (2, True)


def test_run_refuses_a_bad_job_log_before_anything_starts(tmp_path: Path) -> None:
    """A job log that is the file of tasks, or that can't be written, is refused: nothing starts."""
    (tmp_path / "tasks.txt").write_text("touch ran\n")
    for log, code, message in (
        ("./tasks.txt", 2, "--joblog would overwrite TASKS; name another file"),
        ("nowhere/log", 4, "nowhere/log"),
    ):
        got, _, messages = subagents("run", "tasks.txt", "--joblog", log, cwd=tmp_path)
        assert (got, message in messages) == (code, True)
    assert os.listdir(tmp_path) == ["tasks.txt"]
    assert (tmp_path / "tasks.txt").read_text() == "touch ran\n"


def test_run_reports_unfinished_tasks(tmp_path: Path) -> None:
    """Unfinished tasks of another file are counted, and run when no file is given."""
    with SubAgentManager.open(tmp_path) as manager:
        metadata = {"task": "line:x:1", "command": "touch ran"}
        spawn_task(manager, "touch ran", metadata=metadata)
    code, _, messages = subagents("run", "-", cwd=tmp_path, stdin="true\n")
    assert (code, "1 unfinished" in messages) == (0, True)
    assert not (tmp_path / "ran").exists()
    assert subagents("run", cwd=tmp_path)[0] == 0
    assert (tmp_path / "ran").exists()


def test_run_without_anything_to_run_succeeds(tmp_path: Path) -> None:
    """A file without tasks, or a state without unfinished ones, gives exit code 0."""
    code, _, messages = subagents("run", "-", cwd=tmp_path, stdin="# none\n")
    assert (code, "nothing to run" in messages) == (0, True)
    assert subagents("run", cwd=tmp_path)[0] == 0


def test_progress_without_a_terminal_is_a_line_at_most_every_5_s(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal, progress is at most one line in a few seconds, whatever happens."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    tell = progress._Lines()
    for now in (100, 104, 105, 106, 109, 110, 111):
        clock[0] = now
        tell(RunReport())
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_progress_on_a_terminal_is_a_bar(tmp_path: Path) -> None:
    """The bar counts the tasks while they run, and gives way to the summary."""
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "manager", "run", "-", "-j2"],
        cwd=tmp_path,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
        stdin=subprocess.PIPE,
        stderr=slave,
    )
    os.close(slave)
    assert child.stdin
    waiting = "for i in $(seq 3000); do [ -e go ] && exit; sleep 0.01; done; exit 1"
    child.stdin.write(f"true\n{waiting}\ntrue\n".encode())
    child.stdin.close()
    screen = b""
    while True:
        try:
            data = os.read(master, 1 << 16)
        except OSError:  # EIO is the end of a terminal on Linux
            break
        if not data:
            break
        screen += data
        if b"2/3" in screen:
            (tmp_path / "go").touch()
    os.close(master)
    assert child.wait(TIMEOUT_S) == 0
    assert b"2/3" in screen
    assert "━".encode() in screen
    assert b"3 tasks: 3 completed" in screen.splitlines()[-1]


def test_the_bar_of_a_large_run_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns, the bar of 100,000 tasks shows what runs, what failed, and when it ends."""
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    ended = Counter(running=64, completed=49_000, failed=1_234)
    report = RunReport(counts=ended + Counter(queued=100_000 - ended.total()))
    report.agents = dict.fromkeys(map(str, range(100_000)))  # type: ignore[assignment]
    report.ended_now = 50_234
    with progress.progress(is_bar=True) as show:
        show(report)
    assert "50234/100000" in screen.getvalue()
    assert "64 running, 1234 failed; ETA 0:00:00" in screen.getvalue()


def test_a_stop_of_edited_lines_is_reported(tmp_path: Path) -> None:
    """The summary names completed tasks whose lines were edited."""
    for command in ("true", "echo edited"):
        line = json.dumps({"name": "a", "command": command})
        code, _, messages = subagents("run", "-", cwd=tmp_path, stdin=line)
        assert code == 0
    assert "not run: 1 edited line of a completed task: a" in messages


def test_a_line_that_ends_in_a_backslash_gets_a_hint(tmp_path: Path) -> None:
    """A line does not continue on the next one, and a message says so."""
    _, _, messages = subagents("run", "-", cwd=tmp_path, stdin="echo a \\\necho b\n")
    assert "stdin:1: ends in a backslash, but a line is a whole command" in messages


@pytest.mark.parametrize("doubt", ["state", pytest.param("workspace", marks=pytest.mark.slow)])
def test_a_state_that_may_be_anothers_is_not_run(tmp_path: Path, doubt: str) -> None:
    """Without a file, a state that others have access to, or in a directory that they can write to,
    runs only with --yes. A message shows what it would run."""
    with SubAgentManager.open(tmp_path) as manager:
        metadata = {"task": "line:x:1", "command": "touch ran"}
        spawn_task(manager, "touch ran", metadata=metadata)
    if doubt == "state":
        (tmp_path / ".subagents").chmod(0o755)
    else:
        tmp_path.chmod(0o757)
    for _ in range(2):
        code, _, messages = subagents("run", cwd=tmp_path)
        assert code == 4
        assert "may not be yours; this run would run 1 command" in messages
        assert "touch ran" in messages
        assert not (tmp_path / "ran").exists()
    assert subagents("run", "--yes", cwd=tmp_path)[0] == 0
    assert (tmp_path / "ran").exists()


def test_a_run_of_a_file_warns_of_what_may_be_anothers(tmp_path: Path) -> None:
    """A run of a file keeps others out of the state from then on, so it says what may be theirs."""
    with SubAgentManager.open(tmp_path) as manager:
        metadata = {"task": "line:x:1", "command": "touch ran"}
        spawn_task(manager, "touch ran", metadata=metadata)
    (tmp_path / ".subagents").chmod(0o755)
    messages = subagents("run", "-", cwd=tmp_path, stdin="true")[2]
    assert "not run: 1 unfinished task outside TASKS" in messages
    assert "look at them before you run them: subagents list" in messages


def test_every_directory_above_a_state_is_looked_at(tmp_path: Path) -> None:
    """A state below a directory that others can write to may be anothers', whatever is above."""
    state = tmp_path / "a" / "b" / "state"
    state.mkdir(parents=True, mode=0o700)
    (tmp_path / "a").chmod(0o757)
    where = str(tmp_path), "a/b/state"
    assert trust.doubt_of(*where).startswith(f"{tmp_path / 'a'}: others can write here")
    (tmp_path / "a").chmod(0o755)
    assert trust.doubt_of(*where) == ""


@pytest.mark.parametrize("owned", [".", "a", "a/state"])
def test_a_state_of_another_user_may_be_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owned: str
) -> None:
    """A state may be another user's if that user owns it, or a directory above it in the workspace,
    whatever the modes. The user and root are trusted."""
    tmp_path.chmod(0o755)
    (tmp_path / "a/state").mkdir(parents=True, mode=0o700)
    (tmp_path / "a").chmod(0o755)
    where = str(tmp_path), "a/state"
    assert trust.doubt_of(*where) == ""
    stat = os.stat

    def stat_of_another(path: str, **options: Any) -> os.stat_result:
        values = [*stat(path, **options)]
        values[4] = 65534 if Path(path) == tmp_path / owned else values[4]
        return os.stat_result(values)

    monkeypatch.setattr(os, "stat", stat_of_another)
    assert "user 65534 owns this" in trust.doubt_of(*where)
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert (trust.doubt_of(*where) == "") == (os.getuid() == 0)


@pytest.mark.parametrize(
    ("answer", "code"),
    [(b"y\n", 0), pytest.param(b"n\n", 4, marks=pytest.mark.slow), (b"\n", 4)],
)
def test_a_state_that_may_be_anothers_is_asked_about(
    tmp_path: Path, answer: bytes, code: int
) -> None:
    """On a terminal, the user decides, and no is the default."""
    with SubAgentManager.open(tmp_path) as manager:
        metadata = {"task": "line:x:1", "command": "touch ran"}
        spawn_task(manager, "touch ran", metadata=metadata)
    (tmp_path / ".subagents").chmod(0o755)
    master, slave = pty.openpty()
    command = [sys.executable, "-P", "-m", "manager", "run"]
    child = subprocess.Popen(command, cwd=tmp_path, stdin=slave, stderr=subprocess.DEVNULL)
    os.close(slave)
    os.write(master, answer)
    assert child.wait(TIMEOUT_S) == code
    os.close(master)
    assert (tmp_path / "ran").exists() == (code == 0)


def test_a_dry_run_prints_what_would_run_now(tmp_path: Path) -> None:
    """A dry run prints the commands that would run now, and changes nothing."""
    lines = [
        '{"name": "done", "command": "true"}',
        '{"name": "bad", "command": ["false", "a b"]}',
        "echo new; touch ran",
    ]
    code, out, messages = subagents("run", "-", "--dry-run", cwd=tmp_path, stdin="\n".join(lines))
    assert (code, out.splitlines()) == (0, ["true", "false 'a b'", "echo new; touch ran"])
    assert "3 of 3 tasks would run now" in messages
    assert list(tmp_path.iterdir()) == []
    subagents("run", "-", cwd=tmp_path, stdin="\n".join(lines[:2]))
    edited = [lines[0].replace("true", "edited"), *lines[1:]]
    _, out, messages = subagents("run", "-", "--dry-run", cwd=tmp_path, stdin="\n".join(edited))
    assert (out, "1 of 3 tasks would run now" in messages) == ("echo new; touch ran\n", True)
    retried = subagents("run", "-", "--dry-run", "--retry-failed", cwd=tmp_path, stdin=lines[1])
    assert (retried[1], "1 of 1 task would run now" in retried[2]) == ("false 'a b'\n", True)
    assert subagents("run", "--dry-run", "--retry-failed", cwd=tmp_path)[1] == "false 'a b'\n"
    assert not (tmp_path / "ran").exists()
    assert subagents("run", "--dry-run", "--state-dir", "none", cwd=tmp_path)[0] == 4


def test_the_summary_says_what_ran_now(tmp_path: Path) -> None:
    """The summary of a resumed run separates what ran now, and names --retry-failed."""
    subagents("run", "-", cwd=tmp_path, stdin="true\nfalse")
    _, _, messages = subagents("run", "-", cwd=tmp_path, stdin="true\nfalse\necho new")
    last = messages.splitlines()[-1]
    assert "3 tasks: 2 completed, 1 failed (1 run now, 2 had ended before); " in last
    assert last.endswith("; to run failed tasks again, add --retry-failed")


def test_the_summary_names_what_was_not_run(tmp_path: Path) -> None:
    """The summary names the failure that halted the run, and the tasks that wait for others."""
    lines = '{"name": "a", "command": "false"}\n{"name": "b", "command": "true", "after": ["a"]}'
    _, _, messages = subagents("run", "-", "--halt", "soon", cwd=tmp_path, stdin=lines)
    assert 'not run: 1 task, because a task in "after" has not completed: b' in messages
    assert "halted, because a failed; run the same command again to run the rest" in messages
    _, _, messages = subagents("run", "-", "--halt", "now", cwd=tmp_path, stdin="false")
    assert "run the rest" not in messages


def test_progress_estimates_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate counts only what has ended in this run, and there is none before that."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    estimate = progress._Estimate()
    report = RunReport(counts=Counter(completed=50, queued=30), ended_before=40)
    clock[0] = 110
    assert estimate.text(report) == ""
    report.ended_now = 10
    assert estimate.text(report) == "; ETA 0:00:30"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_names_of_agents(tmp_path: Path, shell: str) -> None:
    """`completion` prints a script for that shell, and completes verbs and names of agents."""
    assert "_SUBAGENTS_COMPLETE" in subagents("completion", shell, cwd=tmp_path)[1]
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("p", name="lead")
    for words, expected in (("subagents outp", "output"), ("subagents show le", "lead")):
        env = {"_SUBAGENTS_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": "2"}
        env["COMP_CWORD"] = str(len(words.split()) - 1)
        if shell == "fish":
            env["COMP_CWORD"] = words.split()[-1]
        code, out, _ = subagents(cwd=tmp_path, env=env)
        assert (code, expected in out) == (0, True)


@pytest.mark.parametrize("unrecorded", [0, 1])
def test_the_exit_does_not_wait_for_what_the_run_gave_up(
    tmp_path: Path, unrecorded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary is the last line: the engine does not wait for a full disk again at the exit."""
    at_exit = list[object]()
    report = RunReport(signal=Signals.SIGTERM, unrecorded=unrecorded)
    monkeypatch.setattr("manager._run.runner.run_tasks", lambda *_, **__: report)
    monkeypatch.setattr("atexit.register", lambda *call: at_exit.append(call))
    (tmp_path / "tasks.txt").write_text("true\n")
    path = str(tmp_path / "tasks.txt")
    assert run_cli(["run", path, "--workspace", str(tmp_path)]) == 143
    assert at_exit == [(os._exit, 143)] * unrecorded
