"""Waiting for room in the log buffer, and the gates that release waiters."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from msgpack import packb

from journal import BufferFullError, ClosedError, FailedError, Journal, Options
from journal._commit.backpressure import Backpressure
from journal._commit.commit_turn import LoneWaiter
from journal._commit.gate import Gate
from journal._mutex import HandlerSafeLock
from journal.testing import SimulatedDisk
from tests.engine.waiting_support import Log, busy, log_of
from tests.support import (
    NEVER_S,
    PATH,
    TIMEOUT_S,
    logged,
    open_on,
    put,
    reopened,
    sized,
    until,
)

# --- room ---


def test_the_buffer_bound_is_exact_to_the_byte(disk: SimulatedDisk) -> None:
    """P8: Records may fill `buffer_bytes` to the last byte, and urgent ones a quarter more. Past
    that, BufferFullError consumes no LSN, changes nothing, and says what to do."""
    with open_on(disk, buffer_bytes=1000) as journal:
        assert journal.append(sized(1000)) == 1
        full = r"1001 bytes would wait to be written, more than buffer_bytes=1000; nothing was"
        with pytest.raises(BufferFullError, match=full + r" appended. Wait first: wait_room\(\)"):
            journal.append(None)
        with pytest.raises(BufferFullError, match=full):
            journal.append_batch([None])
        assert journal.append_batch([sized(200), sized(47)], urgent=True) == 3
        assert journal.append(sized(3), urgent=True) == 4
        with pytest.raises(BufferFullError):
            journal.append(None, urgent=True)
        with pytest.raises(BufferFullError):
            journal.append_batch([None], urgent=True)
        stats = journal.stats()
        assert (journal.last_lsn, stats.stalls, stats.buffered_bytes) == (4, 4, 1250)
        journal.wait_durable()
        assert journal.append(None) == 5
        journal.wait_durable()
        expected = [sized(1000), sized(200), sized(47), sized(3), None]
        assert logged(journal) == expected
    assert reopened(disk) == expected


def test_a_full_buffer_empties_by_itself(disk: SimulatedDisk) -> None:
    """P8: A waiter for room starts a commit, even if nobody waits for a record."""
    with open_on(disk, buffer_bytes=1000) as journal:
        for _ in range(20):
            journal.append(b"x" * 300)
            journal.append(b"x" * 300)
            journal.wait_room(timeout_s=TIMEOUT_S)
            assert journal.stats().buffered_bytes < 500
        asyncio.run(journal.room())
        assert journal.last_lsn == 40


def test_there_is_room_below_half_of_the_bound(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """`wait_room` and `room` return at once below half of the bound, and wait at half of it."""
    journal.close()
    with open_on(disk, buffer_bytes=1000) as small:
        with busy(disk, small, pool) as held:
            used = small.stats().buffered_bytes
            small.append(sized(499 - used))
            small.wait_room(timeout_s=0)
            asyncio.run(small.room())
            small.append(None)
            with pytest.raises(TimeoutError, match=r"no room in the log buffer within 0.01 s"):
                small.wait_room(timeout_s=0.01)
            with pytest.raises(TimeoutError):
                asyncio.run(asyncio.wait_for(small.room(), 0.01))
            waiters = [pool.submit(small.wait_room) for _ in range(3)]
            waiters += [pool.submit(small.wait_room, timeout_s=TIMEOUT_S) for _ in range(3)]
            waiters += [pool.submit(asyncio.run, small.room()) for _ in range(3)]
            held.release_all()
            for waiter in waiters:
                waiter.result(TIMEOUT_S)
        small.wait_room(timeout_s=0)


def test_closing_ends_the_wait_for_room(
    disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor
) -> None:
    """A waiter for room gets room or ClosedError when the journal is closed, and never hangs."""
    journal.close()
    with open_on(disk, buffer_bytes=100) as small:
        with busy(disk, small, pool):
            small.append(b"x" * 60)
            waiters = [pool.submit(small.wait_room) for _ in range(3)]
            waiters.append(pool.submit(asyncio.run, small.room()))
            closing = pool.submit(small.close)
            until(lambda: closed_to(small), "the close")
        closing.result(TIMEOUT_S)
        for waiter in waiters:
            with suppress(ClosedError):
                waiter.result(TIMEOUT_S)
        with pytest.raises(ClosedError):
            small.wait_room()
        with pytest.raises(ClosedError):
            asyncio.run(small.room())
        assert (
            small.has_room
        )  # a caller that polls `has_room` continues, and the next call raises ClosedError


def test_close_releases_waiters_for_room() -> None:
    """A closed journal refuses waiters for room at once, although the flusher can't end on a full
    disk."""
    log = log_of(Options())
    log.buffer.append("never committed")
    log.buffer.hold_from(0)
    gate = log.turn.room_gate()
    assert gate is not None
    log.buffer.close()
    assert gate.opened
    with pytest.raises(ClosedError):
        log.turn.room_gate()


def closed_to(journal: Journal) -> bool:
    try:
        journal.check()
    except ClosedError:
        return True
    return False


@pytest.mark.parametrize(
    ("filling", "committing", "hold_from", "log", "is_free"),
    [
        (499, 0, None, 0, True),  # below half of the bound
        (500, 0, None, 0, False),
        (100, 400, None, 0, False),  # bytes that are being committed count
        (99, 0, 5000, 4900, True),  # below the size from which updates wait for a compaction
        (100, 0, 5000, 4900, False),
        (0, 0, 5000, 5000, False),
        (0, 0, 5000, 6000, False),
        (499, 0, 9000, 4900, True),  # the log may still grow by more than the buffer has room for
        (500, 0, 9000, 4900, False),
    ],
)
def test_room_depends_on_five_numbers(
    filling: int, committing: int, hold_from: float | None, log: int, is_free: bool
) -> None:
    """P8: There is room below half of the bound, and below the size to which the log may grow
    before updates wait for a compaction."""
    backpressure = Backpressure(1000)
    gate = backpressure.gate()
    backpressure.end_commit(log, filling)
    backpressure.begin_commit(committing)
    opened = backpressure.hold_from(float("inf") if hold_from is None else hold_from, filling)
    assert opened is (gate if is_free else None)
    assert (filling + committing < backpressure.limit_bytes) is is_free


@pytest.mark.parametrize(
    ("hold_from", "log", "limit"),
    [
        pytest.param(5000, 4900, 110, id="past where updates would wait"),
        pytest.param(5000, 5000, 110, id="from what is appended: 100 bytes"),
        pytest.param(5000, 6000, 110, id="although the log is past where updates wait"),
        pytest.param(None, 6000, 500, id="updates do not wait: half of the bound"),
    ],
)
def test_room_is_given_past_what_is_appended(
    hold_from: float | None, log: int, limit: float
) -> None:
    """P8: Room lets some more bytes be appended, however far the log is past the point from which
    updates wait."""
    backpressure = Backpressure(1000)
    backpressure.end_commit(log, 100)
    backpressure.hold_from(float("inf") if hold_from is None else hold_from, 100)
    gate = backpressure.gate()
    assert backpressure.give_room(10, 100) is gate
    assert backpressure.limit_bytes == limit


# --- gates ---


def test_a_gate_releases_all_waiters_at_once(pool: ThreadPoolExecutor) -> None:
    """One gate wakes every kind of waiter, and a later caller does not wait."""
    gate = Gate()
    assert gate.wait(0.001) is False
    assert gate.wait(0) is gate.wait(-1) is False
    waiters = [pool.submit(gate.wait) for _ in range(5)]
    waiters += [pool.submit(gate.wait, TIMEOUT_S) for _ in range(5)]
    loops = [pool.submit(asyncio.run, gate.passed()) for _ in range(3)]
    gate.open()
    gate.open()
    assert all(waiter.result(TIMEOUT_S) for waiter in waiters)
    for loop in loops:
        loop.result(TIMEOUT_S)
    assert gate.wait() is gate.wait(0) is gate.wait(NEVER_S) is True
    asyncio.run(gate.passed())


def test_gates_are_independent(pool: ThreadPoolExecutor) -> None:
    """Opening one batch's gate wakes no waiter of another batch."""
    gates = [Gate() for _ in range(3)]
    waiters = [pool.submit(gate.wait) for gate in gates]
    for gate, waiter in zip(gates, waiters, strict=True):
        assert not waiter.done()
        gate.open()
        assert waiter.result(TIMEOUT_S)


