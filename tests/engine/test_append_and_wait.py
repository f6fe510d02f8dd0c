"""The calls that append a record and wait for its commit."""

from __future__ import annotations

import asyncio
import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from journal import (
    ClosedError,
    DurableState,
    FailedError,
    InterruptedCallError,
    Journal,
    JournalError,
    RecordError,
)
from journal._commit.gate import _FUTURES_PER_TURN
from journal._mirror.memory_store import MemoryStore
from journal.testing import SimulatedDisk
from tests.engine.test_own_threads import Calling
from tests.engine.waiting_support import busy
from tests.mirror.stores import opened
from tests.support import TIMEOUT_S, Held, Table, logged, open_on, put, until


def append(journal: Journal, record: object, how: str) -> int:
    if how == "thread":
        return journal.append_and_wait(record)
    return asyncio.run(append_in_loop(journal, record))


async def append_in_loop(journal: Journal, record: object) -> int:
    return await journal.append_durable(record)


WAYS = pytest.mark.parametrize("how", ["thread", "loop"])
COMPANY = pytest.mark.parametrize("alone", [True, False], ids=["alone", "in a crowd"])


def in_company(journal: Journal, alone: bool) -> None:
    """Let the journal expect several waiters, unless the next one is alone."""
    journal._turn.wake_policy.last_waiters = 1 if alone else 8


@WAYS
@COMPANY
def test_the_record_is_durable_at_the_return(
    disk: SimulatedDisk, journal: Journal, how: str, alone: bool
) -> None:
    """P2: The call returns the record's LSN when the record is durable."""
    put(journal, "first")
    for number in range(5):
        in_company(journal, alone)
        lsn = append(journal, number, how)
        assert lsn == journal.last_lsn == journal.durable_lsn
    assert logged(journal) == ["first", *range(5)]


@WAYS
@COMPANY
def test_a_refused_record_is_not_appended(journal: Journal, how: str, alone: bool) -> None:
    """P1: A record that can't be packed raises, and leaves no gap."""
    in_company(journal, alone)
    with pytest.raises(RecordError):
        append(journal, object(), how)
    in_company(journal, alone)
    assert append(journal, "next", how) == 1


@WAYS
@COMPANY
def test_a_failed_sync_is_raised_in_each_waiter(disk: SimulatedDisk, how: str, alone: bool) -> None:
    """P9: No call returns for a record whose sync failed, and later calls are refused."""
    journal = open_on(disk)
    put(journal, "first")
    disk.fail("sync", errno.EIO)
    in_company(journal, alone)
    with pytest.raises(FailedError):
        append(journal, "lost", how)
    with pytest.raises(FailedError):
        append(journal, "refused", how)
    with pytest.raises(FailedError):
        journal.close()


@WAYS
@COMPANY
def test_a_closed_journal_takes_no_record(disk: SimulatedDisk, how: str, alone: bool) -> None:
    """A call after the close is refused, and appends nothing."""
    with open_on(disk) as journal:
        put(journal, "first")
    in_company(journal, alone)
    with pytest.raises(ClosedError):
        append(journal, "late", how)
    assert journal.last_lsn == 1


