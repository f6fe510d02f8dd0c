"""The exits of commands as fields, and the job log."""

from __future__ import annotations

import json
import os
import signal
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from journal import LockedError
from manager import Agent, AgentResult, SubAgentManager
from manager._cli.output import as_json
from manager._run import joblog as joblog_module
from manager._run import schedule as schedule_module
from manager._run.joblog import JobLog
from manager._run.report import RunReport
from manager.again import TASK_TYPE
from manager.view import read_fleet
from tests.manager.runner_support import Runner, agents, run, until, watchdog

__all__ = ["watchdog"]  # a fixture for every test here

HEAD = ["Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive", "Exitval", "Signal", "Command"]


def exit_fields(agent: Agent) -> tuple[object, object]:
    shown = as_json(agent)
    return shown["exit_code"], shown["signal"]


@pytest.mark.parametrize(
    ("command", "fields"),
    [("true", (0, None)), ("exit 3", (3, None)), ("kill -SEGV $$", (None, signal.SIGSEGV))],
)
def test_an_exit_is_a_code_or_a_signal(
    tmp_path: Path, command: str, fields: tuple[object, object]
) -> None:
    """The exit code and the signal of a command are fields of its agent, and one of them is null.
    Both are null while it runs."""
    seen: list[tuple[object, object]] = []
    report = run(tmp_path, command, tell=lambda r: seen.extend(map(exit_fields, agents(r))))
    assert seen[:2] == [(None, None)] * 2
    assert [exit_fields(agent) for agent in agents(report)] == [fields]
    (stored,) = read_fleet(tmp_path / ".subagents").agents(include_archived=True)
    assert exit_fields(stored) == fields


def test_a_command_that_was_not_started_has_no_exit(tmp_path: Path) -> None:
    """A command that could not be started, or was stopped by its timeout, shows what is known."""
    first, second = agents(run(tmp_path, "true " + "a" * 200_000, "sleep 100", timeout_s=0.2))
    assert exit_fields(first) == (None, None)
    assert exit_fields(second) == (None, signal.SIGTERM)


def test_the_exit_of_an_earlier_start_is_forgotten(tmp_path: Path) -> None:
    """An interrupted command that begins again has no exit until its end, also if a request ends it
    or if it can't be started."""
    metadata = {"task": "name:n", "command": "true", "cwd": "nowhere"}
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("true", name="n", agent_type=TASK_TYPE, metadata=metadata)
        known = {"exit_code": None, "signal": 15}
        manager.update_from_result("n", AgentResult("", status="interrupted", checkpoint=known))
    seen: list[object] = []
    log = tmp_path / "log"
    report = run(tmp_path, tell=lambda r: seen.append(agents(r)[0].checkpoint), joblog=str(log))
    assert seen[1] == {}
    assert [exit_fields(agent) for agent in agents(report)] == [(None, None)]
    assert rows(log)[0][6:8] == ["-1", "0"]


def rows(path: Path) -> list[list[str]]:
    head, *lines = path.read_text().split("\n")[:-1]
    assert head.split("\t") == HEAD
    return [line.split("\t") for line in lines]


def test_a_job_log_has_the_columns_of_parallel(tmp_path: Path) -> None:
    """Each task that has ended has a line with its number, times, exit and command."""
    log = tmp_path / "log"
    array = '{"command": ["sh", "-c", "sleep 0.1\\necho"], "name": "c"}'
    trap = "trap 'exit 4' TERM; sleep 100 & wait"
    late = (json.dumps({"command": c, "timeout_s": 1}) for c in (trap, "sleep 100"))
    lines = ("exit 3", "kill -9 $$", array, *late)
    report = run(tmp_path, *lines, joblog=str(log))
    by_number = {int(row[0]): row for row in rows(log)}
    assert [by_number[n][6:] for n in range(1, 6)] == [
        ["3", "0", "exit 3"],
        ["137", "9", "kill -9 $$"],
        ["0", "0", "sh -c 'sleep 0.1\0echo'"],
        ["-1", "0", trap],
        ["-1", "15", "sleep 100"],
    ]
    assert all(row[1] == ":" and row[4:6] == ["0", "0"] for row in by_number.values())
    agent = agents(report)[2]
    assert agent.started_at_ms is not None
    assert float(by_number[3][2]) == agent.started_at_ms / 1000
    assert 0.1 <= float(by_number[3][3]) < 60


