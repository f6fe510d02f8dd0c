"""Fixtures for pytest, switched on in your `conftest.py` or in one test module:

    pytest_plugins = ["journal.testing.fixtures"]

    def test_a_job_outlives_a_power_cut(crash_owner):
        owner = crash_owner(Jobs)
        owner.append(["queued", "a"])
        owner.wait()
        owner.power_cut()
        owner.reopen()
        assert "a" in owner.state.machine.table

    def test_a_full_disk(simulated_disk):
        with Journal.open("/events", disk=simulated_disk) as journal:
            simulated_disk.fail("write", errno.ENOSPC, times=3)
            journal.wait_durable(journal.append("paid"))  # goes on when there is room

    def test_on_the_real_disk(journal_dir):
        with Journal.open(journal_dir) as journal:
            journal.append("paid")

Nothing switches them on by itself: that would force them on everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from journal.testing.disk import SimulatedDisk
from journal.testing.owner import Owner

__all__ = ["crash_owner", "journal_dir", "simulated_disk"]


@pytest.fixture
def simulated_disk() -> Iterator[SimulatedDisk]:
    """A disk in memory that fails, fills up and loses power when the test says so. In the end its
    process dies, so that nothing waits on it for ever."""
    disk = SimulatedDisk()
    yield disk
    disk.kill()


@pytest.fixture
def journal_dir(tmp_path: Path) -> Path:
    """Where a journal may be made, on the real disk."""
    return tmp_path / "journal"


@pytest.fixture
def crash_owner() -> Iterator[Callable[..., Owner[Any]]]:
    """Makes an `Owner` of a machine, as `Owner` does, and ends it after the test."""
    with ExitStack() as owners:

        def own(machine: Callable[[], Any], **options: Any) -> Owner[Any]:
            return owners.enter_context(Owner(machine, **options))

        yield own
