"""journal-inspect report: each agent as the manager has it, its time spans, and the commits."""

from __future__ import annotations

import io
import json
import random
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_inspect.commands import verbs_fleet
from journal_inspect.commands.report import write_report
from journal_inspect.report import data as report_data
from journal_inspect.report import fleet as report_fleet
from journal_inspect.report import page as report_page
from journal_inspect.report.data import STEPS_MAX, STEPS_MS, Commits
from journal_inspect.report.fleet import FleetTimeline

from journal import JournalReader, Options
from manager import AgentResult, SubAgentManager, read_fleet
from manager.agent import LIVE, STATUSES
from tests.inspect.report_support import (
    BOOT,
    HOUR_AGO_MS,
    STORY,
    act,
    agent_id,
    at,
    report,
    spawn,
    write,
    write_many,
)
from tests.installed import import_package
from tests.manager_support import ROOMY
from tests.support import until

import_package("jinja2")


def assert_report_matches_the_manager(path: Path | str) -> None:
    page_agents = {agent["agent_id"]: agent for agent in report(path).agents}
    agents = read_fleet(path).agents(include_archived=True)
    assert agents
    assert page_agents.keys() == {agent.agent_id for agent in agents}
    for agent in agents:
        fields = {name: page_agents[agent.agent_id][name] for name in report_fleet.TOLD}
        assert fields == {name: getattr(agent, name) for name in report_fleet.TOLD}


def some_work(manager: SubAgentManager, seed: int) -> None:
    """Change agents at random in all possible ways."""
    rnd = random.Random(seed)
    for step in range(150):
        parents = [agent.agent_id for agent in manager.agents() if agent.spawn_depth < 2]
        manager.spawn(
            f"task {step}",
            queued=rnd.random() < 0.5,
            parent_id=rnd.choice([None, *parents]),
            role=rnd.choice([None, "worker"]),
        )
        queued = manager.agents(status="queued")
        running = manager.agents(status="running")
        interrupted = manager.agents(status="interrupted")
        if queued and rnd.random() < 0.6:
            manager.start(rnd.choice(queued).agent_id)
        if interrupted and rnd.random() < 0.4:
            manager.resume(rnd.choice(interrupted).agent_id)
        if running:
            ref = rnd.choice(running).agent_id
            match rnd.randrange(6):
                case 0:
                    manager.update_checkpoint(ref, {"at": step}, steps_taken=step)
                case 1:
                    manager.record_usage(ref, input_tokens=step, output_tokens=2)
                case 2:
                    manager.interrupt(ref, "wait", needs_input="?")
                case 3:
                    manager.update_failed(ref, f"broke at {step}")
                case 4:
                    done = AgentResult("out", status="completed", input_tokens=3, steps_taken=9)
                    manager.update_from_result(ref, done)
                case 5:
                    manager.cancel(ref, descendants=True)
        if step in (50, 100):
            manager.compact()


@pytest.mark.parametrize("seed", range(3))
def test_agents_are_shown_as_the_manager_has_them(tmp_path: Path, seed: int) -> None:
    """P6: Every field of every agent equals that of `read_fleet`.

    That holds for agents from a checkpoint and from records, with a live writer and without.
    """
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        some_work(manager, seed)
        manager.cleanup(0)
        manager.wait_durable()
    assert_report_matches_the_manager(manager.path)
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        some_work(manager, seed + 100)
        manager.compact()
        assert_report_matches_the_manager(manager.path)


def test_every_kind_of_record_is_understood(tmp_path: Path) -> None:
    """Records of all documented kinds, including an import and a removal, give their agents."""
    values = [agent_id(99), "old", "general", None, None, "p", "failed", "why", None, 2, None, None]
    times = [at(5), at(6), at(9), at(9)]
    imported: list[Any] = ["import", *values, None, None, 0, None, 7, {}, *times, "first"]
    records = (
        *STORY,
        act("checkpoint", 1, 1700, {"at": 3}, 4),
        act("usage", 1, 1800, 10, 20),
        ["remove", agent_id(2)],
        imported,
    )
    path = write(tmp_path / "j", *records)
    assert_report_matches_the_manager(path)
    page = report(path)
    assert page.agent(99)["spans"] == [("e", 5, 6), ("r", 6, 9)]
    assert page.agent(1)["tokens_used"] == 11 + 11 + 30
    assert "1 agent removed" in page.words


def test_running_and_waiting_are_separate_spans(story: Path) -> None:
    """An agent's time from its spawn to its end is split at its transitions."""
    page = report(story)
    assert page.agent(2)["spans"] == [("w", 100, 400), ("r", 400, 1000)]
    assert page.agent(3)["spans"] == [("r", 200, 700)]
    assert page.agent(5)["spans"] == [("r", 400, 800), ("w", 800, 1600), ("r", 1600, 2000)]
    assert page.agent(6)["spans"] == [("r", 500, 900)]
    assert page.agent(8)["spans"] == [("r", 700, 700)]
    kind, begin, end = page.agent(4)["spans"][0]
    assert (kind, begin) == ("w", 300)
    assert end > 3000, "a live agent waits until the last commit"