def test_a_failure_names_the_path(disk: SimulatedDisk) -> None:
    """FailedError names the file, quotes the system's error, and says what to do next."""
    with suppress(FailedError), open_on(disk) as journal:
        put(journal, 1)
        disk.fail("sync", errno.EIO)
        lsn = journal.append(2)
        with pytest.raises(FailedError) as caught:
            journal.wait_durable(lsn)
    message = str(caught.value)
    assert f"{PATH}/00000000000000000001-0000000001.seg" in message
    assert "simulated EIO" in message
    assert "fix the cause, and reopen it" in message


def test_on_a_slow_disk_a_commit_gathers_released_waiters() -> None:
    """After a slow sync, the next commit waits until as many waiters are back as it released, or
    until a quarter of that sync's time has passed. After a quick sync, it starts at once."""

    def waiting(sync_s: float, waiters: int) -> float:
        log = log_of(Options())
        for lsn in range(1, 4):
            log.append_and_wait(lsn)
        batch = log.turn.take()
        assert batch is not None
        log.turn.committed(batch, sync_s, 0)
        log.turn._end()
        for lsn in range(4, 4 + waiters):
            log.append_and_wait(lsn)
        return log.turn._due_s(log.buffer.filling)

    assert waiting(0.0001, 1) <= 0
    assert 0 < waiting(0.02, 1) <= 0.005
    assert 0 < waiting(10.0, 2) <= 0.005
    assert waiting(10.0, 3) == 0


