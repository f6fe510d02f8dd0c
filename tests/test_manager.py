"""The manager on a real journal: what each method asks, does, keeps and refuses."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from journal import DurableState, FormatVersionError, JournalReader, LockedError, Options
from manager import (
    Agent,
    AgentResult,
    AmbiguousNameError,
    CapacityError,
    Limits,
    ManagerError,
    NameInUseError,
    SubAgentManager,
    TransitionError,
    UnknownAgentError,
)
from manager.agent import ENDED, LIVE, STATUSES, TRANSITIONS, Status

ROOMY = Limits(max_running=1000, max_admitted=1000)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[SubAgentManager]:
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        yield manager


def agent_that_is(manager: SubAgentManager, status: Status, **options: Any) -> Agent:
    agent = manager.spawn("work", queued=status == "queued", **options)
    match status:
        case "queued" | "running":
            return agent
        case "interrupted":
            return manager.interrupt(agent.agent_id, "a reason", checkpoint=[1], needs_input="?")
        case "cancelled":
            return manager.cancel(agent.agent_id)
    return manager.update_from_result(agent.agent_id, AgentResult("out", status=status))


# --- transitions ---

# The table, written once more: the verb, what it makes, and of what.
VERBS: dict[str, tuple[Callable[[SubAgentManager, str], Agent], Status, set[Status]]] = {
    "start": (lambda m, ref: m.start(ref), "running", {"queued"}),
    "resume": (lambda m, ref: m.resume(ref), "running", {"interrupted"}),
    "update_checkpoint": (
        lambda m, ref: m.update_checkpoint(ref, {"at": 1}, steps_taken=1),
        "running",
        {"running"},
    ),
    "interrupt": (lambda m, ref: m.interrupt(ref, "why"), "interrupted", {"running"}),
    "update_failed": (lambda m, ref: m.update_failed(ref, "broken"), "failed", {"running"}),
    "cancel": (lambda m, ref: m.cancel(ref), "cancelled", {"queued", "running", "interrupted"}),
    **{
        f"update_from_result:{status}": (
            lambda m, ref, status=status: m.update_from_result(  # type: ignore[misc]
                ref, AgentResult("out", status=status)
            ),
            status,
            {"running"},
        )
        for status in ("completed", "failed", "cancelled", "interrupted", "budget_exhausted")
    },
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("status", STATUSES)
def test_every_verb_on_every_status(manager: SubAgentManager, status: Status, verb: str) -> None:
    """A verb does what the table says, or raises TransitionError and changes nothing."""
    act, target, sources = VERBS[verb]
    before = agent_that_is(manager, status)
    counts = manager.counts()
    if status in sources:
        after = act(manager, before.agent_id)
        assert after.status == target
        assert after.lsn > before.lsn
        assert (after.ended_at_ms is not None) == (target in ENDED)
        assert manager.get(before.agent_id) == after
        assert manager.counts()[target] == counts[target] + (status != target)
    elif verb == "cancel":
        assert act(manager, before.agent_id) == before == manager.get(before.agent_id)
    else:
        with pytest.raises(TransitionError) as caught:
            act(manager, before.agent_id)
        error = caught.value
        assert (error.agent_id, error.from_status, error.to_status) == (
            before.agent_id,
            status,
            target,
        )
        assert error.allowed == TRANSITIONS[status]
        for word in (before.agent_id, status, target, verb.split(":")[0], *error.allowed):
            assert word in str(error)
        assert manager.get(before.agent_id) == before
        assert manager.counts() == counts


def test_resume_clears_what_was_asked_and_keeps_the_checkpoint(manager: SubAgentManager) -> None:
    """A resumed agent has no reason and no needs_input, and what it needs to go on."""
    interrupted = agent_that_is(manager, "interrupted")
    assert (interrupted.reason, interrupted.needs_input) == ("a reason", "?")
    resumed = manager.resume(interrupted.agent_id)
    assert (resumed.reason, resumed.needs_input, resumed.checkpoint) == (None, None, [1])
    again = manager.interrupt(resumed.agent_id, "why")
    assert again.checkpoint == [1]  # None keeps it


def test_a_result_keeps_what_it_does_not_say(manager: SubAgentManager) -> None:
    """None in an AgentResult leaves result, steps and checkpoint as they are."""
    agent = manager.spawn("work")
    manager.update_checkpoint(agent.agent_id, {"at": 7}, steps_taken=7)
    part = AgentResult("part", status="interrupted", reason="tokens", needs_input=["more?"])
    stopped = manager.update_from_result(agent.agent_id, part)
    assert (stopped.result, stopped.reason, stopped.needs_input) == ("part", "tokens", ["more?"])
    assert (stopped.steps_taken, stopped.checkpoint) == (7, {"at": 7})
    manager.resume(agent.agent_id)
    failed = manager.update_failed(agent.agent_id, "broken")
    assert (failed.result, failed.reason, failed.steps_taken) == ("part", "broken", 7)


# --- limits ---


def test_max_running_bounds_spawn_start_and_resume(tmp_path: Path) -> None:
    """Past max_running: CapacityError with limit, value and counts, and nothing changes."""
    with SubAgentManager.open(tmp_path, limits=Limits(max_running=2)) as manager:
        waiting = manager.spawn("q", queued=True)
        stopped = manager.interrupt(manager.spawn("i").agent_id, "later")
        running = [manager.spawn("r") for _ in range(2)]
        attempts: list[Callable[[], Agent]] = [
            lambda: manager.spawn("r"),
            lambda: manager.start(waiting.agent_id),
            lambda: manager.resume(stopped.agent_id),
        ]
        for attempt in attempts:
            with pytest.raises(CapacityError) as caught:
                attempt()
            assert (caught.value.limit, caught.value.value) == ("max_running", 2)
            assert caught.value.counts == {"queued": 1, "running": 2, "interrupted": 1}
            assert "max_running=2" in str(caught.value)
            assert "2 running" in str(caught.value)
        assert len(manager.agents()) == 4
        manager.update_checkpoint(running[0].agent_id, None, steps_taken=1)
        manager.cancel(running[0].agent_id)
        assert manager.start(waiting.agent_id).status == "running"


def test_max_admitted_counts_all_that_have_not_ended(tmp_path: Path) -> None:
    """Queued, running and interrupted agents count for max_admitted, finished ones do not."""
    with SubAgentManager.open(tmp_path, limits=Limits(max_admitted=3)) as manager:
        agents = [agent_that_is(manager, status) for status in (*ENDED, *LIVE)]
        with pytest.raises(CapacityError) as caught:
            manager.spawn("one more", queued=True)
        assert (caught.value.limit, caught.value.value) == ("max_admitted", 3)
        manager.cancel(agents[-1].agent_id)
        manager.spawn("one more", queued=True)


def test_max_depth_bounds_the_line_of_parents(tmp_path: Path) -> None:
    """A root is at depth 0; an agent at max_depth can have no child."""
    with SubAgentManager.open(tmp_path, limits=Limits(max_depth=2)) as manager:
        line = [manager.spawn("root", name="root")]
        line.append(manager.spawn("child", parent_id="root"))  # a name will do
        line.append(manager.spawn("grandchild", parent_id=line[-1].agent_id))
        assert [agent.spawn_depth for agent in line] == [0, 1, 2]
        assert [a.parent_id for a in line] == [None, line[0].agent_id, line[1].agent_id]
        with pytest.raises(CapacityError) as caught:
            manager.spawn("too deep", parent_id=line[-1].agent_id)
        assert (caught.value.limit, caught.value.value) == ("max_depth", 2)
        with pytest.raises(UnknownAgentError):
            manager.spawn("an orphan", parent_id="nobody")
        manager.cancel("root")
        assert manager.spawn("late", parent_id="root").spawn_depth == 1
        assert manager.get(line[1].agent_id).status == "running"


@pytest.mark.parametrize(
    "bad",
    [
        {"max_running": 0},
        {"max_admitted": True},
        {"max_depth": -1},
        {"prompt_bytes_max": 1.5},
        {"result_bytes_max": "1"},
        {"heartbeat_timeout_s": 0},
        {"heartbeat_timeout_s": float("nan")},
    ],
)
def test_a_bad_limit_is_named(bad: dict[str, Any]) -> None:
    """Limits are checked when made."""
    with pytest.raises(ValueError, match=next(iter(bad))):
        Limits(**bad)


def test_threads_never_pass_a_limit_or_share_a_name(tmp_path: Path) -> None:
    """Threads that spawn at once fill max_running exactly; one of them gets the name."""
    limits = Limits(max_running=5, max_admitted=1000)
    with SubAgentManager.open(tmp_path, limits=limits) as manager:
        start = threading.Barrier(16)
        outcomes: list[str] = []

        def spawn() -> None:
            start.wait(timeout=30)
            for name in ("same", None, None):
                try:
                    manager.spawn("p", name=name)
                    outcomes.append("spawned")
                except ManagerError as error:
                    outcomes.append(type(error).__name__)

        threads = [threading.Thread(target=spawn) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert outcomes.count("spawned") == 5 == manager.counts()["running"]
        assert len(outcomes) == 48
        assert [agent.name for agent in manager.agents()].count("same") <= 1
        assert len({agent.lsn for agent in manager.agents()}) == 5


# --- refs ---


def test_an_agent_without_a_name_is_called_by_its_id(manager: SubAgentManager) -> None:
    """agent_id is agent_ and 12 hex digits; the name is the same if none was given."""
    agent = manager.spawn("work")
    assert agent.name == agent.agent_id
    prefix, _, digits = agent.agent_id.partition("_")
    assert (prefix, len(digits), int(digits, 16) >= 0) == ("agent", 12, True)
    assert manager.get(agent.agent_id) == agent


@pytest.mark.parametrize("status", LIVE)
def test_a_live_agents_name_is_its_own(manager: SubAgentManager, status: Status) -> None:
    """Names are unique among queued, running and interrupted agents."""
    holder = agent_that_is(manager, status, name="a name")
    with pytest.raises(NameInUseError) as caught:
        manager.spawn("work", name="a name")
    assert (caught.value.agent_id, caught.value.status) == (holder.agent_id, status)
    assert holder.agent_id in str(caught.value)
    assert manager.get("a name") == holder


@pytest.mark.parametrize("status", ENDED)
def test_a_finished_agents_name_is_free_and_still_found(
    manager: SubAgentManager, status: Status
) -> None:
    """A name finds the live agent first, then the one finished agent; several are ambiguous."""
    first = agent_that_is(manager, status, name="a name")
    assert manager.get("a name") == first
    second = manager.spawn("work", name="a name")
    assert manager.get("a name") == second
    assert manager.get(first.agent_id) == first
    manager.cancel("a name")
    with pytest.raises(AmbiguousNameError) as caught:
        manager.get("a name")
    assert first.agent_id in str(caught.value)
    assert second.agent_id in str(caught.value)
    assert "'a name'" in str(caught.value)
    third = manager.spawn("work", name="a name", queued=True)
    assert manager.start("a name").agent_id == third.agent_id


def test_an_unknown_ref_says_what_is_known(manager: SubAgentManager) -> None:
    """UnknownAgentError names the ref and counts the agents there are."""
    with pytest.raises(UnknownAgentError, match=r"'nobody'.*none"):
        manager.get("nobody")
    manager.spawn("work")
    for call in (manager.get, manager.start, manager.cancel, manager.resume):
        with pytest.raises(UnknownAgentError, match=r"'nobody'.*1 running"):
            call("nobody")
    with pytest.raises(TypeError, match="ref"):
        manager.get(None)  # type: ignore[arg-type]


# --- values ---


def test_no_caller_can_change_the_state(manager: SubAgentManager) -> None:
    """What goes in is copied, and so is what comes out: the fleet changes by its methods only."""
    inner = [1]
    agent = manager.spawn("work", metadata={"k": inner}, allowed_tools=["tool"])
    manager.update_checkpoint(agent.agent_id, inner, steps_taken=1)
    manager.interrupt(agent.agent_id, "why", needs_input={"k": inner})
    inner.append(2)
    for seen in (manager.get(agent.agent_id), manager.agents()[0]):
        assert (seen.metadata, seen.checkpoint, seen.needs_input) == ({"k": [1]}, [1], {"k": [1]})
        seen.metadata["k"].append(3)
        seen.checkpoint.append(3)
        seen.needs_input["k"].clear()
    assert manager.get(agent.agent_id).metadata == {"k": [1]}
    assert manager.get(agent.agent_id).checkpoint == [1]
    with pytest.raises(FrozenInstanceError):
        seen.status = "running"  # type: ignore[misc]
    assert len({manager.get(agent.agent_id), manager.get(agent.agent_id)}) == 1


BAD_SPAWNS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"prompt": 1}, TypeError, "prompt"),
    ({"prompt": "\ud800"}, ValueError, "prompt"),
    ({"prompt": "é" * 600_000}, ValueError, "prompt has 1200000 bytes.*prompt_bytes_max=1048576"),
    ({"agent_type": None}, TypeError, "agent_type"),
    ({"name": ""}, ValueError, "name"),
    ({"name": "n" * 257}, ValueError, "name"),
    ({"name": "agent_0123456789ab"}, ValueError, "looks like an agent's id"),
    ({"model": b"m"}, TypeError, "model"),
    ({"role": 1}, TypeError, "role"),
    ({"parent_id": 1}, TypeError, "parent_id"),
    ({"allowed_tools": "tool"}, TypeError, "allowed_tools"),
    ({"allowed_tools": ["t", 1]}, TypeError, r"allowed_tools\[1\]"),
    ({"token_budget": 0}, ValueError, "token_budget"),
    ({"token_budget": True}, TypeError, "token_budget"),
    ({"token_budget": 1 << 64}, ValueError, "token_budget"),
    ({"metadata": [1]}, TypeError, "metadata"),
    ({"metadata": {"k": [0, {"x": b"b"}]}}, TypeError, r"metadata\['k'\]\[1\]\['x'\]"),
    ({"metadata": {"k": {1: 2}}}, TypeError, r"metadata\['k'\] has the key 1"),
    ({"metadata": {"k": float("inf")}}, ValueError, r"metadata\['k'\]"),
    ({"metadata": {"k": -(1 << 63) - 1}}, ValueError, r"metadata\['k'\]"),
    ({"metadata": {"k": {1, 2}}}, TypeError, r"metadata\['k'\].*set"),
    ({"metadata": {"\ud800": 1}}, ValueError, "metadata"),
]


@pytest.mark.parametrize(("bad", "error", "said"), BAD_SPAWNS)
def test_a_bad_value_is_named_and_changes_nothing(
    manager: SubAgentManager, bad: dict[str, Any], error: type[Exception], said: str
) -> None:
    """Values that can't be journaled unchanged are refused before the lock, by their key."""
    with pytest.raises(error, match=said):
        manager.spawn(**({"prompt": "p"} | bad))
    assert manager.agents() == []


