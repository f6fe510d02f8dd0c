"""Waiting for records to be durable: threads, event loops, and who is woken."""

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
    """P2: after each wait that returned, the worst power cut leaves the record there."""
    for n in range(5):
        journal = open_on(disk)
        assert logged(journal) == [*range(n)]
        journal.wait_durable(journal.append(n))
        disk.power_cut(lose)
        crash(journal, disk)
    assert reopened(disk) == [*range(5)]


def test_waiting_for_none_covers_all_appended_records(journal: Journal) -> None:
    """Without an LSN: all that was appended when the call began."""
    for n in range(10):
        journal.append(n)
    journal.wait_durable()
    assert journal.durable_lsn == 10


def test_the_durable_lsn_is_no_promise_before_the_sync(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """P2: while a sync is under way nobody passes, and the durable LSN stays where it was."""
    with busy(disk, journal, pool):
        assert (journal.durable_lsn, journal.stats().durable_lsn) == (1, 1)
        with pytest.raises(TimeoutError):
            journal.wait_durable(2, timeout_s=0.01)
        journal.wait_durable(1, timeout_s=0)
    assert journal.durable_lsn == 2


def test_a_wait_may_have_a_limit(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """TimeoutError names LSN and limit; the record is still committed, and can be waited for."""
    with busy(disk, journal, pool):
        for timeout_s in (0, -1, 0.01):
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
def test_an_lsn_that_was_never_appended_is_a_mistake(journal: Journal, lsn: int) -> None:
    """An LSN past the last one is a ValueError that names both, for threads and loops."""
    put(journal, 1)
    message = f"LSN {lsn} was never appended, the last one is 1"
    with pytest.raises(ValueError, match=message):
        journal.wait_durable(lsn, timeout_s=TIMEOUT_S)
    with pytest.raises(ValueError, match=message):
        asyncio.run(asyncio.wait_for(journal.durable(lsn), TIMEOUT_S))


def test_waiting_for_a_durable_lsn_returns_on_a_closed_journal(disk: SimulatedDisk) -> None:
    """An LSN up to the durable one: returns at once, on a closed and on a failed journal too."""
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


def test_waiting_on_a_closed_journal_for_more_is_refused(disk: SimulatedDisk) -> None:
    """Closed: ClosedError or, for an LSN that never was, an error in any case; it never hangs."""
    with open_on(disk) as journal:
        put(journal, 1)
    with pytest.raises((ClosedError, ValueError)):
        journal.wait_durable(2)
    with pytest.raises((ClosedError, ValueError)):
        asyncio.run(journal.durable(2))


def test_closing_commits_awaited_records(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """A close in another thread lets the waiters pass, once their records are durable."""
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
    """P2: while one batch syncs the next gathers; its waiters pass with it, not before, and all of
    it is one commit."""
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
    assert journal.stats().commits == 3  # of them two with one record each


def test_many_threads_each_wait_for_their_own(disk: SimulatedDisk) -> None:
    """P1, P2: whatever the interleaving, each thread's record is durable once its wait returns, in
    the order of its LSN, and all LSNs are used once."""
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
            found = list(pool.map(work, range(16)))
        assert all(lsns == sorted(lsns) for lsns in found)
        assert sorted(lsn for lsns in found for lsn in lsns) == [*range(1, 641)]
        log = logged(journal)
    for thread, lsns in enumerate(found):
        assert [log[lsn - 1] for lsn in lsns] == [[thread, n] for n in range(40)]
    assert on_disk(disk) == log


# --- interrupts ---


def test_a_wait_can_be_interrupted(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """Control-C ends a wait without a limit; the record is committed all the same, and others who
    wait for it pass."""
    with busy(disk, journal, pool):
        other = wait_in(pool, journal, journal.append("next"))
        for lsn in (2, 3):
            with pytest.raises(Interrupted), interrupt_after(0.01):
                journal.wait_durable(lsn)
    other.result(TIMEOUT_S)
    journal.wait_durable(3)
    assert put(journal, 4) == 4


def test_no_interrupt_leaves_a_gap(disk: SimulatedDisk) -> None:
    """P1, P2: an interrupt at any point of `append`, `append_batch` or `wait_durable` leaves an LSN
    that nobody was told at most; the log goes on, dense, with all that was acknowledged."""
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


def test_durable_leaves_the_loop_alone(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """P7: while a coroutine waits for the disk, its loop runs everything else."""

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


def test_several_loops_wait_at_once(disk: SimulatedDisk) -> None:
    """Any number of event loops, each in its own thread, and threads beside them."""
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
            lsns = [lsn for found in loops for lsn in found.result(TIMEOUT_S)]
            for each in threads:
                each.result(TIMEOUT_S)
        assert len(set(lsns)) == 200
        assert journal.durable_lsn == journal.last_lsn == 260


def test_a_thousand_coroutines_pass_with_one_commit(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """All who wait for a batch pass with it, however many, with one call into their loop."""
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


def test_a_cancelled_coroutine_leaves_the_commit_alone(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """`durable` has no limit of its own; `asyncio.timeout` ends it, and nobody else's wait."""

    async def main(held: Held) -> None:
        lsn = journal.append("next")
        others = [asyncio.create_task(journal.durable(lsn)) for _ in range(3)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await journal.durable(lsn)
        others[1].cancel()
        await asyncio.sleep(0)
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
    """A loop that ended with a wait under way harms neither the commit nor who else waits."""

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
    """Threads with and without a limit, several loops, those who wait for the batch at the disk and
    for the next one, and for room: FailedError with the OSError as its cause, never a hang."""
    journal.close()
    with suppress(FailedError), open_on(disk, buffer_bytes=1000) as small:
        put(small, 1)
        reached, go_on = threading.Event(), threading.Event()

        def fail(operation: str, path: str) -> None:
            if operation == "sync":
                reached.set()
                assert go_on.wait(TIMEOUT_S)
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
        go_on.set()
        for waiter in waiters:
            with pytest.raises(FailedError, match="broken") as caught:
                waiter.result(TIMEOUT_S)
            assert isinstance(caught.value.__cause__, OSError)
            assert caught.value.__cause__.errno == errno.EIO
        assert small.durable_lsn == 1