def test_no_job_runtime_is_negative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command during which the clock was set back has run for 0 seconds, and not for fewer."""
    times_ms = count(1_700_000_000_000, -5000)
    monkeypatch.setattr("manager.clock.now_ms", lambda: next(times_ms))
    log = tmp_path / "log"
    run(tmp_path, "true", joblog=str(log))
    assert [float(row[3]) for row in rows(log)] == [0]


def test_a_job_log_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    """A path at which no job log can be is refused before there is a state. A run that is refused
    leaves an older job log as it is."""
    with pytest.raises(FileNotFoundError):
        run(tmp_path, "true", joblog=str(tmp_path / "nowhere" / "log"))
    assert not list(tmp_path.iterdir())
    log = tmp_path / "log"
    log.write_text("older")
    with SubAgentManager.open(tmp_path), pytest.raises(LockedError):
        run(tmp_path, "true", joblog=str(log))
    assert log.read_text() == "older"


def test_a_run_without_a_job_log_reads_no_agents_for_one() -> None:
    """Agents are not copied for a job log that is not written, which takes long for many."""

    def agents() -> list[Agent]:
        raise AssertionError

    JobLog(None).begin(RunReport(), agents)


def test_a_job_log_may_be_a_pipe() -> None:
    """A job log that can't be emptied, because it is a pipe, gets its lines and is complete."""
    reader, writer = os.pipe()
    report = RunReport()
    with closing(JobLog(f"/dev/fd/{writer}")) as log:
        log.begin(report, list)
    os.close(writer)
    with open(reader) as lines:
        assert lines.read().split() == HEAD
    assert report.joblog_error is None


def test_a_job_log_is_complete_after_a_kill(tmp_path: Path) -> None:
    """A run begins the job log with what ended earlier. A kill neither loses nor doubles a line."""
    log = tmp_path / "log"
    lines = ("true", "false", "test -e again || { touch again; sleep 1000; }", "echo last")
    with Runner(tmp_path, *lines, jobs=1, args=("--joblog", str(log))) as runner:
        until((tmp_path / "again").exists, "the start of the third command")
        runner.send(signal.SIGKILL)
        runner.end()
    assert [row[0] for row in rows(log)] == ["1", "2"]
    log.write_text("torn")
    run(tmp_path, *lines, joblog=str(log), jobs=1)
    assert [(row[0], row[6]) for row in rows(log)] == [
        ("1", "0"), ("2", "1"), ("3", "0"), ("4", "0")
    ]  # fmt: skip


def test_a_job_log_has_each_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt of a task has a line of its number, in the order of their ends, also in the log
    that a later run begins."""
    monkeypatch.setattr(schedule_module, "_PAUSE_S", 0)
    log = tmp_path / "log"
    lines = ("echo first", "test -e good", '{"name": "n", "command": "test -e good"}')
    run(tmp_path, *lines, jobs=1, retries=1, joblog=str(log))
    written = log.read_text()
    assert [row[0] for row in rows(log)] == ["1", "2", "3", "2", "3"]
    run(tmp_path, *lines, joblog=str(log))
    assert log.read_text() == written
    (tmp_path / "good").touch()
    with SubAgentManager.open(tmp_path) as manager:  # not of the run, whatever its metadata
        metadata = {"task": [], "command": "true"}
        manager.spawn("other", name="other", agent_type=TASK_TYPE, metadata=metadata)
        manager.update_from_result("other", AgentResult("done"))
    run(tmp_path, *lines[1:], jobs=1, retry_failed=True, joblog=str(log))
    assert [(row[0], row[6]) for row in rows(log)] == [
        ("1", "1"), ("2", "1"), ("1", "1"), ("2", "1"), ("1", "0"), ("2", "0")
    ]  # fmt: skip


def test_a_job_log_on_a_full_disk_stops_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the job log is reported, and the run goes on."""

    class FullDisk:
        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def write(self, fd: int, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(joblog_module, "os", FullDisk())
    report = run(tmp_path, "true", joblog=str(tmp_path / "log"))
    assert report.exit_code == 0
    assert report.joblog_error is not None
