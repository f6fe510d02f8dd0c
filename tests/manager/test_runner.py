"""The runner: each command completes exactly once in the state, whatever is killed and when."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from manager import Agent, SubAgentManager, clock
from manager._run import execution as execution_module
from manager._run import process as process_module
from manager._run.report import RunReport
from manager.again import newest_like
from manager.errors import TasksError
from manager.view import read_fleet
from tests.manager.runner_support import (
    agents,
    as_seen_later,
    is_running,
    only,
    pids,
    put_in_state,
    run,
    spawn_task,
    watchdog,
)

__all__ = ["watchdog"]  # a fixture for every test here

# --- one command ---


def test_the_output_of_a_command_is_its_result(tmp_path: Path) -> None:
    """Standard output is the result, and the end of standard error is beside it; both are durable
    on return."""
    report = run(tmp_path, '{"name": "a", "command": "echo out; echo err >&2; echo more"}')
    assert report.exit_code == 0
    agent = read_fleet(tmp_path / ".subagents").get("a")
    assert (agent.status, agent.reason, agent.result) == ("completed", None, "out\nmore\n")
    assert agent.checkpoint["stderr"]["tail"] == "err\n"
    assert agent.lsn == only(report).lsn
    assert agent.agent_type == "command"


def test_a_command_has_no_input_and_knows_its_agent(tmp_path: Path) -> None:
    """A command runs in the workspace, reads no input, and finds its agent's id and name."""
    (tmp_path / "here").touch()
    agent = only(
        run(tmp_path, '{"name": "a", "command": "cat; ls; echo $SUBAGENT_ID $SUBAGENT_NAME"}')
    )
    assert agent.result == f"here\n{agent.agent_id} a\n"


def test_an_array_runs_without_a_shell(tmp_path: Path) -> None:
    """The strings of an array are the program's arguments, unchanged."""
    report = run(tmp_path, '{"command": ["printf", "[%s]", "a b", "$HOME", "", "-n", "*"]}')
    assert only(report).result == "[a b][$HOME][][-n][*]"


@pytest.mark.parametrize(
    ("command", "reason", "result"),
    [
        ("echo why; exit 3", "exit 3\nwhy", "why\n"),
        ("exit 1", "exit 1", ""),
        ("kill -SEGV $$", "killed by SIGSEGV", ""),
        ("seq 9; exit 1", "exit 1\n5\n6\n7\n8\n9", "1\n2\n3\n4\n5\n6\n7\n8\n9\n"),
        ("printf '\\377\\0'; exit 1", "exit 1\n\ufffd\0", "\ufffd\0"),
    ],
)
def test_a_failure_names_its_exit_and_last_lines(
    tmp_path: Path, command: str, reason: str, result: str
) -> None:
    """An exit code other than 0 and a signal are failures; the reason ends with the last lines."""
    report = run(tmp_path, command)
    assert report.exit_code == 1
    agent = only(report)
    assert (agent.status, agent.reason, agent.result) == ("failed", reason, result)


def test_a_command_that_cannot_be_started_has_failed(tmp_path: Path) -> None:
    """A command that can't be started fails with the reason, and the others run."""
    too_long = "true " + "a" * 200_000
    report = run(tmp_path, too_long, '{"command": ["no-such-program"]}', "echo fine")
    first, second, third = agents(report)
    assert first.reason is not None
    assert first.reason.startswith("could not be started: ")
    assert second.reason is not None
    assert second.reason.startswith("exit 127\n")
    assert "no-such-program" in second.reason
    assert third.status == "completed"


def test_an_exit_code_is_known_although_sigchld_was_ignored(tmp_path: Path) -> None:
    """A parent that ignores SIGCHLD does not hide how commands end; it is ignored again later."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        agent = only(run(tmp_path, "exit 3"))
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert (agent.status, agent.checkpoint["exit_code"]) == ("failed", 3)


def test_a_signal_that_the_parent_has_blocked_stops_a_run(tmp_path: Path) -> None:
    """Signals that stop a run do so even if its parent has blocked them, as they are later."""
    blocked = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        report = run(tmp_path, f"kill -TERM {os.getpid()}; sleep 60")
        assert blocked <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert (report.signal, only(report).reason) == (signal.SIGTERM, "stopped by SIGTERM")


@pytest.mark.skipif(sys.platform == "darwin", reason="there is no way to look")
def test_a_command_that_has_exited_in_time_has_not_timed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner that was stopped and goes on finds that its time limit has passed before it hears
    that the command has exited. The command is completed then."""
    monkeypatch.setattr(process_module.ExitWatch, "_wait", lambda watch: None)
    agent = only(run(tmp_path, "echo done", timeout_s=0.5))
    assert (agent.status, agent.result) == ("completed", "done\n")


