"""The order of tasks: what waits for what, retries and halts, and where each command runs."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import JournalReader
from manager import Agent
from manager._cli.output import as_json
from manager._run import schedule as schedule_module
from manager._run.admission import planned_commands
from manager._run.schedule import pause_s, schedule_of
from manager._run.tasks import read_tasks
from manager.view import read_fleet
from tests.manager.runner_support import Runner, agents, only, run, until, watchdog

__all__ = ["watchdog"]  # a fixture for every test here


def line(name: str, command: str, **more: Any) -> str:
    return json.dumps({"name": name, "command": command, **more})


# --- after ---


def test_a_task_waits_for_others(tmp_path: Path) -> None:
    """A task runs after all the tasks that it names have completed, wherever they are."""
    lines = [
        line("c", "echo c >>ran", after=["a", "b"]),
        line("d", "echo d >>ran", after=["c", "c"]),
        line("a", "until test -e ran; do sleep 0.01; done; echo a >>ran"),
        line("b", "echo b >>ran"),
    ]
    assert run(tmp_path, *lines).exit_code == 0
    assert (tmp_path / "ran").read_text().split() == ["b", "a", "c", "d"]


@pytest.mark.parametrize("from_file", [True, False])
def test_a_task_after_a_failed_one_does_not_run(tmp_path: Path, from_file: bool) -> None:
    """What waits for a failed task stays queued and is named. It runs once that has completed."""
    lines = [
        line("a", "test -e good"),
        line("b", "touch ran", after=["a"]),
        line("c", "true", after=["b"]),
    ]
    report = run(tmp_path, *lines)
    assert (report.exit_code, report.blocked) == (1, ("b", "c"))
    assert +report.counts == {"failed": 1, "queued": 2}
    assert not (tmp_path / "ran").exists()
    (tmp_path / "good").touch()
    report = run(tmp_path, *(lines if from_file else ()), retry_failed=True)
    assert (report.exit_code, report.blocked) == (0, ())
    assert (tmp_path / "ran").exists()


def test_a_plan_leaves_out_what_waits_for_a_failed_task(tmp_path: Path) -> None:
    """A task that waits for one that is not run again would not run now, so no plan has it."""
    lines = [
        line("d", "echo d", after=["c"]),
        line("c", "echo c", after=["b"]),
        line("b", "false"),
        line("a", "true"),
    ]
    new = line("e", "echo e", after=["a"])
    tasks = read_tasks("\n".join([*lines, new]).encode(), "tasks.txt")
    everything = ["echo d", "echo c", "false", "true", "echo e"]
    assert planned_commands([], tasks, retry_failed=False) == everything
    run(tmp_path, *lines)
    agents = read_fleet(tmp_path / ".subagents").agents(include_archived=True)
    assert planned_commands(agents, tasks, retry_failed=False) == ["echo e"]
    retried = ["echo d", "echo c", "false"]
    assert planned_commands(agents, tasks, retry_failed=True) == [*retried, "echo e"]
    assert planned_commands(agents, None, retry_failed=False) == []
    assert sorted(planned_commands(agents, None, retry_failed=True)) == sorted(retried)


@given(
    edges=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7))),
    failing=st.sets(st.integers(0, 7)),
)
def test_a_schedule_starts_what_may_run_and_nothing_else(
    edges: list[tuple[int, int]], failing: set[int]
) -> None:
    """Each task starts once, after all that it waits for, and only if they all complete."""
    after = {n: {low for low, high in edges if high == n and low < n} for n in range(8)}
    fleet = {n: agent_of(n, after[n]) for n in range(8)}
    schedule = schedule_of(fleet.values())
    started: list[int] = []
    while (agent := schedule.take()) is not None:
        number = int(agent.name)
        assert after[number] <= {n for n in started if n not in failing}
        started.append(number)
        if number not in failing:
            schedule.complete(agent.metadata["task"])
    may_run: set[int] = set()
    for n in range(8):
        if after[n] <= may_run - failing:
            may_run.add(n)
    assert sorted(started) == sorted(may_run)
    assert {int(agent.name) for agent in schedule.blocked} == {*range(8)} - may_run


def agent_of(number: int, after: set[int]) -> Agent:
    agent = Agent.__new__(Agent)
    agent.agent_id = f"agent_{number:012x}"
    agent.name, agent.status = str(number), "queued"
    agent.metadata = {"task": f"name:{number}", "after": [str(n) for n in after]}
    return agent


# --- retries ---


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule_module, "_PAUSE_S", 0)


def test_a_task_is_retried_up_to_a_limit(tmp_path: Path, no_pauses: None) -> None:
    """A failed task is run again up to N times. Each attempt is an agent, and the last counts."""
    lines = (
        line("good", "echo >>good; test $(wc -l <good) = 3"),
        line("bad", "echo >>bad; exit 3"),
        line("after", "echo >>after", after=["good"]),
        "echo >>unnamed; exit 1",
    )
    report = run(tmp_path, *lines, retries=2, jobs=2, joblog=str(tmp_path / "log"))
    names = ("good", "bad", "after", "unnamed")
    counts = {name: len((tmp_path / name).read_text()) for name in names}
    assert counts == {"good": 3, "bad": 3, "after": 1, "unnamed": 3}
    assert +report.counts == {"completed": 2, "failed": 2}
    fleet = read_fleet(tmp_path / ".subagents")
    assert (fleet.get("bad").attempt, fleet.get("good").attempt) == (3, 3)
    assert len((tmp_path / "log").read_text().splitlines()) == 1 + 3 + 3 + 1 + 3
    again = run(tmp_path, *lines, retries=2)
    assert again.ended_now == 0
    assert len((tmp_path / "bad").read_text()) == 3
    assert run(tmp_path, *lines, retry_failed=True, retries=1).ended_now == 2
    assert len((tmp_path / "bad").read_text()) == 5
    numbers = [
        (as_json(agent)["attempt"], agent.status)
        for agent in read_fleet(tmp_path / ".subagents").agents(include_archived=True)
        if "unnamed" in agent.prompt
    ]
    assert numbers == [(n, "failed") for n in range(1, 6)]


def test_a_failure_and_its_retry_are_one_change(tmp_path: Path, no_pauses: None) -> None:
    """The end of an attempt and the agent of the next one have the same batch in the journal, so no
    crash can forget the retry."""
    run(tmp_path, "exit 1", retries=1)
    with JournalReader.open(tmp_path / ".subagents") as reader:
        entries = list(reader.entries(after=0))
    (index,) = [n for n, e in enumerate(entries) if e.record[0] == "spawn" and n > 2]
    assert entries[index - 1].record[0] == "result"
    assert entries[index - 1].offset == entries[index].offset


def test_a_kill_during_the_pause_does_not_forget_the_retry(tmp_path: Path) -> None:
    """A run that is killed before a retry leaves the retry, and the next run counts it."""
    text = "echo >>ran; exit 1"
    with Runner(tmp_path, text, args=("--retries", "2")) as runner:
        until(
            lambda: (
                (tmp_path / "ran").exists()
                and len(read_fleet(tmp_path / ".subagents").agents(include_archived=True)) == 2
            ),
            "the agent of the retry",
        )
        runner.send(signal.SIGKILL)
        runner.end()
    ran = len((tmp_path / "ran").read_text())
    report = run(tmp_path, text, retries=1)
    assert only(report).metadata["tries"] == 1
    assert len((tmp_path / "ran").read_text()) == ran + 1


def test_pauses_grow_to_a_bound() -> None:
    """The pauses before retries double from 1 s to 60 s."""
    assert [pause_s(n) for n in (1, 2, 3, 7, 10_000)] == [1, 2, 4, 60, 60]


# --- halt ---


def test_halt_soon_starts_no_more(tmp_path: Path) -> None:
    """With "soon", what runs may end, and nothing else starts after the first failure."""
    slow = "until [ -e failed ]; do sleep 0.01; done; sleep 0.1; touch slow"
    report = run(tmp_path, slow, "touch failed; false", "touch more", jobs=2, halt="soon")
    assert +report.counts == {"completed": 1, "failed": 1, "queued": 1}
    assert report.exit_code == 1
    assert (tmp_path / "slow").exists()
    assert not (tmp_path / "more").exists()


def test_halt_now_stops_the_others(tmp_path: Path) -> None:
    """With "now", the running commands are stopped as by a signal, and the run exits with 1."""
    report = run(
        tmp_path,
        "touch up; sleep 1000",
        line("bad", "until [ -e up ]; do sleep 0.01; done; false"),
        "true",
        jobs=2,
        halt="now",
    )
    stopped, bad, queued = agents(report)
    assert (stopped.status, stopped.reason) == ("interrupted", "stopped because bad failed")
    assert (bad.status, queued.status, report.exit_code) == ("failed", "queued", 1)
    assert report.halted_by == bad


def test_halt_waits_for_retries(tmp_path: Path, no_pauses: None) -> None:
    """A failure that is retried does not halt a run, and one of an earlier run does not either."""
    flaky = "test -e again || { touch again; exit 1; }"
    assert run(tmp_path, flaky, "true", retries=1, halt="now", jobs=1).exit_code == 0
    run(tmp_path, "false")
    report = run(tmp_path, "false", "touch ran", halt="now", jobs=1)
    assert (tmp_path / "ran").exists()
    assert report.exit_code == 1


def test_a_stop_ends_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that only waits for a retry ends at once when it is stopped."""
    monkeypatch.setattr(schedule_module, "_PAUSE_S", 60)

    def stop(report: Any) -> None:
        if report.counts["queued"] and len(read_ids) == 1:
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)
        read_ids.update(report.agents)

    read_ids: set[str] = set()
    assert run(tmp_path, "false", retries=1, tell=stop).exit_code == 143


# --- cwd and env ---


def test_a_command_runs_in_its_directory_with_its_environment(tmp_path: Path) -> None:
    """`cwd` is relative to the workspace, and `env` is added to the environment, but for the
    identity of the agent. Both are kept for a run without a file."""
    (tmp_path / "sub").mkdir()
    text = line(
        "a",
        "pwd; echo $COLOUR $SUBAGENT_NAME; test -e good",
        cwd="sub",
        env={"COLOUR": "red", "SUBAGENT_NAME": "forged"},
    )
    expected = f"{tmp_path / 'sub'}\nred a\n"
    assert only(run(tmp_path, text)).result == expected
    (tmp_path / "sub" / "good").touch()
    assert only(run(tmp_path, retry_failed=True)).result == expected


def test_a_missing_directory_fails_the_task(tmp_path: Path) -> None:
    """A directory that does not exist fails its task, and no other."""
    bad, good = agents(run(tmp_path, line("a", "true", cwd="none"), "true"))
    assert bad.reason is not None
    assert bad.reason.startswith("could not be started: ")
    assert good.status == "completed"