def test_bad_values_of_updates_are_named(manager: SubAgentManager) -> None:
    """The same for every method that takes values."""
    ref = manager.spawn("work").agent_id
    before = manager.get(ref)
    nested: list[Any] = []
    nested.append(nested)
    attempts: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: manager.update_checkpoint(ref, nested, steps_taken=1), ValueError, "checkpoint"),
        (lambda: manager.update_checkpoint(ref, 1, steps_taken=-1), ValueError, "steps_taken"),
        (lambda: manager.interrupt(ref, "why", needs_input=b""), TypeError, "needs_input"),
        (lambda: manager.interrupt(ref, None), TypeError, "reason"),  # type: ignore[arg-type]
        (lambda: manager.update_failed(ref, 1), TypeError, "error"),  # type: ignore[arg-type]
        (lambda: manager.update_from_result(ref, AgentResult(1)), TypeError, "result"),  # type: ignore[arg-type]
        (
            lambda: manager.update_from_result(ref, AgentResult("", output_tokens=-1)),
            ValueError,
            "output_tokens",
        ),
        (lambda: AgentResult("", status="running"), ValueError, "status"),
        (lambda: manager.agents(status="asleep"), ValueError, "status"),  # type: ignore[arg-type]
    ]
    for attempt, error, said in attempts:
        with pytest.raises(error, match=said):
            attempt()
    assert manager.get(ref) == before


