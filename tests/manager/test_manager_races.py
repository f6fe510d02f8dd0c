"""Many threads on one manager: limits, names, reads and transitions hold in any interleaving."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from journal import JournalReader
from manager import (
    Agent,
    AgentResult,
    BudgetError,
    CapacityError,
    Limits,
    ManagerError,
    NameInUseError,
    SubAgentManager,
    TransitionError,
    UnknownAgentError,
)
from manager.agent import ENDED, TRANSITIONS, get
from manager.fleet import Fleet
from manager.retention import Retention
from tests.manager.fleet_support import contents
from tests.manager_support import ROOMY, ids
from tests.support import TIMEOUT_S

pytestmark = pytest.mark.usefixtures("frequent_switches")
THREADS = 64
MANY = Limits(max_running=10**6, max_admitted=10**6)


def run_in_threads(work: Callable[[int], object], threads: int = THREADS) -> list[object]:
    """Call `work` in many threads at once. Return the results, or the ManagerErrors raised."""
    start = threading.Barrier(threads)

    def run(number: int) -> object:
        start.wait(timeout=TIMEOUT_S)
        try:
            return work(number)
        except ManagerError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads), timeout=TIMEOUT_S))


def count(outcomes: list[object]) -> Counter[type]:
    return Counter(map(type, outcomes))


# --- limits ---


def test_64_threads_never_exceed_max_running(tmp_path: Path) -> None:
    """Exactly max_running agents run at a time, whether spawned, started or resumed."""
    with SubAgentManager.open(tmp_path, limits=Limits(max_running=10)) as manager:
        stopped = [manager.interrupt(manager.spawn("i").agent_id, "later") for _ in range(20)]
        queued = [manager.spawn("q", queued=True) for _ in range(20)]
        starts: list[Callable[[], Agent]] = [
            *(lambda ref=agent.agent_id: manager.start(ref) for agent in queued),
            *(lambda ref=agent.agent_id: manager.resume(ref) for agent in stopped),
        ]
        for _ in range(3):
            running_counts: list[int] = []

            def work(number: int, running_counts: list[int] = running_counts) -> Agent:
                agent = starts[number]() if number < 40 else manager.spawn("s")
                running_counts.append(manager.counts()["running"])
                return agent

            outcomes = count(run_in_threads(work))
            assert outcomes[Agent] == 10 == manager.counts()["running"]
            assert max(running_counts) == 10
            assert set(outcomes) <= {Agent, CapacityError, TransitionError}
            for agent in manager.agents(status="running"):
                manager.interrupt(agent.agent_id, "room for others")


def test_64_threads_never_exceed_max_admitted(tmp_path: Path) -> None:
    """Queued and running agents together never exceed max_admitted."""
    limits = Limits(max_running=20, max_admitted=40)
    with SubAgentManager.open(tmp_path, limits=limits) as manager:
        outcomes = count(run_in_threads(lambda number: manager.spawn("s", queued=number % 2 == 0)))
        counts = manager.counts()
        assert outcomes[Agent] == counts["queued"] + counts["running"] <= 40
        assert counts["running"] <= 20
        assert outcomes[CapacityError] == THREADS - outcomes[Agent]


def spawn_named(manager: SubAgentManager, name: str, number: int) -> Agent:
    return manager.spawn(str(number), name=name)


def test_one_of_two_concurrent_spawns_gets_the_name(tmp_path: Path) -> None:
    """All but one of the threads that spawn the same name get a NameInUseError."""
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        for turn in range(50):
            name = f"name {turn}"
            outcomes = count(run_in_threads(partial(spawn_named, manager, name), 2))
            assert outcomes == {Agent: 1, NameInUseError: 1}
        outcomes = count(run_in_threads(partial(spawn_named, manager, "same")))
        assert outcomes == {Agent: 1, NameInUseError: THREADS - 1}


def test_no_spawn_follows_the_record_that_spends_a_budget(tmp_path: Path) -> None:
    """Every spawn after the LSN at which the budget is spent is refused."""
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        root = manager.spawn("root", token_budget=32).agent_id

        def work(number: int) -> Agent:
            if number % 2:
                return manager.record_usage(root, input_tokens=1, output_tokens=0)
            return manager.spawn("child", parent_id=root)

        outcomes = run_in_threads(work)
        assert set(count(outcomes)) <= {Agent, BudgetError}
        spent = max(a.lsn for a in outcomes if isinstance(a, Agent) and a.agent_id == root)
        assert manager.get(root).tokens_used == 32
        assert all(a.lsn < spent for a in manager.agents() if a.parent_id == root)


# --- reads ---


def test_reads_are_consistent_while_64_threads_write(tmp_path: Path) -> None:
    """Reads are consistent while others write.

    agents() shows each agent once, as of one moment of the call. counts() is the sum over all
    agents. get() is never older than what was returned before.
    """
    with SubAgentManager.open(tmp_path, limits=MANY) as manager:
        kept_ids = [manager.spawn("kept").agent_id for _ in range(THREADS)]
        over = threading.Event()

        def write(number: int) -> None:
            for step in range(30):
                manager.update_checkpoint(kept_ids[number], None, steps_taken=step)
                manager.cancel(manager.spawn("short", parent_id=kept_ids[number]).agent_id)
                if step % 10 == 9:
                    manager.cleanup(0)

        def read() -> int:
            reads, steps, lsn = 0, dict.fromkeys(kept_ids, 0), 0
            while not (over.is_set() and reads):
                agents = manager.agents()
                assert len(agents) == len(ids(agents))
                assert ids(agents) >= set(kept_ids)
                for agent in agents:
                    if agent.agent_id in steps:
                        assert agent.steps_taken >= steps[agent.agent_id]
                        steps[agent.agent_id] = agent.steps_taken
                newest = max(agent.lsn for agent in agents if agent.agent_id in steps)
                assert newest >= lsn
                lsn = newest
                counts = manager.counts()
                assert min(counts.values()) >= 0
                assert counts["running"] >= THREADS
                assert manager.get(kept_ids[0]).steps_taken >= steps[kept_ids[0]]
                reads += 1
            return reads

        with ThreadPoolExecutor() as pool:
            readers = [pool.submit(read) for _ in range(2)]
            try:
                run_in_threads(write)
            finally:
                over.set()
            assert all(reader.result() for reader in readers)
        manager.cleanup(0)
        assert ids(manager.agents(include_archived=True)) == set(kept_ids)
        assert manager.counts() == Fleet().counts | {"running": THREADS}


# --- changes to many agents ---


def test_cleanup_respects_concurrent_changes(tmp_path: Path) -> None:
    """Cleanup respects what happens between its search and its removals.

    A parent that got a child meanwhile stays, and no live agent is removed. Each agent is removed
    at most once by several cleanups.
    """
    removed: list[Agent] = []
    with SubAgentManager.open(tmp_path, limits=MANY) as manager:

        def work(number: int) -> None:
            dice = random.Random(number)
            for _ in range(200):
                root = manager.cancel(manager.spawn("root").agent_id)
                with suppress(UnknownAgentError):  # it was removed
                    for _ in range(dice.randrange(3)):
                        child = manager.spawn("child", parent_id=root.agent_id, queued=True)
                        if dice.random() < 0.7:
                            manager.cancel(child.agent_id)
                if number < 2:
                    removed.extend(manager.cleanup(0))

        outcomes = run_in_threads(work, 4)
        assert outcomes == [None] * 4
        removed.extend(manager.cleanup(0))
        remaining = manager.agents(include_archived=True)
    assert len(removed) == len(ids(removed)) > 300
    assert {agent.status for agent in removed} == {"cancelled"}
    assert not ids(removed) & ids(remaining)
    queued = [agent for agent in remaining if agent.status == "queued"]
    parents = {agent.parent_id for agent in queued if agent.parent_id is not None}
    assert ids(remaining) == ids(queued) | parents


def test_no_descendant_escapes_a_cancellation(tmp_path: Path) -> None:
    """Every live descendant after a cancellation was spawned after it, by LSN."""
    with SubAgentManager.open(tmp_path, limits=MANY) as manager:
        root = manager.spawn("root").agent_id

        def work(number: int) -> Agent | None:
            if number == 0:
                return manager.cancel(root, descendants=True)
            for _ in range(100):
                child = manager.spawn("child", parent_id=root)
                manager.spawn("grandchild", parent_id=child.agent_id)
            return None

        cancelled = run_in_threads(work, 5)[0]
        assert isinstance(cancelled, Agent)
        assert cancelled.status == "cancelled"
        for agent in manager.agents(status="running"):
            assert agent.lsn > cancelled.lsn
        last_lsn = cancelled.lsn + manager.counts()["cancelled"] - 1
        for agent in manager.agents(status="cancelled"):
            assert cancelled.lsn <= agent.lsn <= last_lsn


def test_threads_that_check_the_retention_at_once_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spawns that find a drop due at the same time each return, and each thread starts once."""
    limits = Limits(keep_ended_max=1)
    with SubAgentManager.open(tmp_path, limits=limits) as manager:
        for _ in range(2):
            manager.update_from_result(manager.spawn("p").agent_id, AgentResult("done"))
        retention = Retention(manager._state, manager._updates, limits)
        monkeypatch.setattr(retention, "run", lambda: None)
        for _ in range(60):
            run_in_threads(lambda number: retention.check(), 8)
            assert retention._thread is not None
            retention._thread.join(TIMEOUT_S)


