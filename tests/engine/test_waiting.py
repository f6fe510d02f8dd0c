"""Waiting for durable records: in threads, in event loops, and after interrupts and failures."""

from __future__ import annotations

import asyncio
import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from journal import ClosedError, FailedError, Journal
from journal.testing import SimulatedDisk, lose
from tests.engine.waiting_support import busy, wait_in
from tests.support import (
    TIMEOUT_S,
    Held,
    Interrupted,
    crash,
    interrupt_after,
    logged,
    on_disk,
    open_on,
    put,
    reopened,
    sized,
)

# --- threads ---


def test_a_wait_that_returns_means_stable_storage(disk: SimulatedDisk) -> None:
    """P2: After each wait that returned, the record survives the worst power cut."""
    for n in range(5):
        journal = open_on(disk)
        assert logged(journal) == [*range(n)]
        journal.wait_durable(journal.append(n))
        disk.power_cut(lose)
        crash(journal, disk)
    assert reopened(disk) == [*range(5)]


def test_waiting_for_none_covers_all_appended_records(journal: Journal) -> None:
    """A wait without an LSN covers all records that were appended before the call."""
    for n in range(10):
        journal.append(n)
    journal.wait_durable()
    assert journal.durable_lsn == 10


def test_the_durable_lsn_does_not_rise_before_the_sync(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """P2: During a sync, no wait for its records returns, and the durable LSN does not change."""
    with busy(disk, journal, pool):
        assert (journal.durable_lsn, journal.stats().durable_lsn) == (1, 1)
        with pytest.raises(TimeoutError):
            journal.wait_durable(2, timeout_s=0.01)
        journal.wait_durable(1, timeout_s=0)
    assert journal.durable_lsn == 2


def test_a_wait_can_time_out(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """TimeoutError names the LSN and the limit. The record is still committed, and can be waited
    for again."""
    with busy(disk, journal, pool):
        for timeout_s in (0, 0.01):
            with pytest.raises(TimeoutError, match=f"LSN 2 was not durable within {timeout_s} s"):
                journal.wait_durable(2, timeout_s=timeout_s)
        journal.append("next")
        with pytest.raises(TimeoutError, match="LSN 3"):
            journal.wait_durable(timeout_s=0.01)
    journal.wait_durable(2, timeout_s=0)
    journal.wait_durable(timeout_s=TIMEOUT_S)
    journal.wait_durable(journal.append(1), timeout_s=float("inf"))
    assert logged(journal)[-3:] == ["at the sync", "next", 1]


@pytest.mark.parametrize("lsn", [2, 3])
def test_a_wait_for_an_unknown_lsn_is_refused(journal: Journal, lsn: int) -> None:
    """An LSN past the last one raises ValueError, which names both, in threads and in event
    loops."""
    put(journal, 1)
    message = f"LSN {lsn} was never appended; the last one is 1"
    with pytest.raises(ValueError, match=message):
        journal.wait_durable(lsn, timeout_s=TIMEOUT_S)
    with pytest.raises(ValueError, match=message):
        asyncio.run(asyncio.wait_for(journal.durable(lsn), TIMEOUT_S))


def test_waiting_for_a_durable_lsn_returns_on_a_closed_journal(disk: SimulatedDisk) -> None:
    """A wait for an LSN that is already durable returns at once, also on a closed or failed
    journal."""
    journal = open_on(disk)
    put(journal, 1, 2)
    journal.close()
    failed = open_on(disk)
    put(failed, 3)
    disk.fail("sync", errno.EIO)
    failed.append(4)
    with pytest.raises(FailedError):
        failed.wait_durable()
    for each, lsn in ((journal, 2), (failed, 3)):
        each.wait_durable(lsn)
        each.wait_durable(1, timeout_s=0)
        asyncio.run(each.durable(lsn))
    journal.wait_durable()
    with pytest.raises(FailedError):
        failed.close()
    failed.wait_durable(3)


def test_waiting_on_a_closed_journal_for_a_later_lsn_is_refused(disk: SimulatedDisk) -> None:
    """A wait on a closed journal for an LSN that was never appended raises an error, and never
    hangs."""
    with open_on(disk) as journal:
        put(journal, 1)
    with pytest.raises((ClosedError, ValueError)):
        journal.wait_durable(2)
    with pytest.raises((ClosedError, ValueError)):
        asyncio.run(journal.durable(2))


def test_closing_commits_awaited_records(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """A close in another thread releases waiters once their records are durable."""
    with busy(disk, journal, pool):
        waiters = [wait_in(pool, journal, journal.append(n)) for n in range(8)]
        closing = pool.submit(journal.close, timeout_s=TIMEOUT_S)
    closing.result(TIMEOUT_S)
    for waiter in waiters:
        waiter.result(TIMEOUT_S)
    assert reopened(disk)[2:] == [*range(8)]


def test_the_next_batch_waits_for_its_own_sync(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """P2: Records that are appended during a sync form one commit of their own, and its waiters
    pass only after its sync."""
    with busy(disk, journal, pool) as held:
        waiters = [wait_in(pool, journal, journal.append(n)) for n in range(10)]
        held.release_one()
        held.wait_reached()  # the second batch's sync
        assert journal.durable_lsn == 2
        assert not any(waiter.done() for waiter in waiters)
    for waiter in waiters:
        waiter.result(TIMEOUT_S)
    assert journal.durable_lsn == 12
    journal.close()
    assert journal.stats().commits == 3  # the first two with one record each


def test_many_threads_wait_for_their_own_records(disk: SimulatedDisk) -> None:
    """P1, P2: However threads interleave, each record is durable when its wait returns, LSNs rise
    in each thread, and each LSN is used once."""
    with open_on(disk, segment_bytes=1 << 16) as journal:

        def work(thread: int) -> list[int]:
            lsns = []
            for n in range(40):
                lsn = journal.append([thread, n])
                journal.wait_durable(lsn)
                assert journal.durable_lsn >= lsn
                lsns.append(lsn)
            return lsns

        with ThreadPoolExecutor(16) as pool:
            lsns_of_threads = list(pool.map(work, range(16)))
        assert all(lsns == sorted(lsns) for lsns in lsns_of_threads)
        assert sorted(lsn for lsns in lsns_of_threads for lsn in lsns) == [*range(1, 641)]
        log = logged(journal)
    for thread, lsns in enumerate(lsns_of_threads):
        assert [log[lsn - 1] for lsn in lsns] == [[thread, n] for n in range(40)]
    assert on_disk(disk) == log


# --- interrupts ---


def test_a_wait_can_be_interrupted(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """Control-C ends a wait without a limit. The record is still committed, and its other waiters
    pass."""
    with busy(disk, journal, pool):
        other = wait_in(pool, journal, journal.append("next"))
        for lsn in (2, 3):
            with pytest.raises(Interrupted), interrupt_after(0.01):
                journal.wait_durable(lsn)
    other.result(TIMEOUT_S)
    journal.wait_durable(3)
    assert put(journal, 4) == 4


def test_no_interrupt_leaves_a_gap(disk: SimulatedDisk) -> None:
    """P1, P2: An interrupt at any point of `append`, `append_batch` or `wait_durable` leaves at
    most a record whose LSN nobody knows. The log stays dense, with every acknowledged record."""
    acknowledged: dict[int, int] = {}
    strikes = 0
    with open_on(disk, segment_bytes=1 << 20) as journal:
        n = 0
        while strikes < 200:
            with suppress(Interrupted), interrupt_after(0.0005):
                while True:
                    n += 1
                    lsn = journal.append(n)
                    acknowledged[lsn] = n
                    lsn = journal.append_batch([-n, n])
                    acknowledged[lsn] = n
                    journal.wait_durable(lsn, timeout_s=TIMEOUT_S)
                    assert journal.durable_lsn >= lsn
            strikes += 1
        journal.wait_durable(timeout_s=TIMEOUT_S)
        log = logged(journal)
        assert len(log) == journal.last_lsn
        assert {lsn: log[lsn - 1] for lsn in acknowledged} == acknowledged
        assert [record for record in log if record > 0] == sorted(r for r in log if r > 0)
    assert reopened(disk) == log


# --- event loops ---


def test_durable_does_not_block_the_event_loop(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """P7: While a coroutine waits for the disk, its event loop runs other tasks."""

    async def main(held: Held) -> int:
        waiting = asyncio.create_task(journal.durable(journal.append("next")))
        turns = 0
        while turns < 100:
            await asyncio.sleep(0)
            turns += 1
        assert not waiting.done()
        held.release_all()
        await asyncio.wait_for(waiting, TIMEOUT_S)
        return turns

    with busy(disk, journal, pool) as held:
        assert asyncio.run(main(held)) == 100
    assert journal.durable_lsn == 3


def test_several_event_loops_can_wait_at_once(disk: SimulatedDisk) -> None:
    """Several event loops, each in its own thread, and other threads can wait at once."""
    with open_on(disk, segment_bytes=1 << 16) as journal:

        async def one(loop: int, n: int) -> int:
            lsn = journal.append([loop, n])
            await journal.durable(lsn)
            assert journal.durable_lsn >= lsn
            return lsn

        async def many(loop: int) -> list[int]:
            return await asyncio.gather(*(one(loop, n) for n in range(50)))

        def thread(n: int) -> list[int]:
            return [put(journal, [n]) and journal.last_lsn for n in range(20)]

        with ThreadPoolExecutor(8) as pool:
            threads = [pool.submit(thread, n) for n in range(3)]
            loops = [pool.submit(asyncio.run, many(loop)) for loop in range(4)]
            lsns = [lsn for result in loops for lsn in result.result(TIMEOUT_S)]
            for each in threads:
                each.result(TIMEOUT_S)
        assert len(set(lsns)) == 200
        assert journal.durable_lsn == journal.last_lsn == 260


def test_a_thousand_coroutines_pass_with_one_commit(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """All waiters of a batch pass with its commit, with one call into their event loop."""
    calls = []

    async def main(held: Held) -> None:
        loop = asyncio.get_running_loop()
        call_soon_threadsafe = loop.call_soon_threadsafe

        def spy(*arguments: object, **context: object) -> asyncio.Handle:
            calls.append(arguments)
            return call_soon_threadsafe(*arguments, **context)  # type: ignore[arg-type]

        loop.call_soon_threadsafe = spy  # type: ignore[method-assign]
        waiting = [asyncio.create_task(journal.durable(journal.append(n))) for n in range(1000)]
        await asyncio.sleep(0)
        held.release_all()
        await asyncio.wait_for(asyncio.gather(*waiting), TIMEOUT_S)

    with busy(disk, journal, pool) as held:
        asyncio.run(main(held))
    assert journal.durable_lsn == 1002
    assert len(calls) == 1
    journal.close()
    assert journal.stats().commits == 3


def test_a_cancelled_wait_does_not_affect_others(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """`durable` has no limit of its own. A limit of `asyncio.timeout`, or a cancellation, ends only
    that wait, and leaves nothing at the gate."""

    async def main(held: Held) -> None:
        lsn = journal.append("next")
        others = [asyncio.create_task(journal.durable(lsn)) for _ in range(3)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await journal.durable(lsn)
        others[1].cancel()
        await asyncio.sleep(0)
        gate = journal._buffer.filling.gate
        assert gate is not None
        assert [len(waiting) for waiting in gate._loops.values()] == [2]
        held.release_all()
        for other in (others[0], others[2]):
            await asyncio.wait_for(other, TIMEOUT_S)
        assert others[1].cancelled()
        await journal.durable(lsn)

    with busy(disk, journal, pool) as held:
        asyncio.run(main(held))
    assert logged(journal)[-1] == "next"


def test_a_loop_that_has_closed_is_skipped(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """An event loop that closed during a wait affects neither the commit nor other waiters."""

    async def wait_shortly(lsn: int) -> None:
        waiting = asyncio.ensure_future(journal.durable(lsn))
        await asyncio.sleep(0)
        kept.append(waiting)

    kept: list[object] = []
    with busy(disk, journal, pool):
        lsn = journal.append("next")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(wait_shortly(lsn))
        loop.close()
        other = wait_in(pool, journal, lsn)
        another = pool.submit(asyncio.run, journal.durable(lsn))
    other.result(TIMEOUT_S)
    another.result(TIMEOUT_S)
    assert put(journal, "on") == 4


def test_a_failure_reaches_every_waiter(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """All waiters, in threads with and without a limit and in event loops, for the batch at the
    disk, for the next one and for room, get FailedError with the OSError as its cause."""
    journal.close()
    with suppress(FailedError), open_on(disk, buffer_bytes=1000) as small:
        put(small, 1)
        reached, may_fail = threading.Event(), threading.Event()

        def fail(operation: str, path: str) -> None:
            if operation == "sync":
                reached.set()
                assert may_fail.wait(TIMEOUT_S)
                raise OSError(errno.EIO, "broken", path)

        disk.before = fail
        first = small.append(2)
        waiters = [pool.submit(small.wait_durable, first)]
        assert reached.wait(TIMEOUT_S)
        second = small.append(sized(600))
        waiters += [pool.submit(small.wait_durable, lsn) for lsn in (first, second)]
        waiters += [wait_in(pool, small, lsn) for lsn in (first, second)]
        waiters += [pool.submit(asyncio.run, small.durable(lsn)) for lsn in (first, second)]
        waiters += [pool.submit(small.wait_room), pool.submit(asyncio.run, small.room())]
        may_fail.set()
        for waiter in waiters:
            with pytest.raises(FailedError, match="broken") as caught:
                waiter.result(TIMEOUT_S)
            assert isinstance(caught.value.__cause__, OSError)
            assert caught.value.__cause__.errno == errno.EIO
        assert small.durable_lsn == 1
