"""What the tests of waiting share."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from journal import Journal
from journal.testing import SimulatedDisk
from tests.support import (
    TIMEOUT_S,
    Held,
    put,
)


def wait_in(pool: ThreadPoolExecutor, journal: Journal, lsn: int | None = None) -> Future[None]:
    return pool.submit(journal.wait_durable, lsn, timeout_s=TIMEOUT_S)


@contextmanager
def busy(disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor) -> Iterator[Held]:
    """A commit of one record is at its sync, and stays there until it is let go."""
    put(journal, "first")
    with Held(disk, "sync", ".seg") as held:
        waiter = wait_in(pool, journal, journal.append("at the sync"))
        held.wait_reached()
        yield held
        held.let_all()
        waiter.result(TIMEOUT_S)
