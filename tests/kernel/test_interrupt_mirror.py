"""Ctrl-C at every point of the calls of a mirrored journal."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from journal import Journal, Options
from journal._mirror.memory_store import MemoryStore
from journal._mirror.restoring import restore_into
from journal.testing import SimulatedDisk
from tests.kernel.interrupt_support import (
    TIMEOUT_S,
    in_other_thread,
    monitored,
    point_numbers,
    struck,
)
from tests.mirror.stores import mirror_of

__all__ = ["monitored", "point_numbers"]  # fixtures
pytestmark = pytest.mark.usefixtures("monitored")

OPTIONS = Options(flush_interval_s=0.001)
IDLE_S = 0.05  # the thread ships at once where a test waits


def put(journal: Journal, record: object) -> None:
    journal.wait_durable(journal.append(record))


def put_far(journal: Journal, record: object) -> None:
    journal.wait_mirrored(journal.append(record))


@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "beside another waiter"])
@pytest.mark.parametrize(("ack", "call"), [("remote", put), ("local", put_far)])
def test_waits_for_the_mirror_survive_an_interrupt_anywhere(
    ack: str, call: object, is_alone: bool, point_numbers: range
) -> None:
    """No record is lost or skipped, and no waiter hangs, neither the next one nor one beside it."""
    assert callable(call)
    disk, store = SimulatedDisk(), MemoryStore()
    mirror = mirror_of(store, ack=ack, interval_s=IDLE_S)
    journal = Journal.open("/j", options=OPTIONS, mirror=mirror, disk=disk)
    strikes = 0
    for nth in point_numbers:
        if not is_alone:
            lsn = journal.append("other")
            other = threading.Thread(target=journal.wait_mirrored, args=(lsn,), daemon=True)
            other.start()
        where = struck(partial(call, journal, nth), nth)
        strikes += bool(where)
        in_other_thread(partial(call, journal, "after"))
        if not is_alone:
            other.join(TIMEOUT_S)
            assert not other.is_alive(), "the other waiter hangs"
        if not where and nth > 60:
            break
    assert strikes > 5
    assert journal.stats().buffered_bytes == 0
    lsn = journal.last_lsn
    in_other_thread(journal.close)
    assert restore_into(store, "/r", disk=disk).lsn == lsn


@pytest.mark.slow
@pytest.mark.parametrize("ack", ["local", "remote"])
def test_opens_survive_an_interrupt_anywhere(ack: str, point_numbers: range) -> None:
    """After an open that was interrupted anywhere, the directory opens again without a takeover,
    and no record is missing."""
    for nth in point_numbers[::8]:
        disk, store = SimulatedDisk(), MemoryStore()
        mirror = mirror_of(store, ack=ack, interval_s=IDLE_S)
        reopen = partial(
            Journal.open,
            "/j",
            options=OPTIONS,
            mirror=mirror,
            lock_timeout_s=TIMEOUT_S,  # threads of an interrupted open end by themselves
            disk=disk,
        )

        def begin(reopen: partial[Journal] = reopen) -> None:
            with reopen() as journal:
                put_far(journal, "x")

        in_other_thread(begin)
        opened: list[Journal] = []

        def run(opened: list[Journal] = opened, reopen: partial[Journal] = reopen) -> None:
            opened.append(reopen())

        where = struck(run, nth)
        for journal in opened:
            in_other_thread(journal.close)
        in_other_thread(begin)
        assert restore_into(store, "/r", disk=disk).lsn == 2
        if not where:
            break
    assert nth > 100