def test_a_timeout_stops_the_whole_process_group(tmp_path: Path) -> None:
    """A timeout stops the group and fails the task; a task's own limit overrides the run's."""
    sleeper = "sleep 1000 & echo $! >>pids; echo $$ >>pids; echo started; wait"
    own = '{"command": "sleep 1000", "timeout_s": 0.2}'
    report = run(tmp_path, sleeper, own, "echo quick", timeout_s=1)
    first, second, third = agents(report)
    assert (first.status, first.reason) == ("failed", "timed out after 1 s\nstarted")
    assert (second.status, second.reason) == ("failed", "timed out after 0.2 s")
    assert third.status == "completed"
    assert not any(is_running(pid) for pid in pids(tmp_path / "pids", 2))


def test_a_timeout_leaves_time_to_clean_up(tmp_path: Path) -> None:
    """A timeout sends TERM first; a command that exits on it has still timed out."""
    line = "trap 'echo cleaned; exit 0' TERM; echo started; while :; do sleep 0.01; done"
    agent = only(run(tmp_path, line, timeout_s=1))
    assert agent.status == "failed"
    assert agent.result
    assert agent.result.endswith("cleaned\n")


def test_commands_that_ignore_sigterm_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the grace period the whole group is killed, even children of an obedient parent."""
    monkeypatch.setattr(execution_module, "GRACE_S", 0.2)
    deaf = "trap '' TERM; echo $$ >>pids; sleep 1000 & echo $! >>pids; while :; do wait; done"
    assert only(run(tmp_path, deaf, timeout_s=1)).reason == "timed out after 1 s"
    assert not any(is_running(pid) for pid in pids(tmp_path / "pids", 2))


def test_child_processes_do_not_outlive_their_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes left in the group are killed; one that left the group delays nobody."""
    monkeypatch.setattr(process_module, "_DRAIN_TIMEOUT_S", 0.1)
    script = """
        import os, pathlib, time
        os.setsid()
        print(os.getpid(), flush=True)
        pathlib.Path("up").touch()
        time.sleep(1000)
    """
    (tmp_path / "escape.py").write_text(textwrap.dedent(script))
    remaining, escaped = agents(
        run(
            tmp_path,
            "sleep 1000 & echo $! >>pids; echo remains",
            f"{sys.executable} escape.py & until [ -e up ]; do sleep 0.01; done",
        )
    )
    assert (remaining.status, remaining.result) == ("completed", "remains\n")
    assert not is_running(*pids(tmp_path / "pids", 1))
    assert escaped.status == "completed"
    assert escaped.result
    os.kill(int(escaped.result), signal.SIGKILL)


# --- many commands ---


def test_jobs_bounds_the_commands_that_run_at_once(tmp_path: Path) -> None:
    """As many commands as jobs run side by side, started in the order of the file."""
    together = "mkdir {0}; until [ -d {1} ]; do sleep 0.01; done"
    lines = [together.format("a", "b"), together.format("b", "a"), "true", "true", "true"]
    running: list[int] = []
    started: dict[str, None] = {}

    def tell(report: RunReport) -> None:
        running.append(report.counts["running"])
        started.update((a.agent_id, None) for a in agents(report) if a.status == "running")

    report = run(tmp_path, *lines, jobs=2, tell=tell)
    assert report.exit_code == 0
    assert max(running) == 2
    assert running[0] == running[-1] == 0
    assert list(started) == list(report.agents)


def test_a_parent_sets_the_family_and_not_the_order(tmp_path: Path) -> None:
    """A parent may be anywhere in the file and may fail: neither task waits for the other."""
    report = run(
        tmp_path,
        '{"command": "true", "name": "child", "parent": "top"}',
        '{"command": "false", "name": "top"}',
        '{"command": "true", "name": "grandchild", "parent": "child"}',
    )
    child, top, grandchild = agents(report)
    assert (child.parent_id, top.parent_id) == (top.agent_id, None)
    assert (grandchild.parent_id, grandchild.spawn_depth) == (child.agent_id, 2)
    assert [a.status for a in agents(report)] == ["completed", "failed", "completed"]


def test_finished_tasks_are_not_run_again(tmp_path: Path) -> None:
    """Over the same state only new lines run; completed and failed tasks stay as they are."""
    lines = ("echo a >>ran", "echo a >>ran", "echo b >>ran; exit 1", "")
    first = run(tmp_path, *lines, jobs=1)
    again = run(tmp_path, "# more", *lines, '{"name": "c", "command": "echo c >>ran"}', jobs=1)
    assert (tmp_path / "ran").read_text().split() == ["a", "a", "b", "c"]
    assert agents(again)[:3] == [as_seen_later(agent) for agent in agents(first)]
    assert +again.counts == {"completed": 3, "failed": 1}
    assert again.exit_code == 1


