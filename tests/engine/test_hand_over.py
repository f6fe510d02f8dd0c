"""Hand-over of commits between the flusher and waiters that commit in their own thread.

No waiter is forgotten, whoever has the turn to commit, and however the flusher ends.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import pytest

from journal import ClosedError, FailedError, Journal, Options
from journal._commit.commit_turn import CommitTurn
from journal._commit.gate import Gate
from journal._mutex import Alarm
from journal.testing import ManualOptions, SimulatedDisk
from journal.testing.disk import Operation
from tests.engine.waiting_support import log_of
from tests.support import (
    PATH,
    TIMEOUT_S,
    Held,
    IdleObserver,
    Watched,
    frozen,
    names,
    on_disk,
    open_on,
    put,
    put_lines,
    reopened,
    segments,
    sized,
    until,
)

SOON_S = 5.0  # a flusher that is not woken sleeps longer than this


@contextmanager
def asleep(disk: SimulatedDisk, options: Options) -> Iterator[Journal]:
    """Yield a journal whose flusher sleeps, so that a wait without a limit commits in this
    thread."""
    with suppress(FailedError), Journal.open(PATH, options=options, disk=disk) as journal:
        put(journal, "first")
        watched = Watched(disk)
        for _ in range(1000):  # the flusher may still have the commit turn
            journal.wait_durable(journal.append("again"))
            if threading.current_thread().name in watched.threads:
                break
        else:
            pytest.fail("no waiter commits in its own thread")
        disk.before = None
        yield journal


@pytest.fixture
def alone(disk: SimulatedDisk) -> Iterator[Journal]:
    with asleep(disk, ManualOptions()) as journal:
        yield journal


# A test requests `pool` before `alone`, so that the pool's threads, which wait for the journal, end
# after it.


def test_a_full_disk_does_not_stop_a_lone_waiter(
    disk: SimulatedDisk, pool: ThreadPoolExecutor, alone: Journal
) -> None:
    """P2: A waiter without a limit commits in its own thread. If the disk is full, the wait
    continues until there is room."""
    threads: list[str] = []

    def full(operation: Operation, path: str) -> None:
        if operation == "write" and len(threads) < 3:
            threads.append(threading.current_thread().name)
            raise OSError(errno.ENOSPC, "full", path)

    disk.before = full
    pool.submit(alone.wait_durable, alone.append("on a full disk")).result(SOON_S)
    assert [name == "journal-flusher" for name in threads] == [False, True, True]
    put(alone, "on")
    alone.close()
    assert reopened(disk)[-2:] == on_disk(disk)[-2:] == ["on a full disk", "on"]


def test_a_failure_in_a_waiters_thread_ends_the_flusher(
    disk: SimulatedDisk, pool: ThreadPoolExecutor, alone: Journal
) -> None:
    """P9: After a failure in a waiter's thread, the flusher ends, and so does all that depends on
    it, like the compactor's thread."""
    disk.fail("sync", errno.EIO)
    with pytest.raises(FailedError):
        pool.submit(alone.wait_durable, alone.append("lost")).result(SOON_S)
    assert alone._core.committer.join(SOON_S)


class Stuck(IdleObserver):
    """An observer that holds up the thread in which it is called."""

    def __init__(self) -> None:
        self.reached, self.may_go = threading.Event(), threading.Event()

    def committed(self, records: int, size_bytes: int, sync_ns: int) -> None:
        self.reached.set()
        self.may_go.wait(TIMEOUT_S)


def test_a_failure_releases_all_waiters_at_once(
    disk: SimulatedDisk, pool: ThreadPoolExecutor, alone: Journal
) -> None:
    """P9: A failure in a waiter's thread releases all waiters at once, even while an observer is
    stuck."""
    stuck, may_fail = Stuck(), threading.Event()
    alone.observe(stuck)
    alone.wait_durable(alone.append("observed"))
    assert stuck.reached.wait(TIMEOUT_S)

    def fail(operation: Operation, path: str) -> None:
        if operation == "sync":
            assert may_fail.wait(TIMEOUT_S)
            raise OSError(errno.EIO, "simulated EIO", path)

    disk.before = fail
    try:
        lsn = alone.append("lost")
        first = pool.submit(alone.wait_durable, lsn)
        until(lambda: alone._turn._committing is not None, "the commit")
        second = pool.submit(alone.wait_durable, lsn)
        until(lambda: getattr(alone._turn._committing, "gate", None), "the second waiter")
        may_fail.set()
        for waiter in (first, second):
            with pytest.raises(FailedError):
                waiter.result(SOON_S)
    finally:
        may_fail.set()
        stuck.may_go.set()


def test_a_wait_that_begins_during_a_commit_ends_soon_after_it(
    disk: SimulatedDisk, pool: ThreadPoolExecutor
) -> None:
    """P2: A record that is appended during a waiter's own commit is committed by the flusher right
    after it."""
    with Journal.open(PATH, options=ManualOptions(), disk=disk) as journal:
        put(journal, 1)
        for _ in range(5):
            with Held(disk, "sync", ".seg") as held:
                first = pool.submit(journal.wait_durable, journal.append("first"))
                held.wait_reached()
                lsn = journal.append("second")
                # Gives the flusher time to look and to sleep again.
                with pytest.raises(TimeoutError):
                    journal.wait_durable(lsn, timeout_s=0.02)
                held.release_all()
                first.result(SOON_S)
                until(lambda: journal.durable_lsn == journal.last_lsn, "the second commit", SOON_S)


