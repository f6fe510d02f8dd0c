"""DurableState: the values that `apply` gets, the order of a change, and what waits cover."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from journal import (
    ClosedError,
    DurableState,
    FailedError,
    InterruptedCallError,
    RecordError,
    pack,
)
from journal._format.record import bare
from journal.testing import SimulatedDisk
from manager import AgentResult, SubAgentManager
from manager.fleet import Fleet
from tests.engine.state_support import len_of_rows, put, setting, state_on
from tests.support import TIMEOUT_S, Held, Table, on_disk, sized, until

given = pytest.mark.parametrize("given", [bare, pack], ids=["plain", "packed"])


class Keeping(Table):
    """A naive machine that keeps the record objects that it gets."""

    def apply(self, lsn: int, record: Any) -> None:
        super().apply(lsn, [str(lsn), record])


# --- the values that apply gets ---


@given
@pytest.mark.parametrize("batch", [True, False])
def test_apply_sees_the_same_value_live_and_in_replay(
    disk: SimulatedDisk, given: Callable[[Any], Any], batch: bool
) -> None:
    """P6: `apply` gets what the packed record decodes to, and not the caller's object, which the
    caller may change. A bytearray or memoryview becomes bytes."""
    record: dict[Any, Any] = {
        "list": [1, {"a": b"x"}],
        "array": bytearray(b"abc"),
        "view": memoryview(b"def"),
        1: 2,
    }
    expected = {"list": [1, {"a": b"x"}], "array": b"abc", "view": b"def", 1: 2}
    with state_on(disk, Keeping()) as state:
        change = given(record)
        state.update_batch(lambda _: [change, change]) if batch else state.update(lambda _: change)
        record["list"].append("changed by its owner")
        record["array"][0] = 0
        live = dict(state.machine.content())
    with state_on(disk, Keeping()) as state:
        replayed = dict(state.machine.content())
    assert live == replayed == dict.fromkeys("12" if batch else "1", expected)
    for value in (*live.values(), *replayed.values()):
        assert [type(part) for part in value.values()] == [list, bytes, bytes, int]


@pytest.mark.parametrize("record", [("a", 1), {1, 2}, object(), [1 << 64], float, ["\ud800"]])
def test_a_record_that_cannot_be_packed_changes_nothing(disk: SimulatedDisk, record: Any) -> None:
    """RecordError is raised before `apply` is called."""
    with state_on(disk) as state:
        with pytest.raises(RecordError):
            state.update(lambda _: record)
        with pytest.raises(RecordError):
            state.update_batch(lambda _: [["a", 1], record])
        assert state.machine.applied == []
        put(state, "a", 1)


def test_a_record_that_is_too_large_changes_nothing(disk: SimulatedDisk) -> None:
    """The bounds of a record, packed or not, and of a batch are checked before `apply`."""
    with state_on(disk, record_bytes_max=100, frame_bytes_max=150) as state:
        large, half = ["a", "x" * 100], ["a", "x" * 80]
        changes: list[Callable[[], object]] = [
            lambda: state.update(lambda _: large),
            lambda: state.update(lambda _: pack(large)),
            lambda: state.update_batch(lambda _: [large]),
            lambda: state.update_batch(lambda _: [half, pack(half)]),
        ]
        for change in changes:
            with pytest.raises(RecordError, match="is over"):
                change()
        assert state.machine.applied == []


# --- between apply and append ---


class Gated(Table):
    """A machine whose `apply` makes a slow change visible, and then waits."""

    def __init__(self) -> None:
        super().__init__()
        self.visible, self.may_return = threading.Event(), threading.Event()

    def apply(self, lsn: int, record: Any) -> None:
        super().apply(lsn, record)
        if record[1] == "slow":
            self.visible.set()
            assert self.may_return.wait(TIMEOUT_S)


Wait = Callable[[DurableState[Any]], object]
WAITS: dict[str, Wait] = {
    "wait_durable(lsn)": lambda state: state.wait_durable(2),
    "wait_durable(lsn) with a limit": lambda state: state.wait_durable(2, timeout_s=TIMEOUT_S),
    "wait_durable()": lambda state: state.wait_durable(),
    "durable(lsn)": lambda state: asyncio.run(state.durable(2)),
    "durable()": lambda state: asyncio.run(state.durable()),
}
each_wait = pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())


def change_slowly(pool: ThreadPoolExecutor, state: DurableState[Gated]) -> Future[int | None]:
    """Begin a change. Return when it has been applied but not yet appended."""
    change = pool.submit(state.update, partial(setting, "b", "slow"))
    assert state.machine.visible.wait(TIMEOUT_S)
    assert state.machine.content() == {"a": 1, "b": "slow"}
    assert state.journal.last_lsn == 1
    return change


@each_wait
def test_a_wait_covers_a_change_being_applied(disk: SimulatedDisk, wait: Wait) -> None:
    """P2: A reader without the lock sees a change before it is in the log, and may wait for it. The
    wait ends only when the change is durable, and its LSN is not called unknown."""
    with state_on(disk, Gated()) as state, ThreadPoolExecutor(2) as pool:
        put(state, "a", 1)
        change = change_slowly(pool, state)
        waiting = pool.submit(wait, state)
        with suppress(TimeoutError):
            waiting.result(0.02)
        assert not waiting.done()
        with Held(disk, "sync", ".seg") as held:
            state.machine.may_return.set()
            assert change.result(TIMEOUT_S) == 2
            held.wait_reached()
            assert not waiting.done()
            held.release_all()
        waiting.result(TIMEOUT_S)
        assert state.journal.durable_lsn == 2


def test_a_wait_for_a_change_being_applied_keeps_its_limit(disk: SimulatedDisk) -> None:
    """A wait with a limit ends in time, and a wait in an event loop leaves the loop free, even if
    `apply` never returns."""

    async def main() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await state.durable()
        waiting = asyncio.ensure_future(state.durable())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        state.machine.may_return.set()
        await waiting

    with state_on(disk, Gated()) as state, ThreadPoolExecutor(1) as pool:
        state.update(partial(setting, "a", 1))
        change_slowly(pool, state)
        with pytest.raises(TimeoutError, match=r"LSN 2 was not applied within 0\.02 s"):
            state.wait_durable(timeout_s=0.02)
        with pytest.raises(ValueError, match="LSN 3 was never appended"):
            state.wait_durable(3)
        asyncio.run(main())
        assert state.journal.durable_lsn == 2


@each_wait
def test_a_wait_that_a_change_waits_for_is_refused(disk: SimulatedDisk, wait: Wait) -> None:
    """A signal handler that has interrupted a holder of the log buffer's lock must not wait for a
    change, which needs that lock."""
    with state_on(disk, Gated()) as state, ThreadPoolExecutor(1) as pool:
        put(state, "a", 1)
        change_slowly(pool, state)
        with state._buffer._lock.checked(), pytest.raises(InterruptedCallError):
            wait(state)
        state.machine.may_return.set()


def test_close_waits_for_a_change_being_applied(disk: SimulatedDisk) -> None:
    """A close during an update does not fail the state. The change that is being applied is
    appended and committed, and later updates raise ClosedError."""
    state = state_on(disk, Gated())
    with ThreadPoolExecutor(3) as pool:
        state.update(partial(setting, "a", 1))
        change = change_slowly(pool, state)
        waiting = pool.submit(state.wait_durable, 2)
        with pytest.raises(TimeoutError):
            state.close(timeout_s=0.02)
        with pytest.raises(ClosedError):
            state.update(partial(setting, "c", 1), urgent=True)
        closing = pool.submit(state.close)
        state.machine.may_return.set()
        assert change.result(TIMEOUT_S) == 2
        closing.result(TIMEOUT_S)
        waiting.result(TIMEOUT_S)
        assert state.read(len_of_rows) == 2
    assert on_disk(disk) == [["a", 1], ["b", "slow"]]


def test_close_does_not_wait_for_a_change_that_two_interrupts_ended(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5: A close ends, although a change was admitted, failed, and could not be withdrawn because
    a second interrupt struck."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    state = state_on(disk, buffer_bytes=1000)
    with monkeypatch.context() as patch:
        patch.setattr(state._buffer, "withdraw", interrupted)
        with pytest.raises(KeyboardInterrupt):
            state.update(partial(setting, "a", sized(2000)))
    state.close(timeout_s=TIMEOUT_S)


@each_wait
def test_a_change_that_is_never_appended_stops_its_state(disk: SimulatedDisk, wait: Wait) -> None:
    """P6: If the journal fails between apply and append, no wait reports the change as durable. The
    machine, which is ahead of the log, is no longer read, changed or frozen."""
    state = state_on(disk, Gated())
    with ThreadPoolExecutor(2) as pool:
        state.update(partial(setting, "a", 1))
        change = change_slowly(pool, state)
        waiting = pool.submit(wait, state)
        disk.fail("sync", errno.EIO, path=".seg")
        with pytest.raises(FailedError):
            state.journal.wait_durable(1)
        state.machine.may_return.set()
        with pytest.raises(FailedError):
            change.result(TIMEOUT_S)
        with pytest.raises(FailedError):
            waiting.result(TIMEOUT_S)
        for read in (lambda: state.read(len_of_rows), state._freeze):
            with pytest.raises(FailedError, match="stopped at LSN 2"):
                read()
        for update in (state.update, state.update_batch):
            with pytest.raises(FailedError):
                update(lambda _: ["c", 1])
    with suppress(FailedError):
        state.close()
    with state_on(disk, Gated()) as state:
        assert "b" not in state.machine.content()


def test_a_manager_waits_for_a_change_being_applied(
    manager: SubAgentManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: `wait_ended`, `wait_durable` and `changes` wait for the append of a change that `apply`
    has made visible."""
    agent = manager.spawn("work", name="a")
    manager.wait_durable()
    visible, may_return = threading.Event(), threading.Event()
    apply = Fleet.apply

    def slow(fleet: Fleet, lsn: int, record: Any) -> None:
        apply(fleet, lsn, record)
        visible.set()
        assert may_return.wait(TIMEOUT_S)

    lsn = agent.lsn + 1
    with ThreadPoolExecutor(5) as pool:
        monkeypatch.setattr(Fleet, "apply", slow)
        change = pool.submit(manager.update_from_result, "a", AgentResult("done"))
        assert visible.wait(TIMEOUT_S)
        waits: list[Future[Any]] = [
            pool.submit(manager.wait_durable, lsn),
            pool.submit(manager.wait_durable),
            pool.submit(manager.changes, lsn),
            pool.submit(manager.wait_ended, "a"),
        ]
        with suppress(TimeoutError):
            waits[0].result(0.02)
        assert not any(wait.done() for wait in waits)
        may_return.set()
        assert change.result(TIMEOUT_S).lsn == lsn
        for wait in waits:
            wait.result(TIMEOUT_S)
        assert manager.stats().durable_lsn == lsn


