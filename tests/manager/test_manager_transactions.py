"""Transactions of a manager: agents and rows that change together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from journal import (
    ConflictError,
    JournalError,
    JournalReader,
    Table,
    Transaction,
    TransactionTooLargeError,
)
from manager import (
    AgentResult,
    BudgetError,
    CapacityError,
    Limits,
    NameInUseError,
    SubAgentManager,
    TransitionError,
    UnknownAgentError,
)
from manager.draft import Draft
from manager.fleet import Fleet
from manager.transaction import FleetTransaction
from tests.manager.test_fleet import Uniterable, UniterableTable
from tests.manager_support import PATIENT
from tests.support import TIMEOUT_S

DONE = AgentResult("done")
Body = Callable[[FleetTransaction], Any]


@pytest.fixture
def manager(tmp_path: Path) -> Any:
    """Yield a manager with room for three running agents."""
    with SubAgentManager.open(tmp_path, limits=Limits(max_running=3)) as opened:
        yield opened


def kinds(path: str) -> list[Any]:
    """Return the kind of each record in a closed journal."""
    with JournalReader.open(path) as reader:
        return [entry.record[0] for entry in reader.entries()]


def run(manager: SubAgentManager, body: Body) -> int | None:
    """Run a body in a transaction, and return its LSN."""
    with manager.transaction() as t:
        body(t)
    return t.lsn


# --- both or neither ---


def test_an_agent_and_its_rows_change_together(tmp_path: Path, manager: SubAgentManager) -> None:
    """P3: An agent and rows change in one batch, and so they are recovered."""
    rows = manager.tables.table("results")
    agent = manager.spawn("count", name="counter")
    with manager.transaction() as t:
        t.update_from_result("counter", DONE)
        t[rows].insert(agent.agent_id, {"words": 4711})
        assert manager.get("counter").status == "running"
        assert agent.agent_id not in rows
    manager.wait_durable(t.lsn)
    assert (manager.get("counter").lsn, manager.get("counter").status) == (t.lsn, "completed")
    manager.close()
    assert kinds(manager.path) == ["boot", "spawn", "rows", "result"]
    for _ in range(2):
        with SubAgentManager.open(tmp_path) as again:
            assert again.get("counter").result == "done"
            assert again.tables.table("results")[agent.agent_id] == {"words": 4711}
            again.compact()


def fail(t: FleetTransaction, rows: Table) -> None:
    raise ZeroDivisionError


def conflict(t: FleetTransaction, rows: Table) -> None:
    assert "a" in t[rows]
    thread = threading.Thread(target=rows.set, args=("a", 2))
    thread.start()
    thread.join(TIMEOUT_S)


def use_tokens_and_fail(t: FleetTransaction, rows: Table) -> None:
    t.record_usage("busy", input_tokens=1, output_tokens=1)
    raise ZeroDivisionError


def end_twice(t: FleetTransaction, rows: Table) -> None:
    t.update_from_result("busy", DONE)
    t.update_from_result("busy", DONE)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (fail, ZeroDivisionError),
        (use_tokens_and_fail, ZeroDivisionError),
        (conflict, ConflictError),
        (end_twice, TransitionError),
        (lambda t, rows: t.update_failed("ended", "late"), TransitionError),
        (lambda t, rows: t.resume("busy"), TransitionError),
        (lambda t, rows: t.start("busy"), TransitionError),
        (lambda t, rows: t.update_failed("nobody", "late"), UnknownAgentError),
        (lambda t, rows: t.spawn("x", parent_id="nobody"), UnknownAgentError),
        (lambda t, rows: t.spawn("x", name="busy"), NameInUseError),
        (lambda t, rows: [t.spawn("x") for _ in range(3)], CapacityError),
        (lambda t, rows: t.spawn("x", parent_id="spent"), BudgetError),
        (lambda t, rows: t.spawn(1), TypeError),
        (lambda t, rows: t[rows].insert("a", 2), ConflictError),
    ],
)
def test_a_transaction_that_fails_changes_nothing(
    manager: SubAgentManager,
    body: Callable[[FleetTransaction, Table], Any],
    error: type[Exception],
) -> None:
    """P3: A failing body, a conflict or a refused verb changes neither agents nor rows."""
    manager.spawn("x", name="busy")
    manager.update_from_result(manager.spawn("x", name="ended").agent_id, DONE)
    manager.spawn("x", name="spent", token_budget=1, queued=True)
    manager.record_usage("spent", input_tokens=1, output_tokens=0)
    rows = manager.tables.table("rows")
    rows["a"] = 1
    before = manager.agents(include_archived=True)

    def whole(t: FleetTransaction) -> None:
        t.update_checkpoint("busy", {"page": 1}, steps_taken=1)
        t[rows].set("b", 1)
        body(t, rows)

    with pytest.raises(error):
        run(manager, whole)
    assert manager.agents(include_archived=True) == before
    assert "b" not in rows
    manager.spawn("goes on")


# --- each verb sees the ones before it ---


def test_verbs_see_the_changes_before_them(manager: SubAgentManager) -> None:
    """A verb is checked against the fleet as the transaction's earlier verbs leave it."""

    def body(t: FleetTransaction) -> None:
        lead = t.spawn("lead", name="lead", token_budget=10)
        child = t.spawn("child", name="child", parent_id="lead")
        grandchild = t.spawn("grandchild", parent_id=child, queued=True)
        t.update_checkpoint("child", {"at": 1}, steps_taken=1)
        t.start(grandchild)
        t.cancel(grandchild)
        t.cancel(grandchild)
        t.spawn("fourth")
        t.update_from_result(lead, AgentResult("led", input_tokens=3))
        t.spawn("next", name="lead")
        t.interrupt("child", "asked", needs_input="?")
        t.resume("child")
        t.update_failed("child", "no way")

    run(manager, body)
    by_prompt = {agent.prompt: agent for agent in manager.agents()}
    assert {prompt: agent.status for prompt, agent in by_prompt.items()} == {
        "lead": "completed",
        "child": "failed",
        "grandchild": "cancelled",
        "fourth": "running",
        "next": "running",
    }
    assert by_prompt["grandchild"].spawn_depth == 2
    assert manager.get("lead") == by_prompt["next"]
    assert manager.counts() == manager._state.machine.counts
    assert manager.counts()["running"] == 2