def test_a_cancelled_wait_leaves_its_record_and_nothing_else(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """A cancelled task's record is committed, and those of others return."""

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await journal.append_durable("cancelled")
        held.release_all()
        await asyncio.wait_for(journal.append_durable("next"), TIMEOUT_S)

    with busy(disk, journal, pool) as held:
        asyncio.run(main())
    assert logged(journal)[-2:] == ["cancelled", "next"]


@pytest.mark.parametrize("call", [Journal.append_and_wait, Journal.append_durable])
@COMPANY
def test_an_engine_thread_does_not_wait_for_itself(
    disk: SimulatedDisk, call: object, alone: bool
) -> None:
    """An observer that would wait in the flusher's thread is refused, and the journal goes on."""

    def wait() -> None:
        in_company(journal, alone)
        if call is Journal.append_and_wait:
            journal.append_and_wait("by an observer")
        else:
            asyncio.run(append_in_loop(journal, "by an observer"))

    with open_on(disk) as journal:
        observer = Calling("committed", wait)
        journal.observe(observer)
        put(journal, 1)
        until(lambda: observer.errors, "the call")
        put(journal, 2)
        assert logged(journal) == [1, 2]
    assert type(observer.errors[0]) is InterruptedCallError


def test_only_a_state_appends_to_its_journal(disk: SimulatedDisk) -> None:
    """The journal of a DurableState refuses records that its machine would never see."""
    with DurableState.open("/s", Table(), disk=disk) as state:
        with pytest.raises(JournalError, match="nothing was appended"):
            state.journal.append_and_wait(1)
        with pytest.raises(JournalError, match="nothing was appended"):
            asyncio.run(append_in_loop(state.journal, 1))
        assert state.journal.last_lsn == 0


def test_without_a_loop_nothing_is_appended(journal: Journal) -> None:
    """`append_durable` needs a running event loop, and appends nothing without one."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        journal.append_durable("lost")
    assert journal.last_lsn == 0


def test_records_are_appended_at_the_call(journal: Journal) -> None:
    """P2: Futures that nobody awaits yet commit their records, and each has its own LSN."""

    async def main() -> None:
        futures = [journal.append_durable(number) for number in range(200)]
        assert journal.last_lsn == 200
        await journal.durable()
        assert await asyncio.gather(*futures) == list(range(1, 201))

    asyncio.run(main())
    assert logged(journal) == list(range(200))


def test_waits_of_both_kinds_are_resolved_in_one_turn(disk: SimulatedDisk) -> None:
    """The pump's turn that ends one batch's waits begins with its appends, at any number."""

    async def main() -> None:
        errors: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, error: errors.append(error))
        waits = [asyncio.create_task(journal.durable(1)) for _ in range(_FUTURES_PER_TURN + 3)]
        first = journal.append_durable("first")
        await asyncio.sleep(0)
        futures = [journal.append_durable(number) for number in range(2 * _FUTURES_PER_TURN)]
        await asyncio.wait_for(asyncio.gather(first, *waits, *futures), TIMEOUT_S)
        assert not errors

    with open_on(disk) as journal:
        asyncio.run(main())


def test_a_failure_is_raised_by_each_future_of_its_batch(disk: SimulatedDisk) -> None:
    """P9: Futures whose sync fails raise, each an error of its own. The one before has its LSN, and
    a cancelled one stays cancelled."""

    async def main() -> None:
        with Held(disk, "sync", ".seg") as held:
            first = journal.append_durable("first")
            await asyncio.to_thread(held.wait_reached)
            futures = [journal.append_durable(number) for number in range(100)]
            futures[7].cancel()
            disk.fail("sync", errno.EIO)
            held.release_all()
            errors = await asyncio.gather(*futures, return_exceptions=True)
        assert await first == journal.durable_lsn == 2
        assert type(errors.pop(7)) is asyncio.CancelledError
        assert set(map(type, errors)) == {FailedError}
        assert len(set(map(id, errors))) == 99

    journal = open_on(disk)
    put(journal, "begins the segment")
    asyncio.run(main())
    with pytest.raises(FailedError):
        journal.close()


@WAYS
@COMPANY
def test_a_mirror_that_acknowledges_has_the_record(tmp_path: Path, how: str, alone: bool) -> None:
    """P10: With ack="remote", the call returns when the mirror has the record."""
    with opened(tmp_path / "a", MemoryStore(), ack="remote") as journal:
        for number in range(3):
            in_company(journal, alone)
            assert append(journal, number, how) <= journal.mirrored_lsn


def test_a_crowd_of_threads_and_loops(disk: SimulatedDisk) -> None:
    """P2: Threads and loops that share commits all return, each with an LSN of its own."""

    async def many(loop: int) -> list[int]:
        calls = (journal.append_durable([loop, number]) for number in range(50))
        return await asyncio.gather(*calls)

    def thread(number: int) -> list[int]:
        return [journal.append_and_wait([number, n]) for n in range(50)]

    with open_on(disk, segment_bytes=1 << 16) as journal, ThreadPoolExecutor(8) as pool:
        results = [pool.submit(thread, number) for number in range(5)]
        results += [pool.submit(asyncio.run, many(loop)) for loop in range(3)]
        lsns = [lsn for result in results for lsn in result.result(TIMEOUT_S)]
        assert sorted(lsns) == list(range(1, 401))
        assert journal.durable_lsn == 400
