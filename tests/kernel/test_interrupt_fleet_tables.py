"""Interrupts at every point of a manager's transaction on agents and tables."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from journal import FailedError
from journal.testing import SimulatedDisk
from manager import AgentResult, SubAgentManager
from tests.kernel.interrupt_support import in_other_thread, monitored, point_numbers, struck
from tests.manager_support import PATIENT

__all__ = ["monitored", "point_numbers"]  # fixtures
pytestmark = pytest.mark.usefixtures("monitored", "few_to_collect")


def finish(manager: SubAgentManager, name: str) -> None:
    """End an agent and set its row, in one transaction."""
    with manager.transaction() as t:
        t[manager.tables.table("t")][name] = 1
        t.update_from_result(name, AgentResult("done"))


def pairs(manager: SubAgentManager) -> set[Any]:
    """Return the agents that have completed, which are those that have a row."""
    agents = manager.agents(include_archived=True)
    completed = {agent.name for agent in agents if agent.status == "completed"}
    assert set(manager.tables.table("t")) == completed
    return completed


def test_an_interrupted_transaction_is_whole_or_absent(point_numbers: range) -> None:
    """P3: An agent's end and its row are both there or neither, in memory and after a reopen, and
    later transactions of the same thread are not refused."""
    for nth in point_numbers:
        disk = SimulatedDisk()
        manager = SubAgentManager.open("/w", options=PATIENT, disk=disk)
        manager.spawn("x", name="a")
        manager.spawn("x", name="b")
        _ = manager.tables

        def act(manager: SubAgentManager = manager) -> None:
            finish(manager, "a")

        has_struck = struck(act, nth)
        gc.collect()  # the interrupt's traceback keeps the transaction
        try:
            pairs(manager)
            finish(manager, "b")
            assert "b" in pairs(manager)
        except FailedError:  # it struck while the records were being applied
            pass
        in_other_thread(manager.close)
        with SubAgentManager.open("/w", options=PATIENT, disk=disk) as manager:
            pairs(manager)
        if not has_struck:
            break
    else:
        raise AssertionError("too many points")