# --- transitions ---

VERBS: list[Callable[[SubAgentManager, str], object]] = [
    lambda m, ref: m.start(ref),
    lambda m, ref: m.resume(ref),
    lambda m, ref: m.update_checkpoint(ref, 1, steps_taken=1),
    lambda m, ref: m.interrupt(ref, "why"),
    lambda m, ref: m.update_failed(ref, "broken"),
    lambda m, ref: m.cancel(ref),
    lambda m, ref: m.cancel(ref, descendants=True),
    lambda m, ref: m.record_usage(ref, input_tokens=1, output_tokens=1),
    lambda m, ref: m.spawn("root"),
    lambda m, ref: m.spawn("child", parent_id=ref),
    lambda m, ref: m.spawn("child", parent_id=ref, queued=True),
    lambda m, ref: m.touch(ref),
    lambda m, ref: m.cleanup(0),
    *(
        lambda m, ref, status=status: m.update_from_result(ref, AgentResult("x", status=status))
        for status in TRANSITIONS["running"]
    ),
]


@pytest.mark.parametrize("seed", range(3))
def test_every_interleaving_keeps_to_the_table_of_transitions(tmp_path: Path, seed: int) -> None:
    """Sixteen threads make random calls for the same few agents.

    According to the log, each agent makes only transitions of the table and ends once. The log
    agrees with what the calls returned.
    """
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        roots = [manager.spawn("root", queued=number % 2 == 0).agent_id for number in range(8)]
        returned: list[Agent] = []

        def work(number: int) -> None:
            dice = random.Random(f"{seed} {number}")
            for _ in range(100):
                refs = [agent.agent_id for agent in manager.agents()][-12:] or roots
                with suppress(ManagerError):
                    done = dice.choice(VERBS)(manager, dice.choice(refs))
                    if isinstance(done, Agent):
                        returned.append(done)

        run_in_threads(work, 16)
        live = contents(manager._state.machine)
        path = manager.path
    replayed, states, ends = Fleet(), {}, 0
    with JournalReader.open(path) as reader:
        for entry in reader.entries():
            ref = entry.record[1]
            before = replayed.rows.get(ref)
            replayed.apply(entry.lsn, entry.record)
            after = replayed.rows.get(ref)
            if after is not None:
                states[ref, entry.lsn] = get.status(after)
                if before is not None and get.status(before) != get.status(after):
                    assert get.status(after) in TRANSITIONS[get.status(before)]
                    ends += get.status(after) in ENDED
            elif before is not None:
                assert get.status(before) in ENDED
    assert contents(replayed) == live
    for agent in returned:
        if (agent.agent_id, agent.lsn) in states:  # otherwise it changed with a descendant
            assert states[agent.agent_id, agent.lsn] == agent.status
    assert ends > 50