def test_a_task_without_a_name_is_shown_by_its_command(tmp_path: Path) -> None:
    """The list and the errors show the beginning of the prompt of an agent that has only an id, and
    the name of any other. If prompts are redacted, they show the id."""
    with SubAgentManager.open(tmp_path) as manager:
        tasks = [manager.spawn("seq 3\nseq 4\n", name=name) for name in (None, "named")]
        for task in tasks:
            manager.update_failed(task.agent_id, "why")
    path = manager.path
    for redacted, label in (((), r"<bdi>seq 3\nseq 4</bdi>"), (("prompt",), tasks[0].agent_id)):
        text = io.StringIO()
        write_report(path, text, redact=redacted)
        assert text.getvalue().count(label) >= 2, redacted
        assert text.getvalue().count("<bdi>named</bdi>") == 2
        assert ("seq 3" in text.getvalue()) == (not redacted)


def test_children_are_below_their_parents(story: Path) -> None:
    """Families are together, oldest first, with children indented by one step."""
    page = report(story)
    assert [(agent["agent_id"][-1], agent["depth"]) for agent in page.agents] == [
        *(("1", 0), ("2", 1), ("3", 1), ("4", 0), ("5", 1), ("6", 0), ("7", 0), ("8", 0))
    ]


def test_agents_in_a_circle_of_parents_are_shown(tmp_path: Path) -> None:
    """P9: Agents in a circle of parents, which no manager writes, are still shown."""
    records: list[Any] = [BOOT, spawn(1, 0, parent=2), spawn(2, 1, parent=1), spawn(3, 2, parent=3)]
    page = report(write(tmp_path / "j", *records, act("usage", 1, 3, 5, 5)))
    assert sorted(agent["agent_id"] for agent in page.agents) == [agent_id(n) for n in (1, 2, 3)]