# --- records that the fast path of an append can't take ---


ENDS: dict[str, Callable[[Log], None]] = {
    "close": lambda log: log.buffer.close(),
    "close_soon": lambda log: log.buffer.close_soon(),
    "fail": lambda log: log.turn.fail(OSError("broken")),
    "abandon": lambda log: log.buffer.abandon(HandlerSafeLock()),
}


@pytest.mark.parametrize("records", range(4))
@pytest.mark.parametrize("ends", ENDS)
def test_appends_after_close_are_refused(records: int, ends: str) -> None:
    """P9: After a close or a failure, a record is refused, however many records the batch holds: no
    commit would include it."""
    log = log_of(Options())
    for number in range(records):
        log.buffer.append(number)
    ENDS[ends](log)
    with pytest.raises(FailedError if ends == "fail" else ClosedError):
        log.buffer.append("late")
    assert log.buffer.last_lsn == records


def test_the_first_record_and_flush_bytes_wake_the_flusher() -> None:
    """Only the first record of a batch, and the one that reaches `flush_bytes`, wake the
    flusher."""
    log = log_of(Options(flush_bytes=1000, flush_interval_s=NEVER_S))

    def woken_by(size: int) -> bool:
        log.buffer.append(sized(size))
        return log.is_woken()

    for _ in range(2):
        assert [woken_by(size) for size in (100, 100, 100, 600, 100, 100, 1000, 100)] == [
            *(True, False, False, False),
            *(True, False, False, False),
        ]
        log.turn._begin(log.buffer.filling)
        log.turn._end()


def test_the_bound_holds_in_a_batch_of_any_length() -> None:
    """Bytes that are being committed count toward the bound."""
    log = log_of(Options(buffer_bytes=1000, flush_bytes=10_000))
    for _ in range(4):
        log.buffer.append(sized(100))
    log.turn._begin(log.buffer.filling)
    for _ in range(6):
        log.buffer.append(sized(100))
    with pytest.raises(BufferFullError):
        log.buffer.append(sized(100))
    assert (log.buffer.last_lsn, log.buffer.used_bytes) == (10, 1000)


def test_only_one_thread_has_the_commit_turn() -> None:
    """P2: The turn is exclusive: a second thread would write at the same offset."""
    log = log_of(Options())
    waiter = LoneWaiter()
    assert log.take_alone(1, waiter) is not None
    assert log.take_alone(2) is None
    log.turn.leave(waiter, is_done=True)
    assert log.turn.gate(2) is not None
    assert log.turn.take_alone(2, LoneWaiter()) is None  # a waiter relies on the flusher
    by_flusher = log.turn.take()
    assert by_flusher is not None
    assert by_flusher.records == [packb(2)]
    assert log.take_alone(3) is None