def test_a_longer_result_keeps_its_tail_and_says_so(tmp_path: Path) -> None:
    """Results and reasons over result_bytes_max are cut at their beginning, on a character."""
    with SubAgentManager.open(tmp_path, limits=Limits(result_bytes_max=100)) as manager:
        fits = "é" * 50
        agent = manager.spawn("work")
        assert manager.update_from_result(agent.agent_id, AgentResult(fits)).result == fits
        long = "x" * 200 + "é" * 20 + "end"
        result = manager.update_from_result(
            manager.spawn("work").agent_id, AgentResult(long)
        ).result
        assert result is not None
        notice, _, kept = result.partition("\n")
        assert "243 bytes" in notice
        assert long.endswith(kept)
        assert kept
        assert len(result.encode()) <= 100
        failed = manager.update_failed(manager.spawn("work").agent_id, long)
        assert failed.reason == result


# --- sessions ---


def test_restart_interrupts_what_ran_and_nothing_else(tmp_path: Path) -> None:
    """At open, running agents become interrupted by records of the new boot; all else is as
    it was, and the next restart finds nothing to do."""
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        agents = {status: agent_that_is(manager, status) for status in STATUSES}
        running = [manager.spawn("more").agent_id for _ in range(300)]
        manager.update_checkpoint(running[0], {"at": 3}, steps_taken=3)
        first_boot = manager.boot_id
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        assert manager.boot_id != first_boot
        for status, before in agents.items():
            now = manager.get(before.agent_id)
            assert now.from_prior_session
            assert now.boot_id == first_boot
            if status == "running":
                assert (now.status, now.reason) == ("interrupted", "process restarted")
                assert now.lsn > before.lsn
            else:
                assert replace(now, from_prior_session=False) == before
        assert manager.counts()["running"] == 0
        assert manager.counts()["interrupted"] == 302
        resumed = manager.resume(running[0])
        assert (resumed.checkpoint, resumed.steps_taken) == ({"at": 3}, 3)
        assert (resumed.from_prior_session, resumed.boot_id) == (False, manager.boot_id)
        manager.wait_durable()
        still = manager.get(running[1])
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.get(running[1]) == still
        assert manager.get(running[0]).status == "interrupted"
        assert manager.get(running[0]).from_prior_session
        path = manager.path
    with JournalReader.open(path) as reader:
        firsts: dict[int, Any] = {}
        for entry in reader.entries():
            firsts.setdefault(entry.epoch, entry.record)
    assert len(firsts) == 3
    for record in firsts.values():
        kind, application, boot_id, at_ms, pid = record
        assert (kind, application) == ("boot", "subagents/1")
        assert boot_id.startswith("boot_")
        assert at_ms > 0
        assert pid > 0


