"""DurableState: backpressure, the statistics of its lock, and snapshots."""

from __future__ import annotations

import asyncio
import errno
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from journal import (
    BufferFullError,
    ClosedError,
    DurableState,
    FailedError,
)
from journal.testing import SimulatedDisk
from tests.engine.state_support import len_of_rows, put, setting, state_on
from tests.support import (
    TIMEOUT_S,
    Held,
    Table,
    names,
    sized,
    until,
)

# --- backpressure ---


def fill(disk: SimulatedDisk, state: DurableState[Any]) -> None:
    """Fill more than half of a buffer of 1,000 bytes, on a full disk."""
    disk.fail("write", errno.ENOSPC, times=None)
    state.update(lambda m: ["a", sized(600)])


def test_update_waits_for_room_before_its_lock(disk: SimulatedDisk) -> None:
    """P7, P8: Above half of the bound, an update waits for room before it takes the lock, so that
    other calls continue."""
    with state_on(disk, buffer_bytes=1000) as state, ThreadPoolExecutor(2) as pool:
        fill(disk, state)
        waiting = pool.submit(state.update, partial(setting, "b", 1))
        another = pool.submit(state.update_batch, lambda m: [["b", 2]])
        assert state.read(len_of_rows) == 1
        assert state.update(partial(setting, "c", 3), urgent=True) == 2
        assert not waiting.done()
        assert not another.done()
        disk.before = None
        assert {waiting.result(TIMEOUT_S), another.result(TIMEOUT_S)} == {3, 4}


def test_waiting_for_room_can_time_out(disk: SimulatedDisk) -> None:
    """After `room_timeout_s`, an update raises BufferFullError, and changes nothing. The error
    names the journal, and advises what rows of tables can do, too. Urgent updates still work."""
    refused = r"/journal: no room .* within 0.02 s; nothing was changed. If the disk is full, free"
    with state_on(disk, buffer_bytes=1000, room_timeout_s=0.02) as state:
        fill(disk, state)
        for _ in range(2):
            with pytest.raises(BufferFullError, match=refused):
                state.update(partial(setting, "b", 1))
        with pytest.raises(BufferFullError):
            state.update_batch(lambda m: [["b", 1]])
        assert state.update(partial(setting, "c", 3), urgent=True) == 2
        assert state.machine.content().keys() == {"a", "c"}
        disk.before = None
        state.wait_room(timeout_s=TIMEOUT_S)
        assert put(state, "b", 1) == 3


def test_update_never_waits_in_an_event_loop(disk: SimulatedDisk) -> None:
    """P7: In a thread that runs an event loop, an update appends while there is space, and
    otherwise raises BufferFullError at once. `await state.room()` waits without blocking the
    loop."""

    async def main(state: DurableState[Any]) -> None:
        fill(disk, state)
        assert state.update(lambda m: ["b", sized(300)]) == 2
        with pytest.raises(BufferFullError, match="nothing was appended"):
            state.update(lambda m: ["b", sized(300)])
        waiting = asyncio.create_task(state.room())
        for _ in range(50):
            await asyncio.sleep(0)
        assert not waiting.done()
        disk.before = None
        await asyncio.wait_for(waiting, TIMEOUT_S)
        lsn = state.update(partial(setting, "c", 3))
        await asyncio.wait_for(state.durable(lsn), TIMEOUT_S)

    with state_on(disk, buffer_bytes=1000) as state:
        asyncio.run(main(state))
        assert state.journal.durable_lsn == 3
        assert state.machine.content().keys() == {"a", "b", "c"}


def test_a_failure_ends_the_wait_for_room(disk: SimulatedDisk) -> None:
    """P2: If the disk breaks while an update waits for room, it raises FailedError, and changes
    nothing."""
    with suppress(FailedError), state_on(disk, buffer_bytes=1000) as state:
        fill(disk, state)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(state.update, partial(setting, "b", 1))
            disk.fail("write", errno.EIO, times=None)
            with pytest.raises(FailedError):
                waiting.result(TIMEOUT_S)
        assert state.machine.content().keys() == {"a"}
    disk.before = None


