"""Fixtures for pytest. Enable them in your `conftest.py` or in one test module:

    pytest_plugins = ["journal.testing.fixtures"]

    def test_job_survives_a_power_cut(crash_owner):
        owner = crash_owner(Jobs)
        owner.append(["queued", "a"])
        owner.wait()
        owner.power_cut()
        owner.reopen()
        assert "a" in owner.state.machine.table

    def test_full_disk_delays_a_commit(simulated_disk):
        with Journal.open("/events", disk=simulated_disk) as journal:
            simulated_disk.fail("write", errno.ENOSPC, times=3)
            journal.wait_durable(journal.append("paid"))  # retries until the disk has room

    def test_on_the_real_disk(journal_dir):
        with Journal.open(journal_dir) as journal:
            journal.append("paid")

No pytest plugin enables them by itself, because that would impose them on every project that has
the journal installed.
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
    """Yield a disk in memory that fails, fills up and loses power when the test says so.

    After the test, its process is killed, so that no thread waits for it forever.
    """
    disk = SimulatedDisk()
    yield disk
    disk.kill()


@pytest.fixture
def journal_dir(tmp_path: Path) -> Path:
    """Return a path on the real disk at which a journal can be created."""
    return tmp_path / "journal"


@pytest.fixture
def crash_owner() -> Iterator[Callable[..., Owner[Any]]]:
    """Yield a function that takes the arguments of `Owner` and returns an open one.

    After the test, each of these owners is ended.
    """
    with ExitStack() as owners:

        def own(machine: Callable[[], Any], **options: Any) -> Owner[Any]:
            return owners.enter_context(Owner(machine, **options))

        yield own
