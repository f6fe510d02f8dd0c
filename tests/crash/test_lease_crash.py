"""Crashes between the start of a lease, the reports of its worker, and its end."""

from __future__ import annotations

from typing import Any

import pytest

from journal.testing import Bounds, History, ManualOptions, Owner, explore, lose
from manager import SubAgentManager, records
from manager.agent import get
from manager.fleet import Fleet
from manager.leasing import Leasing, Token, token_of
from tests.manager_support import ROOMY

WORKER = "gpu1.a1"


def session(owner: Owner[Fleet]) -> tuple[SubAgentManager, Leasing]:
    manager = SubAgentManager(owner.state, ROOMY)
    manager._boot()
    return manager, Leasing(manager)


def begin(leasing: Leasing, ref: str) -> Token:
    token = token_of(leasing.begin(ref, WORKER))
    assert token is not None
    return token


def work(owner: Owner[Fleet]) -> None:
    """Run a lease that outlives two managers, and one that is lost."""
    manager, leasing = session(owner)
    kept, lost = (manager.spawn("work", queued=True).agent_id for _ in range(2))
    tokens = begin(leasing, kept), begin(leasing, lost)
    leasing.report(kept, tokens[0], 1, records.checkpoint(1, 1, 1))
    manager.wait_durable()
    leasing.report(kept, tokens[0], 2, records.checkpoint(1, 2, 2))
    owner.power_cut(lose)
    owner.reopen()

    manager, leasing = session(owner)
    assert leasing.held([(kept, tokens[0]), (lost, tokens[1])])[0] == [True, True]
    leasing.report(kept, tokens[0], 2, records.checkpoint(1, 2, 2))
    leasing.lose(lost, tokens[1], 2)
    manager.compact()
    leasing.report(lost, tokens[1], 1, records.result(1, "completed", result="late"))
    leasing.lose(lost, begin(leasing, lost), 2)
    manager.wait_durable()
    owner.kill()
    owner.reopen()

    manager, leasing = session(owner)
    leasing.report(kept, tokens[0], 3, records.result(1, "completed", result="done"))
    manager.close()
    rows = owner.state.machine.rows
    assert [get.status(rows[ref]) for ref in (kept, lost)] == ["completed", "failed"]


def test_no_crash_separates_a_report_from_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """P1 to P6: After each crash, the number of the last report fits what was reported, so that no
    report is lost or recorded twice, and only the process's own agents were interrupted."""
    check = History.check

    def check_with_leases(self: Any, lsn: int, machine: Fleet, *rest: Any) -> None:
        check(self, lsn, machine, *rest)
        for row in machine.rows.values():
            lease = get.lease(row)
            if lease is None:
                assert get.status(row) == "queued"
            elif get.status(row) == "completed":
                assert (lease["sequence"], get.checkpoint(row)) == (3, 2)
            else:
                assert lease["sequence"] == (get.checkpoint(row) or 0)
                assert (get.status(row) == "running") or lease["lost"] > 0

    monkeypatch.setattr(History, "check", check_with_leases)
    bounds = Bounds(outcomes_max=4)
    report = explore(Fleet, work, options=ManualOptions(), bounds=bounds)
    assert report.states > 100