def test_a_close_ends_the_wait_for_room(disk: SimulatedDisk) -> None:
    """P7: An update that waits for room raises ClosedError once the state is being closed, although
    the disk is still full."""
    with state_on(disk, buffer_bytes=1000) as state, ThreadPoolExecutor(1) as pool:
        fill(disk, state)
        waiting = pool.submit(state.update, partial(setting, "b", 1))
        until(state._buffer._backpressure.last_gate, "the wait")
        with pytest.raises(TimeoutError):
            state.close(timeout_s=0.01)
        with pytest.raises(ClosedError):
            waiting.result(TIMEOUT_S / 2)
        disk.before = None


# --- the statistics of the lock ---


def test_every_hold_is_counted(disk: SimulatedDisk) -> None:
    """P7: Each update, batch, read and snapshot counts as one hold and one wait, even if it
    raises."""
    with state_on(disk) as state:
        expected = 0
        for n in range(10):
            state.update(partial(setting, "a", n))
            state.update(lambda m: None)
            state.update_batch(lambda m: [["b", 1], ["c", 2]])
            state.update_batch(lambda m: [])
            state.read(len_of_rows)
            with suppress(ZeroDivisionError):
                state.update(lambda m: 1 // 0)
            with suppress(ZeroDivisionError):
                state.read(lambda m: 1 // 0)
            state.compact()
            expected += 8
            stats = state.lock_stats()
            assert (stats.hold.count, stats.wait.count) == (expected, expected)
        assert 0 < stats.hold.p50 <= stats.hold.p99 <= stats.hold.max


def test_lock_statistics_measure_holds_and_waits(disk: SimulatedDisk) -> None:
    """P7: While one thread holds the lock, another waits for it. Both times are in nanoseconds."""
    with state_on(disk) as state, ThreadPoolExecutor(1) as pool:
        holding, may_release = threading.Event(), threading.Event()

        def hold(_: Table) -> None:
            holding.set()
            assert may_release.wait(TIMEOUT_S)

        held = pool.submit(state.read, hold)
        assert holding.wait(TIMEOUT_S)
        timer = threading.Timer(0.05, may_release.set)
        timer.start()
        state.update(partial(setting, "a", 1))
        held.result(TIMEOUT_S)
        timer.join()
        stats = state.lock_stats()
        assert stats.hold.max >= 40_000_000
        assert stats.wait.max >= 10_000_000


def test_lock_statistics_take_bounded_memory(disk: SimulatedDisk) -> None:
    """P8: The statistics of a state that is only read take bounded memory."""
    with state_on(disk) as state:
        for _ in range(10_000):
            state.read(len_of_rows)
        tracemalloc.start()
        for _ in range(30_000):
            state.read(len_of_rows)
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert grown < 1_000_000
        assert state.lock_stats().hold.count == 40_000


# --- snapshots ---


def test_freeze_is_consistent_with_its_lsn(disk: SimulatedDisk) -> None:
    """P6: A checkpoint contains the state as of its LSN, although updates continue while it is
    written."""
    with state_on(disk) as state, ThreadPoolExecutor(1) as pool:
        for n in range(20):
            put(state, f"key {n}", 0)
        with Held(disk, "create", ".json.tmp") as held:
            compacting = pool.submit(state.compact)
            held.wait_reached()
            for n in range(20):
                state.update(partial(setting, f"key {n}", None if n % 2 else 1))
            put(state, "new", 1)
        checkpoint = compacting.result(TIMEOUT_S)
        assert checkpoint.lsn == 20
        assert dict(checkpoint.items()) == {f"key {n}": 0 for n in range(20)}
        live = state.machine.content()
    with state_on(disk) as state:
        assert state.machine.content() == live


def test_a_state_compacts_itself(disk: SimulatedDisk) -> None:
    """P8: Opening a state starts its compaction, which removes the covered files."""
    with state_on(disk, checkpoint_min_bytes=2000, segment_bytes=4096) as state:
        for round_ in (1, 2):
            for n in range(30):
                put(state, f"key {n % 5}", "x" * 200)
            until(lambda: state.stats().compactions >= round_, "a compaction")  # noqa: B023
        until(lambda: len(names(disk, ".json")) == 2, "two checkpoints")
        until(lambda: len(names(disk, ".seg")) < 5, "the removal of covered segments")
        live = state.machine.content()
    with state_on(disk) as state:
        assert state.machine.content() == live