@pytest.mark.parametrize("from_file", [True, False])
def test_failed_tasks_are_retried_on_request(tmp_path: Path, from_file: bool) -> None:
    """A retried task is a new agent of the same name; the failed one stays in the state."""
    (tmp_path / "bad").touch()
    line = '{"name": "a", "command": "echo $SUBAGENT_ID >>ran; test ! -e bad"}'
    lines = (line,) if from_file else ()
    failed = only(run(tmp_path, line))
    assert run(tmp_path, *lines).agents.keys() == {failed.agent_id}
    (tmp_path / "bad").unlink()
    report = run(tmp_path, *lines, retry_failed=True)
    assert report.exit_code == 0
    agent = only(report)
    assert (agent.name, agent.metadata, agent.status) == ("a", failed.metadata, "completed")
    assert (tmp_path / "ran").read_text().split() == [failed.agent_id, agent.agent_id]
    assert read_fleet(tmp_path / ".subagents").get(failed.agent_id).status == "failed"
    assert run(tmp_path, *lines, retry_failed=True).agents.keys() == {agent.agent_id}


def test_an_edited_line_of_a_failed_task_runs(tmp_path: Path) -> None:
    """A failed task whose line was edited has a new command, so it runs. An edited line of a
    completed task does not run again, and is reported."""
    run(tmp_path, *(f'{{"name": "{name}", "command": "exit {n}"}}' for n, name in enumerate("ab")))
    edited = [f'{{"name": "{name}", "command": "echo {name} >>ran"}}' for name in "ab"]
    report = run(tmp_path, *edited)
    assert (report.exit_code, report.edited) == (0, ("a",))
    assert (tmp_path / "ran").read_text().split() == ["b"]
    assert run(tmp_path, *edited).edited == ("a",)


@pytest.mark.parametrize("name", ["a", None])
def test_a_change_of_an_earlier_attempt_does_not_make_it_the_newest(
    tmp_path: Path, name: str | None
) -> None:
    """A task whose retry has completed stays so, also if its failed attempt is changed
    later."""
    line = json.dumps({"name": name, "command": "test -e good"})
    failed = only(run(tmp_path, line))
    (tmp_path / "good").touch()
    completed = only(run(tmp_path, line, retry_failed=True))
    with SubAgentManager.open(tmp_path) as manager:
        changed = manager.set_token_budget(failed.agent_id, 1)
        assert changed.lsn > completed.lsn
        newest = newest_like(changed, manager.agents(include_archived=True))
        assert newest.agent_id == completed.agent_id
    assert run(tmp_path, line, retry_failed=True).agents.keys() == {completed.agent_id}