def test_agents_running_at_the_end_are_shown_as_interrupted(tmp_path: Path) -> None:
    """An agent without a process is shown as interrupted, as by the next open."""
    again = ["boot", "subagents/1", "second", at(7200), 2]
    page = report(write(tmp_path / "j", BOOT, spawn(1, 0)))
    agent = page.agent(1)
    assert (agent["status"], agent["reason"]) == ("interrupted", "process restarted")
    assert "It interrupts 1 agent that was running when the process ended." in page.words
    with JournalReader.open(tmp_path / "j") as reader:
        last_ms = [entry.written_at_ns // 1_000_000 for entry in reader.entries()][-1]
    write(tmp_path / "j", again, act("interrupt", 1, 7201, "process restarted", None, None))
    ran, waits = report(tmp_path / "j").agent(1)["spans"]
    last_commit = pytest.approx((last_ms - at(0)) / 1000)
    assert ran == ("r", 0, last_commit), "it ran until the last commit of its process"
    assert waits == ("w", last_commit, 7201)


def test_time_before_the_first_kept_record_is_marked_unknown(tmp_path: Path) -> None:
    """Time before the first kept record is neither running nor waiting, but unknown.

    The time after it is shown as usual.
    """
    with SubAgentManager.open(tmp_path, options=Options(segment_bytes=4096)) as manager:
        agent = manager.spawn("old", queued=True)
        until(lambda: time.time_ns() // 1_000_000 > agent.created_at_ms + 1, "some time")
        manager.start(agent.agent_id)
        for number in range(3):
            manager.spawn(f"later {number}" * 1000)
            manager.compact()
        paused = manager.interrupt(agent.agent_id, "x")
    page = report(manager.path)
    with JournalReader.open(manager.path) as reader:
        assert min(reader.first_lsns) > agent.lsn, "its first records are removed"
    page_agent = next(each for each in page.agents if each["agent_id"] == agent.agent_id)
    times = (paused.created_at_ms, paused.started_at_ms, paused.updated_at_ms)
    created, started, updated = ((ms or 0) / 1000 - HOUR_AGO_MS / 1000 for ms in times)
    earlier, ran, *waits = page_agent["spans"]
    assert earlier == ("e", pytest.approx(created), pytest.approx(started))
    assert ran == ("r", pytest.approx(started), pytest.approx(updated))
    assert [kind for kind, *_ in waits] in ([], ["w"]), "it waited no time, or some"


def test_memory_follows_agents(tmp_path: Path) -> None:
    """P8: An agent that is interrupted again and again takes no more memory than others.

    Its oldest spans become one.
    """
    timeline = FleetTimeline()
    timeline.apply(spawn(1, 0))
    for step in range(1, 5000):
        timeline.apply(act("interrupt", 1, 2 * step, "x" * 10_000, None, None))
        timeline.apply(act("resume", 1, 2 * step + 1, "first"))
    life = timeline.lives[agent_id(1)]
    assert len(life.spans) == report_fleet.SPANS_MAX
    assert life.spans[0][:2] == ("e", at(0))
    assert all(a[2] == b[1] for a, b in pairwise(life.spans))
    assert timeline.unknown == 0
    timeline.apply(["remove", agent_id(1)])
    assert not timeline.lives


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.sampled_from([agent_id(1), agent_id(2), "running", "failed"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
ALL_KINDS = (
    *STORY,
    act("checkpoint", 1, 5, {}, 4),
    act("usage", 1, 5, 10, 20),
    ["remove", agent_id(2)],
    ["import", *[None] * 22],
)


@st.composite
def damaged_records(draw: st.DrawFn) -> Any:
    """Draw a manager's record with wrong values in some places, or any value."""
    record = list(draw(st.sampled_from(ALL_KINDS)))
    for place in draw(st.lists(st.integers(0, len(record) - 1), max_size=3)):
        record[place] = draw(JUNK)
    return draw(st.sampled_from([record, record[: draw(st.integers(0, 6))]]) | JUNK)


@given(st.lists(damaged_records(), max_size=20))
def test_no_record_stops_a_report(records: list[Any]) -> None:
    """P9: A record that only looks like a manager's stops no report, whatever it contains."""
    timeline = FleetTimeline()
    for record in records:
        timeline.apply(record)
    timeline.finish(at(10), is_live=False)
    lives = list(timeline.by_family())
    assert len(lives) == len(timeline.lives)
    json.dumps([life.agent for life in lives], allow_nan=False)
    assert all(begin <= end for life in lives for _, begin, end in life.spans)


NUMBERS = st.sampled_from([0, 1, True, -1, 1 << 63, 1.5, "7", None])
COUNTING = st.tuples(
    st.sampled_from(["usage", "checkpoint", "cancel"]),
    st.sampled_from([agent_id(1), agent_id(2), "nobody", None]),
    *[NUMBERS] * 3,
)


@given(st.lists(COUNTING.map(list), max_size=8))
def test_frequent_kinds_are_applied_like_the_others(records: list[Any]) -> None:
    """P9: A record of a frequent kind changes a timeline as its own method does."""
    timelines = FleetTimeline(), FleetTimeline()
    timelines[1]._has_only_counted = lambda record: False  # type: ignore[method-assign]
    for record in [spawn(1, 0), spawn(2, 0, parent=1), *records]:
        for timeline in timelines:
            timeline.apply(record)
    assert timelines[0].lives == timelines[1].lives
    assert timelines[0].unknown == timelines[1].unknown


def test_records_of_a_newer_version_are_counted(tmp_path: Path) -> None:
    """A record of an unknown kind is counted; unknown additional fields are ignored."""
    page = report(write(tmp_path / "j", BOOT, [*spawn(1, 0), "more"], ["renamed", agent_id(1)]))
    assert page.agent(1)["prompt"] == "look"
    assert "1 record of a kind that this version does not know" in page.words


# --- commits ---


@given(st.lists(st.tuples(st.integers(0, 2**44), st.integers(1, 9)), min_size=1))
def test_commits_are_counted_in_few_steps(commits: list[tuple[int, int]]) -> None:
    """P8: Commits at any times, in any order, are counted in a bounded number of steps."""
    counted = Commits()
    for at_ms, records in commits:
        counted.add(at_ms, {"a": records})
    steps = counted.steps()
    assert len(steps) <= STEPS_MAX
    assert sum(step.commits for _, step in steps) == len(commits)
    assert sum(step.records for _, step in steps) == sum(records for _, records in commits)
    assert max(step.largest for _, step in steps) == max(records for _, records in commits)
    for begin_ms, step in steps:
        inside = [n for at_ms, n in commits if begin_ms <= at_ms < begin_ms + counted.step_ms]
        assert (step.commits, step.records) == (len(inside), sum(inside))


def test_steps_divide_one_another() -> None:
    """Each step of time is a multiple of the previous one, so that counts need not be split."""
    assert all(not b % a for a, b in pairwise(STEPS_MS))


@pytest.mark.parametrize("in_commit", [1, 1000])
def test_kinds_are_bounded(in_commit: int) -> None:
    """P8: The first kinds of records are counted separately, and all others together."""
    counted = Commits()
    for first in range(0, 1000, in_commit):
        kinds = (f"kind {number}" for number in range(first, first + in_commit))
        counted.add(first, dict.fromkeys(kinds, 1))
    assert len(counted.total.kinds) == report_data.KINDS_MAX + 1
    assert counted.total.kinds[report_data.OTHER] == 1000 - report_data.KINDS_MAX


def test_stats_show_commits_and_batches(tmp_path: Path) -> None:
    """The page states the number of commits and of records in a commit."""
    page = report(write_many(tmp_path / "j", *([n] for n in range(250))))
    assert "3 commits" in page.words
    assert "250 records, 83.3 per commit, at most 100 in one" in page.words


def test_all_statuses_of_the_manager_are_known() -> None:
    """Every status of the manager can be chosen in a command and is drawn in a report."""
    assert verbs_fleet.STATUSES == STATUSES
    assert set(report_page.STATUSES) == set(STATUSES)
    assert report_fleet.LIVE == LIVE