def test_a_stopped_fleet_releases_all_waiters(
    manager: SubAgentManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the fleet's own `apply` raises, waits for an agent's end and readers of changes raise
    FailedError, since no agent can end any more."""
    manager.spawn("work", name="a")
    apply = Fleet.apply

    def interrupted_apply(fleet: Fleet, lsn: int, record: Any) -> None:
        apply(fleet, lsn, record)
        raise KeyboardInterrupt

    async def read() -> None:
        async for _ in manager.changes():
            pass

    with ThreadPoolExecutor(3) as pool:
        waits: list[Future[Any]] = [
            pool.submit(manager.wait_ended, "a"),
            pool.submit(asyncio.run, manager.ended("a")),
            pool.submit(asyncio.run, read()),
        ]
        until(
            lambda: len(manager._watch._waiters.get(manager.get("a").agent_id, ())) == 2,
            "both waiters wait",
        )
        until(lambda: manager._watch._idle, "the reader waits")
        monkeypatch.setattr(Fleet, "apply", interrupted_apply)
        with pytest.raises(KeyboardInterrupt):
            manager.update_from_result("a", AgentResult("done"))
        for wait in waits:
            with pytest.raises(FailedError, match="this state stopped"):
                wait.result(TIMEOUT_S)
        with pytest.raises(FailedError):
            manager.wait_ended("a")


def test_the_buffers_lock_is_free_while_a_record_is_applied(disk: SimulatedDisk) -> None:
    """P7: A slow `apply` holds up the state's own calls, and no commit."""
    with state_on(disk, Gated()) as state, ThreadPoolExecutor(2) as pool:
        state.update(partial(setting, "a", 1))
        change = change_slowly(pool, state)
        state.journal.wait_durable(1, timeout_s=TIMEOUT_S)
        state.machine.may_return.set()
        change.result(TIMEOUT_S)


@given
@pytest.mark.parametrize("batch", [True, False])
def test_a_record_that_apply_rejects_is_not_in_the_journal(
    disk: SimulatedDisk, given: Callable[[Any], Any], batch: bool
) -> None:
    """A mistake such as forgotten brackets costs a reopening, and no repair."""

    class Strict(Table):
        def apply(self, lsn: int, record: Any) -> None:
            key, value = record
            super().apply(lsn, [key, value])

    good, bad = given(["a", 1]), given("queued")
    with state_on(disk, Strict()) as state:
        put(state, "x", 0)
        with pytest.raises(ValueError, match="too many values to unpack"):
            state.update_batch(lambda _: [good, bad]) if batch else state.update(lambda _: bad)
    assert on_disk(disk) == [["x", 0]]
    with state_on(disk, Strict()) as state:
        assert put(state, "a", 1) == 2


def test_a_refused_record_is_not_applied(disk: SimulatedDisk) -> None:
    """BufferFullError is raised before `apply`, so nothing is changed. Urgent records still fit."""
    with state_on(disk, buffer_bytes=1000, room_timeout_s=0.01) as state:
        disk.fail("write", errno.ENOSPC, times=None)
        kept = 0
        with suppress(FailedError):
            while kept < 50:
                before = [*state.machine.applied]
                try:
                    state.update(lambda _, n=kept: [f"key {n}", "x" * 100], urgent=True)  # type: ignore[misc]
                except Exception:
                    assert state.machine.applied == before
                    break
                kept += 1
        assert 8 <= kept < 50
        disk.before = None
        state.wait_durable(timeout_s=TIMEOUT_S)
        until(lambda: state.journal.has_room, "room")
    with state_on(disk) as state:
        assert len_of_rows(state.machine) == kept