def test_archived_agents_are_those_that_ended_in_a_prior_session(tmp_path: Path) -> None:
    """agents() leaves them out unless asked; get and counts know them; a live one is shown."""
    with SubAgentManager.open(tmp_path) as manager:
        ended = [agent_that_is(manager, status).agent_id for status in ENDED]
        live = [agent_that_is(manager, status).agent_id for status in LIVE]
        assert [agent.agent_id for agent in manager.agents()] == ended + live
    with SubAgentManager.open(tmp_path) as manager:
        new = agent_that_is(manager, "completed").agent_id
        assert [agent.agent_id for agent in manager.agents()] == [*live, new]
        everyone = manager.agents(include_archived=True)
        assert [agent.agent_id for agent in everyone] == ended + live + [new]
        assert [a.agent_id for a in manager.agents(status="completed")] == [new]
        completed = manager.agents(status="completed", include_archived=True)
        assert [a.agent_id for a in completed] == [ended[0], new]
        assert manager.get(ended[0]).status == "completed"
        assert sum(manager.counts().values()) == 8
        manager.start(live[0])
        manager.update_failed(live[0], "broken")
        assert live[0] in [agent.agent_id for agent in manager.agents()]


def test_order_names_and_values_survive_checkpoint_and_restart(tmp_path: Path) -> None:
    """P6: the fleet is the same after a compaction and a restart, in the order of spawning."""
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        for number in range(50):
            agent = agent_that_is(
                manager,
                STATUSES[number % len(STATUSES)],
                name=f"name {number % 30}" if number % 7 > 2 else None,
                metadata={"number": number, "é": [1.5, None, True]},
                allowed_tools=[(), None, ("a", "b")][number % 3],
            )
            if agent.status == "running":
                manager.interrupt(agent.agent_id, "later")
        checkpoint = manager.compact()
        assert checkpoint.count == 50
        assert checkpoint.application == "subagents/1"
        after = manager.spawn("after the checkpoint", queued=True)
        before = manager.agents()
        counts = manager.counts()
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        now = manager.agents(include_archived=True)
        assert [replace(agent, from_prior_session=False) for agent in now] == before
        assert manager.counts() == counts
        assert manager.get(after.agent_id).boot_id == after.boot_id
        with pytest.raises(AmbiguousNameError):
            manager.get("name 3")


