"""`SubAgentManager.transact`: transactions of a manager that are repeated after a conflict."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from journal import ConflictError, JournalError
from manager import SubAgentManager, TransitionError
from manager.transaction import FleetTransaction
from tests.manager.test_manager_transactions import DONE
from tests.support import TIMEOUT_S


@pytest.fixture
def manager(tmp_path: Path) -> Any:
    """Yield a manager with an agent "a" that is running, and a row."""
    with SubAgentManager.open(tmp_path) as opened:
        opened.spawn("x", name="a")
        opened.tables.table("t")["n"] = 0
        yield opened


def set_elsewhere(manager: SubAgentManager, value: int) -> None:
    """Set the row from another thread."""
    thread = threading.Thread(target=manager.tables.table("t").set, args=("n", value))
    thread.start()
    thread.join(TIMEOUT_S)


@pytest.mark.parametrize("conflicts", [0, 1, 2, 3])
def test_a_conflict_repeats_the_whole_body(manager: SubAgentManager, conflicts: int) -> None:
    """P3: After a conflict the function gets a new transaction, and only the last one counts. After
    the last attempt, the conflict propagates, and nothing is changed."""
    rows = manager.tables.table("t")
    calls: list[FleetTransaction] = []

    def body(t: FleetTransaction) -> str:
        calls.append(t)
        t[rows]["n"] += 10
        if len(calls) <= conflicts:
            set_elsewhere(manager, len(calls))
        agent_id = t.spawn("y", name="b", parent_id="a")
        t.update_from_result("a", DONE)
        return agent_id

    if conflicts == 3:
        with pytest.raises(ConflictError):
            manager.transact(body, attempts=3)
        assert (rows["n"], manager.get("a").status, len(manager.agents())) == (3, "running", 1)
        return
    agent_id = manager.transact(body, attempts=3)
    assert len(calls) == len(set(map(id, calls))) == conflicts + 1
    assert [t.lsn is not None for t in calls] == [False] * conflicts + [True]
    assert (rows["n"], manager.get("a").status) == (conflicts + 10, "completed")
    assert [agent.agent_id for agent in manager.agents()][1:] == [agent_id]


def test_a_refused_verb_is_no_conflict(manager: SubAgentManager) -> None:
    """The error of a verb propagates at once, and nothing is changed."""
    rows = manager.tables.table("t")
    calls: list[int] = []

    def body(t: FleetTransaction) -> None:
        calls.append(1)
        t[rows]["n"] = 7
        t.resume("a")

    with pytest.raises(TransitionError):
        manager.transact(body)
    assert (calls, rows["n"]) == ([1], 0)


def test_a_transact_inside_a_body_is_refused(manager: SubAgentManager) -> None:
    """A transaction can't begin in the body of another one, however it begins."""
    with pytest.raises(JournalError, match="inside a transaction's body"):
        manager.transact(lambda _: manager.transact(lambda t: None))
    with pytest.raises(ValueError, match="attempts is 0, not 1 or more"):
        manager.transact(lambda t: None, attempts=0)


def test_a_transact_wakes_the_waiters_of_its_agents(manager: SubAgentManager) -> None:
    """A waiter for an agent's end, and a reader of changes, learn of a transact."""

    async def wait() -> None:
        changes = manager.changes()
        ended = asyncio.create_task(manager.ended("a"))
        await asyncio.sleep(0)
        await asyncio.to_thread(manager.transact, lambda t: t.update_from_result("a", DONE))
        async with asyncio.timeout(TIMEOUT_S):
            assert (await ended).status == "completed"
            assert (await anext(changes)).name == "a"
            await changes.aclose()

    asyncio.run(wait())