def test_the_newest_agent_of_a_task_is_not_found_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that was set back does not make an older agent of a task the newest one."""
    line = '{"name": "a", "command": "test -e good"}'
    failed = only(run(tmp_path, line))
    (tmp_path / "good").touch()
    monkeypatch.setattr(clock, "now_ms", lambda: failed.created_at_ms - 1000)
    completed = only(run(tmp_path, line, retry_failed=True))
    assert only(run(tmp_path, line)).agent_id == completed.agent_id


def test_an_edited_line_replaces_the_command_unless_completed(tmp_path: Path) -> None:
    """A task that has not run yet gets the edited command; a completed one is not run again."""
    put_in_state(
        tmp_path, ("a", "echo old >>ran", "queued"), ("b", "echo old >>ran", "interrupted")
    )
    lines = [f'{{"name": "{name}", "command": "echo new >>ran"}}' for name in "ab"]
    assert run(tmp_path, *lines).exit_code == 0
    assert (tmp_path / "ran").read_text().split() == ["new", "new"]
    edited = [line.replace("new", "newer") for line in lines]
    assert run(tmp_path, *edited).exit_code == 0
    assert (tmp_path / "ran").read_text().split() == ["new", "new"]


def test_a_run_without_tasks_finishes_the_state(tmp_path: Path) -> None:
    """Queued and interrupted tasks run; with a file, the others in the state are only counted."""
    put_in_state(tmp_path, ("a", "echo a >>ran", "queued"), ("b", "echo b >>ran", "interrupted"))
    report = run(tmp_path, '{"name": "c", "command": "echo c >>ran"}')
    assert (report.others, len(report.agents)) == (2, 1)
    assert (tmp_path / "ran").read_text().split() == ["c"]
    report = run(tmp_path, jobs=1)
    assert report.exit_code == 0
    assert (report.others, len(report.agents)) == (0, 3)
    assert (tmp_path / "ran").read_text().split() == ["c", "a", "b"]


def test_a_run_without_tasks_needs_a_state(tmp_path: Path) -> None:
    """A run without tasks and without a state is refused, and creates no state."""
    with pytest.raises(FileNotFoundError, match="give a file of tasks"):
        run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_agents_that_are_not_tasks_are_left_alone(tmp_path: Path) -> None:
    """A queued agent that is not a task does not run, whatever its metadata, and a task can't take
    its name."""
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("think", name="thinker", queued=True, metadata={"command": "true"})
        spawn_task(manager, "odd", name="odd", metadata={"task": "t", "command": [1]})
        metadata = {"task": "name:other", "command": "touch ran"}
        manager.spawn("other", agent_type="count", queued=True, metadata=metadata)
    assert run(tmp_path).agents == {}
    with pytest.raises(TasksError, match=r"^tasks.txt:2: name 'thinker' is in use"):
        run(tmp_path, "touch ran", '{"name": "thinker", "command": "true"}')
    assert not (tmp_path / "ran").exists()
    assert read_fleet(tmp_path / ".subagents").get("thinker").status == "queued"


def test_a_time_limit_that_is_no_number_stops_no_run(tmp_path: Path) -> None:
    """A task whose metadata have an impossible time limit runs without one."""
    with SubAgentManager.open(tmp_path) as manager:
        metadata = {"task": "name:a", "command": "true", "timeout_s": "10m"}
        spawn_task(manager, "true", name="a", metadata=metadata)
    assert run(tmp_path).exit_code == 0


def test_a_cancelled_task_is_not_run(tmp_path: Path) -> None:
    """A cancelled task does not run again, and does not count as completed."""
    put_in_state(tmp_path, ("a", "touch ran", "queued"))
    with SubAgentManager.open(tmp_path) as manager:
        manager.cancel("a")
    report = run(tmp_path, '{"name": "a", "command": "touch ran"}', retry_failed=True)
    assert (report.counts, report.exit_code) == ({"cancelled": 1}, 1)
    assert not (tmp_path / "ran").exists()


# --- durable ---


def test_a_start_is_durable_before_its_command_runs(tmp_path: Path) -> None:
    """P2: The start is durable before the command runs, so that no crash can hide what it did.

    Each command copies the files that a crash at this moment would leave.
    """
    report = run(tmp_path, "cp -r .subagents $SUBAGENT_ID", "true && cp -r .subagents $SUBAGENT_ID")
    assert report.exit_code == 0
    for agent in agents(report):
        with SubAgentManager.open(tmp_path, state_dir=agent.agent_id) as crashed:
            recovered = crashed.get(agent.agent_id)
            assert (recovered.status, recovered.reason) == ("interrupted", "process restarted")


def test_an_end_is_durable_before_it_is_reported(tmp_path: Path) -> None:
    """P2: A crash right after the report of a command's end does not undo that end."""
    reported: list[Agent] = []

    def tell(report: RunReport) -> None:
        for agent in agents(report):
            if agent.status in ("completed", "failed") and agent not in reported:
                no_sockets = shutil.ignore_patterns("control")
                copy = tmp_path / agent.agent_id
                shutil.copytree(tmp_path / ".subagents", copy, ignore=no_sockets)
                reported.append(agent)

    report = run(tmp_path, "echo a", "false", "echo b", jobs=2, tell=tell)
    assert sorted(reported, key=id) == sorted(agents(report), key=id)
    for agent in reported:
        with SubAgentManager.open(tmp_path, state_dir=agent.agent_id) as crashed:
            assert crashed.get(agent.agent_id) == as_seen_later(agent)


def test_a_runner_that_fails_leaves_nothing_running(tmp_path: Path) -> None:
    """A runner that fails kills its commands, which the next open shows as interrupted."""

    class WrongError(Exception):
        pass

    def tell(report: RunReport) -> None:
        if report.counts["completed"]:
            raise WrongError

    sleeper = "sleep 1000 & echo $! >>pids; echo $$ >>pids; wait"
    quick = "until [ -e pids ] && [ $(wc -l <pids) = 2 ]; do sleep 0.01; done"
    with pytest.raises(WrongError):
        run(tmp_path, sleeper, quick, tell=tell)
    assert not any(is_running(pid) for pid in pids(tmp_path / "pids", 2))
    statuses = [a.status for a in read_fleet(tmp_path / ".subagents").agents(include_archived=True)]
    assert statuses == ["interrupted", "completed"]