def test_what_is_durable_is_there_after_a_crash(tmp_path: Path) -> None:
    """P2: once wait_durable(agent.lsn) has returned, that change is in the files."""
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    with SubAgentManager.open(tmp_path) as manager:
        agent = manager.spawn("work", queued=True)
        manager.wait_durable(agent.lsn, timeout_s=30)
        assert manager.stats().durable_lsn >= agent.lsn
        shutil.copytree(manager.path, crashed / ".subagents")  # as kill -9 would leave them
    with SubAgentManager.open(crashed) as manager:
        assert manager.get(agent.agent_id) == replace(agent, from_prior_session=True)


def test_every_hold_of_the_lock_is_measured(manager: SubAgentManager) -> None:
    """P7: lock_stats counts each hold, reads too, and says how long it was."""
    before = manager.lock_stats()
    ref = manager.spawn("work").agent_id
    manager.get(ref)
    manager.agents()
    manager.counts()
    after = manager.lock_stats()
    assert after.hold.count == before.hold.count + 4
    assert after.wait.count == before.wait.count + 4
    assert after.hold.max > 0


def test_the_manager_serves_an_event_loop(tmp_path: Path) -> None:
    """From a coroutine every change is made at once, and `durable` and `room` are awaited."""

    async def child(manager: SubAgentManager, number: int) -> int:
        await manager.room()
        agent = manager.spawn(f"task {number}")
        ended = manager.update_from_result(agent.agent_id, AgentResult(str(number)))
        await manager.durable(ended.lsn)
        return ended.lsn

    async def fan_out(manager: SubAgentManager) -> list[int]:
        lsns = await asyncio.gather(*(child(manager, number) for number in range(50)))
        await manager.durable()
        return lsns

    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        lsns = asyncio.run(fan_out(manager))
        assert manager.counts()["completed"] == 50
        assert manager.stats().durable_lsn >= max(lsns)
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.counts()["completed"] == 50