def test_a_budget_counts_the_tokens_of_the_transaction(manager: SubAgentManager) -> None:
    """A budget that the transaction itself spends refuses its later spawns."""
    manager.spawn("lead", name="lead", token_budget=10)
    manager.spawn("child", name="child", parent_id="lead")

    def body(t: FleetTransaction) -> None:
        t.record_usage("child", input_tokens=10, output_tokens=0)
        t.spawn("late", parent_id="child")

    with pytest.raises(BudgetError):
        run(manager, body)
    assert manager.get("lead").tokens_used == 0


def test_a_draft_looks_only_at_what_is_changed() -> None:
    """A draft takes constant time to make and to use, and leaves the fleet as it is."""
    fleet = Fleet()
    spawn = ["spawn", "agent_000000000001", 1, "b", None, 0, "running", "n", "g", None, None, "p",
             None, None, {}]  # fmt: skip
    fleet.apply(1, ["boot", "subagents/1", "b", 1, 1])
    fleet.apply(2, spawn)
    fleet.end_replay()
    counts = dict(fleet.counts)
    fleet.rows.__class__ = UniterableTable
    names = fleet.by_name
    names._live, names._ended = Uniterable(names._live), Uniterable(names._ended)
    draft = Draft(fleet)
    draft.apply(0, ["cancel", "agent_000000000001", 1, None])
    draft.apply(0, [*spawn[:1], "agent_000000000002", *spawn[2:]])
    draft.apply(0, ["usage", "agent_000000000002", 1, 1, 1])
    assert draft.find("n")[0] == "agent_000000000002"
    assert draft.counts["cancelled"] == draft.counts["running"] == 1
    assert (dict(fleet.counts), fleet.find("n")[0]) == (counts, "agent_000000000001")
    assert "agent_000000000002" not in fleet.rows


def test_a_transaction_changes_few_agents(manager: SubAgentManager) -> None:
    """At most 64 verbs are in a transaction, so that one hold of the lock is bounded."""
    for count, is_refused in ((64, False), (65, True)):
        before = len(manager.agents())

        def body(t: FleetTransaction, count: int = count) -> None:
            for _ in range(count):
                t.spawn("x", queued=True)

        if is_refused:
            with pytest.raises(TransactionTooLargeError, match="more than 64 times"):
                run(manager, body)
        else:
            run(manager, body)
        assert len(manager.agents()) - before == (0 if is_refused else count)


def test_records_of_agents_are_made_by_verbs_alone(manager: SubAgentManager) -> None:
    """A record of an agent that no verb has checked is refused, given as it is or by a function."""
    agent = manager.spawn("x")
    raw = ["remove", agent.agent_id]
    for record in (raw, lambda fleet: raw):
        with pytest.raises(ValueError, match="was not checked"):
            manager.tables.transact(partial(also, record))
    assert manager.get(agent.agent_id).status == "running"
    manager.cancel(agent.agent_id)


def also(record: Any, t: Transaction) -> None:
    t.also("fleet", record)


# --- waiters and readers ---


def test_a_transaction_wakes_waiters_and_readers(tmp_path: Path) -> None:
    """A waiter for an agent's end and a reader of changes learn of a transaction at once, although
    nothing else asks for a commit."""
    with SubAgentManager.open(tmp_path, options=PATIENT) as manager:
        wait_for_a_transaction(manager)


def wait_for_a_transaction(manager: SubAgentManager) -> None:
    agent = manager.spawn("x")

    async def main() -> list[str]:
        changes = manager.changes(after=0)
        assert (await anext(changes)).status == "running"
        ended = asyncio.create_task(manager.ended(agent.agent_id))
        seen = asyncio.create_task(anext(changes))
        await asyncio.sleep(0)
        async with manager.transaction() as t:
            t.update_from_result(agent.agent_id, DONE)
            t[manager.tables.table("t")]["a"] = 1
        async with asyncio.timeout(TIMEOUT_S):
            return [(await ended).status, (await seen).status]

    assert asyncio.run(main()) == ["completed", "completed"]


def test_an_ended_transaction_changes_nothing(manager: SubAgentManager) -> None:
    """A verb after the end of a transaction is refused, and so is a second use of it."""
    context = manager.transaction()
    with context as t:
        pass
    with pytest.raises(JournalError, match="has ended"):
        t.spawn("x")
    with pytest.raises(JournalError, match="has been used"), context:
        pass
    assert manager.agents() == []
