"""Ctrl-C in a commit: each commit is counted once, and reported once to the observers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from journal import Journal, Options
from journal.testing import SimulatedDisk
from tests.kernel.interrupt_support import in_other_thread, monitored, point_numbers, struck

__all__ = ["monitored", "point_numbers"]  # fixtures
pytestmark = pytest.mark.usefixtures("monitored")

OPTIONS = Options(flush_interval_s=0.001)


class Counts:
    """The records of each commit that the observer was told of, and how long its sync took."""

    def __init__(self) -> None:
        self.records: list[int] = []
        self.sync_ns: list[int] = []

    def committed(self, records: int, size_bytes: int, sync_ns: int) -> None:
        self.records.append(records)
        self.sync_ns.append(sync_ns)


def test_an_interrupted_commit_counts_once(point_numbers: range) -> None:
    """The figures and the observers have the commit once, whoever finished it."""
    for nth in point_numbers:
        told: Any = Counts()
        with Journal.open("/j", options=OPTIONS, disk=SimulatedDisk()) as journal:
            journal.observe(told)
            journal.append_and_wait("before")  # now a lone waiter commits in its own thread
            where = struck(partial(journal.append_and_wait, "interrupted"), nth)
            in_other_thread(partial(journal.append_and_wait, "after"))
            appended = journal.last_lsn
        stats = journal.stats()
        assert stats.records == sum(told.records) == appended, where
        assert stats.commits == len(told.records) == stats.commit_records.count, where
        assert stats.commit_records.mean * stats.commits == appended, where
        assert stats.commit_bytes.count == stats.commits, where
        assert stats.syncs == stats.sync_ns.count >= stats.commits, where
        assert all(told.sync_ns), where
        if not where:
            break
    else:
        pytest.fail("the call has more points than are struck")