# --- opening ---


def test_a_second_manager_is_refused(tmp_path: Path) -> None:
    """One writer a state directory; another state directory is another fleet."""
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("work")
        with pytest.raises(LockedError):
            SubAgentManager.open(tmp_path)
        with SubAgentManager.open(tmp_path, state_dir="other/place") as other:
            assert other.agents() == []
            assert other.path == str(tmp_path / "other/place")


class Jobs:
    """Another application, whose records mean something else."""

    application = "jobs/1"

    def load(self, item: Any) -> None: ...

    def apply(self, lsn: int, record: Any) -> None: ...

    def freeze(self) -> list[Any]:
        return []


@pytest.mark.parametrize("compacted", [False, True])
def test_a_journal_of_another_application_is_refused(tmp_path: Path, compacted: bool) -> None:
    """It is told by its checkpoint, or by its records; the journal is closed again."""
    with DurableState.open(tmp_path / ".subagents", Jobs()) as jobs:
        jobs.update(lambda machine: {"job": 1})
        jobs.wait_durable()
        if compacted:
            jobs.compact()
    for _ in range(2):
        with pytest.raises(FormatVersionError):
            SubAgentManager.open(tmp_path)


def test_close_makes_all_durable_and_is_final(tmp_path: Path) -> None:
    """What was changed before close is there at the next open; closing again does nothing."""
    manager = SubAgentManager.open(tmp_path, options=Options(flush_interval_s=60))
    agent = manager.spawn("work", queued=True)
    manager.close()
    manager.close()
    with pytest.raises(Exception, match="closed"):
        manager.spawn("late")
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.get(agent.agent_id).prompt == "work"


def test_another_module_named_journal_is_found_out(tmp_path: Path) -> None:
    """A user's own journal.py that comes first on the path is named by an ImportError."""
    strange = tmp_path / "journal.py"
    strange.write_text("entries = []\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import manager"
    child = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert child.returncode == 1
    assert child.stderr.splitlines()[-1].startswith("ImportError")
    assert str(strange) in child.stderr.splitlines()[-1]