def test_records_without_a_waiter_are_committed_after_the_interval(disk: SimulatedDisk) -> None:
    """P8: `flush_interval_s` bounds how long a record stays in memory, even if the flusher was
    asleep when it came, as after the mark of an idle log."""
    with open_on(disk, flush_interval_s=0.01) as journal:
        for number in range(5):
            journal.append(number)
            until(lambda: journal.durable_lsn == journal.last_lsn, "the commit", SOON_S)
            # The mark's LSN is the next one.
            until(lambda: segments(disk)[0].frames[-1].first_lsn > journal.last_lsn, "a mark")
    assert reopened(disk) == [*range(5)]


def test_a_compaction_wakes_the_flusher_to_sync_the_log(
    disk: SimulatedDisk, pool: ThreadPoolExecutor
) -> None:
    """P5: With durability `os`, commits do not sync, and the log may be idle for hours when a
    checkpoint needs it on stable storage."""
    with asleep(disk, ManualOptions(durability="os")) as journal:
        assert journal.stats().synced_lsn < journal.durable_lsn == journal.last_lsn
        compacting = pool.submit(journal.compact, frozen(journal, "state"))
        assert compacting.result(SOON_S).lsn == journal.last_lsn == journal.stats().synced_lsn


def test_the_last_expected_waiter_wakes_the_flusher(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a slow sync, the flusher waits for the waiters that it released to come back, but no
    longer than until the last one is back."""
    monkeypatch.setattr("journal._commit.wake_policy._GATHER_S_MAX", 2 * TIMEOUT_S)
    log = log_of(ManualOptions())
    for _ in range(3):
        log.append_and_wait("waited for")
    batch = log.turn.take()
    assert batch is not None
    log.turn.committed(batch, 6 * TIMEOUT_S, 0)
    taking = pool.submit(log.turn.take)
    with closing(log.buffer):
        for _ in range(2):
            log.append_and_wait("waited for")
        with pytest.raises(TimeoutError):
            taking.result(0.1)
        log.append_and_wait("waited for")
        assert taking.result(SOON_S) is not None


class Clock:
    """A stand-in for `time` and for a flusher that is never woken: each sleep takes its whole
    time."""

    def __init__(self) -> None:
        self.now_s = 1e6
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, timeout_s: float = -1) -> bool:
        self.slept.append(timeout_s)
        self.now_s += timeout_s
        return False


def test_records_without_a_waiter_share_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records without a waiter are gathered for `flush_interval_s`, counted from the first one."""
    clock, log = Clock(), log_of(Options(flush_interval_s=10))
    for module in ("buffer", "commit_turn"):
        monkeypatch.setattr(f"journal._commit.{module}.time", clock)
    monkeypatch.setattr(Alarm, "sleep", lambda _, timeout_s=-1: clock.sleep(timeout_s))
    for first_lsn in (1, 3):
        log.buffer.append("first")
        clock.now_s += 4
        log.buffer.append("second")
        batch = log.turn.take()
        assert batch is not None
        assert (batch.first_lsn, batch.last_lsn) == (first_lsn, first_lsn + 1)
    assert clock.slept == [6, 6]


def test_an_idle_log_does_not_wake_the_flusher(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an idle log was marked, the flusher sleeps until somebody wakes it."""
    clock, options = Clock(), Options()
    log = log_of(options)
    monkeypatch.setattr(Alarm, "sleep", lambda _, timeout_s=-1: clock.sleep(timeout_s))
    for _ in range(2):
        idle = log.turn.take()
        assert idle is not None
        assert not idle.has_work
    assert clock.slept == [options.idle_s, -1]


def test_past_room_lets_no_later_waiter_pass() -> None:
    """P7: Room that came and went lets no later waiter pass. A gate that stayed open would make a
    waiting thread spin, and block an event loop."""
    log = log_of(Options())
    for _ in range(2):
        log.buffer.hold_from(0)
        gate = log.turn.room_gate()
        assert gate is not None
        before = gate.opened
        log.buffer.hold_from(1 << 30)
        assert (before, gate.opened) == (False, True)
        assert log.turn.room_gate() is None


def test_the_limit_covers_the_whole_wait_for_room(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: The time limit covers the whole wait, although other threads may take the room each time
    that there is some."""
    clock, limits = Clock(), list[float | None]()

    class TakenRoomGate(Gate):
        def wait(self, timeout_s: float | None = None) -> bool:
            limits.append(timeout_s)
            clock.now_s += 1
            return len(limits) < 4

    monkeypatch.setattr("journal._engine.journal.time", clock)
    with monkeypatch.context() as patch:
        patch.setattr(CommitTurn, "room_gate", lambda _: TakenRoomGate())
        patch.setattr(CommitTurn, "got_room", lambda _: False)  # others fill half of the buffer
        with pytest.raises(TimeoutError, match="within 3 s"):
            journal.wait_room(timeout_s=3)
    assert limits == [3, 2, 1, 0]


# --- the end of the flusher ---


@pytest.mark.parametrize("closed", [False, True])
def test_no_gate_outlives_the_flusher(closed: bool) -> None:
    """P2, P9: When the flusher ends, all gates open, and later waits are refused."""
    log = log_of(Options(buffer_bytes=1000))
    gates = log.append_and_wait(sized(600)), log.turn.sync_gate(), log.turn.room_gate()
    assert [gate and gate.opened for gate in gates] == [False, False, False]
    if closed:
        log.buffer.close()
    log.turn.flusher_ended()
    assert [gate and gate.opened for gate in gates] == [True, True, True]
    with pytest.raises(ClosedError if closed else FailedError):
        log.turn.gate(log.buffer.last_lsn)


def test_close_during_a_compaction_releases_waiters_for_room(
    disk: SimulatedDisk, pool: ThreadPoolExecutor
) -> None:
    """P9: An abandoned compaction that left no room may take long to end. Waiters for room are
    released at once, and raise ClosedError."""
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
