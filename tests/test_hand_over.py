"""What passes between waiters that commit in their own thread, the flusher, and all who wait:
nobody is forgotten, whoever is at the end of the log, and however the flusher ends."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest

from journal import ClosedError, FailedError, Journal, Options
from journal.buffer import LogBuffer
from journal.errors import JournalError
from journal.testing import ManualOptions, SimulatedDisk
from journal.testing.disk import Operation
from tests.journal_support import segments
from tests.support import (
    FIRST,
    PATH,
    TIMEOUT_S,
    Held,
    logged,
    names,
    on_disk,
    open_on,
    put,
    put_lines,
    reopened,
    sized,
    until,
)

SOON_S = 5.0  # after which a flusher that was not woken sleeps on


def full_three_times(disk: SimulatedDisk) -> list[int]:
    """Refuse the next three writes to a segment. Return where their threads will be noted."""
    threads: list[int] = []

    def before(operation: Operation, path: str) -> None:
        if operation == "write" and FIRST in path and len(threads) < 3:
            threads.append(threading.get_ident())
            raise OSError(errno.ENOSPC, "full", path)

    disk.before = before
    return threads


def test_a_full_disk_does_not_stop_a_lone_waiter(disk: SimulatedDisk) -> None:
    """P2: a waiter without a limit commits in its own thread. If the disk is full there, the wait
    goes on until there is room."""
    with open_on(disk, segment_bytes=1 << 20) as journal:
        put(journal, 0)
        deadline, threads = time.monotonic() + TIMEOUT_S, [0]
        while threads[0] != threading.get_ident():  # the flusher may be at the log's end still
            assert time.monotonic() < deadline, "it never committed in its own thread"
            threads = full_three_times(disk)
            journal.wait_durable(journal.append(journal.last_lsn))
            assert len(threads) == 3
        put(journal, journal.last_lsn)
        found = logged(journal)
    assert found == [*range(len(found))] == on_disk(disk) == reopened(disk)


@pytest.mark.parametrize(
    ("meanwhile", "is_woken"),
    [
        pytest.param(lambda buffer: buffer.gate(buffer.append(2)), True, id="a wait"),
        pytest.param(lambda buffer: buffer.append(2), True, id="an append"),
        pytest.param(lambda buffer: buffer.close(), True, id="a close"),
        pytest.param(lambda buffer: None, False, id="nothing"),
    ],
)
def test_leaving_the_logs_end_wakes_the_flusher(
    meanwhile: Callable[[LogBuffer], object], is_woken: bool
) -> None:
    """P2: the flusher looks, finds the log's end taken, and sleeps on. The waiter that leaves the
    end wakes it again if there is something to do by then."""
    buffer = LogBuffer(0, ManualOptions())
    here = buffer.take_here(buffer.append(1))
    assert here is not None
    meanwhile(buffer)
    buffer.sleep(0)  # the flusher's look
    buffer.committed(here, 0, 0)
    buffer.leave_here()
    assert buffer.sleep(0) is is_woken


def test_a_wait_that_begins_amid_anothers_commit_is_soon_over(
    disk: SimulatedDisk, pool: ThreadPoolExecutor
) -> None:
    """P2: the flusher commits what came while a waiter committed in its own thread, right after."""
    with Journal.open(PATH, options=ManualOptions(), disk=disk) as journal:
        put(journal, 1)
        for _ in range(5):
            with Held(disk, "sync", ".seg") as held:
                first = pool.submit(journal.wait_durable, journal.append("first"))
                held.wait_reached()
                lsn = journal.append("second")
                with pytest.raises(TimeoutError):  # time for the flusher to look, and to sleep on
                    journal.wait_durable(lsn, timeout_s=0.02)
                held.let_all()
                first.result(SOON_S)
                until(lambda: journal.durable_lsn == journal.last_lsn, "the second commit", SOON_S)


def test_what_nobody_waits_for_is_committed_after_a_pause(disk: SimulatedDisk) -> None:
    """P8: `flush_interval_s` bounds how long a record stays in memory, though the flusher sleeps
    when it comes, as it does once the log was marked idle."""
    with open_on(disk, flush_interval_s=0.01) as journal:
        for number in range(5):
            journal.append(number)
            until(lambda: journal.durable_lsn == journal.last_lsn, "the commit", SOON_S)
            # A mark says which LSN is next.
            until(lambda: segments(disk)[0].frames[-1].first_lsn > journal.last_lsn, "a mark")
    assert reopened(disk) == [*range(5)]


# --- how the flusher ends ---


def test_no_gate_outlives_the_flusher() -> None:
    """P2, P9: gates that were given out open as the flusher ends; whoever asks later is refused."""
    buffer = LogBuffer(0, Options(buffer_bytes=1000))
    lsn = buffer.append(sized(600))
    gates = buffer.gate(lsn), buffer.sync_gate(), buffer.room_gate()
    assert [gate and gate.opened for gate in gates] == [False, False, False]
    buffer.closed()
    assert [gate and gate.opened for gate in gates] == [True, True, True]
    with pytest.raises(JournalError):
        buffer.gate(lsn)


def test_closing_releases_waiters_for_room_amid_a_compaction(
    disk: SimulatedDisk, pool: ThreadPoolExecutor
) -> None:
    """P9: a compaction that left no room may take long to be given up: waiters for room are told at
    once that the journal is closed."""
    may_go = threading.Event()

    def items() -> Iterator[str]:
        yield "first"
        may_go.wait(TIMEOUT_S)

    async def close_amid_a_wait() -> Future[None]:
        waiting = asyncio.create_task(journal.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        closing = pool.submit(journal.close)
        with pytest.raises(ClosedError):
            await asyncio.wait_for(waiting, SOON_S)
        return closing

    with open_on(disk, checkpoint_min_bytes=4000, flush_bytes=1000) as journal:
        journal.start_compaction(lambda: (journal.last_lsn, items()))
        put_lines(journal, 7, size=700)
        until(lambda: names(disk, ".tmp"), "the compaction")
        assert not journal.has_room
        try:
            closing = asyncio.run(close_amid_a_wait())
            assert not journal.closed
        finally:
            may_go.set()
        closing.result(TIMEOUT_S)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_wait_after_the_flushers_end_never_hangs(disk: SimulatedDisk) -> None:
    """P2, P9: whatever ended the flusher, even a log filter that raises SystemExit in it."""

    def exit_the_flusher(_: logging.LogRecord) -> bool:
        if threading.current_thread().name == "journal-flusher":
            raise SystemExit
        return True

    log = logging.getLogger("journal")
    log.addFilter(exit_the_flusher)
    try:
        with suppress(JournalError), open_on(disk) as journal:
            put(journal, 1)
            disk.fail("sync", errno.EIO)
            lsn = journal.append(2)
            with suppress(FailedError):
                journal.wait_durable(lsn, timeout_s=SOON_S)
            for timeout_s in (SOON_S, None):
                with pytest.raises(JournalError):
                    journal.wait_durable(lsn, timeout_s=timeout_s)
            with pytest.raises(JournalError):
                asyncio.run(asyncio.wait_for(journal.durable(lsn), SOON_S))
            assert journal.durable_lsn == 1
    finally:
        log.removeFilter(exit_the_flusher)
