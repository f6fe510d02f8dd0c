"""A compaction that lags behind the log: which updates wait, for how long, and when the next is
due."""

from __future__ import annotations

import asyncio
import errno
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from journal import ClosedError, DurableState, Journal
from journal._commit.gate import open_gates
from journal._engine import compaction_schedule
from journal._mutex import Alarm
from journal.testing import SimulatedDisk
from tests.engine.compaction_support import FailsOnce, compact
from tests.support import (
    NEVER_S,
    PATH,
    TIMEOUT_S,
    Held,
    frozen,
    names,
    open_on,
    options,
    put_lines,
    until,
)


def line(number: int, _: Any) -> list[Any]:
    return [number, "x" * 700]


class SlowTable:
    """A state machine whose checkpoint does not end until `may_go` is set."""

    application = "slow/1"

    def __init__(self, may_go: threading.Event) -> None:
        self._may_go = may_go
        self.records: dict[Any, Any] = {}

    def load(self, item: Any) -> None:
        self.records[item] = None

    def apply(self, lsn: int, record: Any) -> None:
        self.records[record[0]] = record[1]

    def freeze(self) -> Iterator[str]:
        return self._items()

    def _items(self) -> Iterator[str]:
        yield "first"
        self._may_go.wait(TIMEOUT_S)


def test_updates_wait_while_compaction_is_far_behind(disk: SimulatedDisk) -> None:
    """P8: If callers never wait for the disk, the log could outgrow any compaction. Once it has
    grown by a quarter more than what made the compaction due, updates wait for the compaction."""
    may_go = threading.Event()

    def items() -> Iterator[str]:
        yield "first"
        may_go.wait(TIMEOUT_S)

    with open_on(disk, checkpoint_min_bytes=4000, flush_bytes=1000) as journal:
        journal.start_compaction(lambda: (journal.last_lsn, items()))
        put_lines(journal, 6, size=700)
        until(lambda: names(disk, ".tmp"), "the compaction")
        journal.wait_room(timeout_s=0)
        put_lines(journal, 1, size=700)
        assert not journal.has_room
        with pytest.raises(TimeoutError, match="no room"):
            journal.wait_room(timeout_s=0.01)
        assert (journal.stats().stalls, journal.stats().compactions) == (1, 0)
        may_go.set()
        journal.wait_room(timeout_s=TIMEOUT_S)
        assert (journal.stats().stalls, journal.stats().compactions) == (1, 1)


def test_the_next_compaction_begins_earlier_if_the_log_grows_fast(disk: SimulatedDisk) -> None:
    """P8: The next compaction begins earlier by twice the log's growth during the last one, but at
    most by a quarter. It is then done by the time it would have begun, so that the disk holds no
    more than two compactions let the log grow by."""
    busy = True

    def items() -> Iterator[str]:
        if busy:
            put_lines(journal, 2, size=956)
        yield "state"

    with open_on(disk, checkpoint_min_bytes=10_000) as journal:
        journal.start_compaction(lambda: (journal.last_lsn, items()))
        put_lines(journal, 10, size=956)  # 1,006 bytes each, including the frame header
        until(lambda: journal.stats().compactions == 1, "the first compaction")
        busy = False
        put_lines(journal, 5, size=956)
        assert journal.stats().compactions == 1
        put_lines(journal, 1, size=956)
        until(lambda: journal.stats().compactions == 2, "the second compaction, a quarter early")
        put_lines(journal, 8, size=956)
        assert journal.stats().compactions == 2
        put_lines(journal, 2, size=956)
        until(lambda: journal.stats().compactions == 3, "the third compaction, at the usual point")


def test_a_late_compaction_makes_the_next_one_earlier(disk: SimulatedDisk) -> None:
    """P8: Bytes that a commit adds past the due point count as growth during the compaction, since
    they take disk space as well."""
    with open_on(disk, checkpoint_min_bytes=10_000) as journal:
        journal.start_compaction(frozen(journal, "state"))
        journal.wait_durable(journal.append_batch(["x" * 1000] * 14))
        until(lambda: journal.stats().compactions == 1, "the first compaction")
        put_lines(journal, 8, size=956)
        until(lambda: journal.stats().compactions == 2, "the second compaction, a quarter early")


def test_growth_before_open_does_not_advance_the_next_compaction(disk: SimulatedDisk) -> None:
    """Growth before the open is not growth during a compaction."""
    with open_on(disk) as journal:
        put_lines(journal, 30, size=956)
    with open_on(disk, checkpoint_min_bytes=10_000) as journal:
        journal.start_compaction(frozen(journal, "state"))
        until(lambda: journal.stats().compactions == 1, "the first compaction")
        committer = journal._core.committer
        until(lambda: 0 < committer.due_bytes < 10**9, "the thread waits for the next")
        assert committer.due_bytes == 10_000


def test_updates_wait_until_covered_files_are_removed(disk: SimulatedDisk) -> None:
    """P8: Removal counts as part of the compaction: among busy callers, the compactor waits for its
    turn after each file."""
    small = {"checkpoint_min_bytes": 4000, "flush_bytes": 1000, "segment_bytes": 4096}
    with open_on(disk, **small) as journal:
        journal.start_compaction(frozen(journal, "state"))
        put_lines(journal, 1, size=700)
        with Held(disk, "remove", names(disk, ".seg")[0]) as held:
            put_lines(journal, 5, size=700)
            until(lambda: journal.stats().compactions == 1, "the first compaction")
            put_lines(journal, 6, size=700)
            held.wait_reached()
            put_lines(journal, 6, size=700)
            with pytest.raises(TimeoutError, match="no room"):
                journal.wait_room(timeout_s=0.01)
        journal.wait_room(timeout_s=TIMEOUT_S)


def test_a_failed_removal_does_not_hold_updates(disk: SimulatedDisk) -> None:
    """A checkpoint counts even if the removal after it fails. It postpones the next compaction, and
    raises the log size from which updates wait."""
    small = {"checkpoint_min_bytes": 4000, "flush_bytes": 1000, "segment_bytes": 4096}
    with open_on(disk, **small) as journal:
        journal.start_compaction(frozen(journal, "state"))
        put_lines(journal, 5, size=700)
        compact(journal, "by hand").close()
        put_lines(journal, 1, size=700)

        def fail(operation: str, path: str) -> None:
            if operation == "remove" and path.endswith(".seg"):
                disk.before = lambda operation, path: None
                put_lines(journal, 6, size=700)
                assert not journal.has_room
                raise PermissionError(errno.EPERM, "not permitted", path)

        disk.before = fail
        with pytest.raises(PermissionError):
            compact(journal, "by hand, too")
        journal.wait_room(timeout_s=TIMEOUT_S)


def test_updates_do_not_wait_for_a_compactor_in_back_off(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: Only the thread that will compact sets the size from which updates wait. A compaction by
    hand that fails during its removal does not."""
    monkeypatch.setattr(compaction_schedule, "_BACKOFF_S_MIN", NEVER_S)
    monkeypatch.setattr(compaction_schedule, "_BACKOFF_S_MAX", NEVER_S)
    attempts: list[int] = []

    def freeze() -> tuple[int, list[Any]]:
        attempts.append(journal.last_lsn)
        raise ZeroDivisionError("the owner's own")

    def fail(operation: str, path: str) -> None:
        if operation == "remove" and path.endswith(".seg"):
            raise PermissionError(errno.EPERM, "not permitted", path)

    small = {"checkpoint_min_bytes": 4000, "flush_bytes": 1000, "segment_bytes": 4096}
    with open_on(disk, **small) as journal:
        put_lines(journal, 5, size=700)
        compact(journal, "by hand").close()
        journal.start_compaction(freeze)
        put_lines(journal, 8, size=700)
        until(lambda: attempts, "the attempt")
        journal.wait_room(timeout_s=TIMEOUT_S)
        disk.before = fail
        with pytest.raises(PermissionError):
            compact(journal, "by hand, too")
        put_lines(journal, 20, size=700)
        assert journal.has_room


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit])
def test_an_owners_error_does_not_end_the_thread(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """P8: Compactions continue as after any other error. No other thread would make them."""
    monkeypatch.setattr(compaction_schedule, "_BACKOFF_S_MIN", 0.001)
    with open_on(disk, checkpoint_min_bytes=4000, flush_bytes=1000) as journal:
        freeze = FailsOnce(journal, error())
        journal.start_compaction(freeze)
        put_lines(journal, 8, size=700)
        until(lambda: journal.stats().compactions == 1, "the second attempt")
        journal.wait_room(timeout_s=TIMEOUT_S)


def test_a_thread_that_does_not_start_does_not_hold_updates(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the thread can't start, the journal continues without compaction and can be closed, and
    compaction can be started later."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with open_on(disk, checkpoint_min_bytes=4000, flush_bytes=1000) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                journal.start_compaction(frozen(journal, "state"))
        put_lines(journal, 20, size=700)
        assert journal.has_room
        journal.start_compaction(frozen(journal, "state"))
        until(lambda: journal.stats().compactions == 1, "the compaction")


def test_an_interrupt_at_the_end_of_a_compaction_does_not_hold_updates(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: A published checkpoint postpones the next one, and raises the log size from which updates
    wait, even if an interrupt prevents waking the thread."""
    with open_on(disk, checkpoint_min_bytes=4000, flush_bytes=1000) as journal:
        journal.start_compaction(frozen(journal, "state"))
        put_lines(journal, 4, size=700)

        wake = Alarm.wake

        def interrupted(alarm: Alarm) -> None:
            if alarm is journal._core.compactor._alarm:
                raise KeyboardInterrupt
            wake(alarm)

        with monkeypatch.context() as patch:
            patch.setattr(Alarm, "wake", interrupted)
            with pytest.raises(KeyboardInterrupt):
                compact(journal, "by hand")
        for _ in range(4):  # past the old due point and hold point, and short of the new ones
            put_lines(journal, 1, size=700)
            journal.wait_room(timeout_s=TIMEOUT_S)
        assert journal.stats().compactions == 1


def test_a_compaction_before_the_first_commit_does_not_hold_updates(disk: SimulatedDisk) -> None:
    """P8: A published checkpoint raises the log size from which updates wait, even if its snapshot
    was taken when the log had the same size as at the snapshot before."""
    with open_on(disk, checkpoint_min_bytes=4000, flush_bytes=1000) as journal:
        journal.start_compaction(frozen(journal, "state"))
        until(lambda: journal._core.committer.due_bytes == 4000, "the thread's wait")
        assert journal._core.committer.log_bytes == 0
        compact(journal, "x" * 4000)
        for _ in range(9):  # past the old hold point, and short of the new due point
            put_lines(journal, 1, size=700)
            journal.wait_room(timeout_s=TIMEOUT_S)
        assert journal.stats().compactions == 1


def test_updates_wait_for_a_compaction_that_is_far_behind(disk: SimulatedDisk) -> None:
    """P7, P8: Updates wait for room before they take the lock, and urgent ones don't wait."""
    may_go = threading.Event()
    small = options(checkpoint_min_bytes=4000, flush_bytes=1000)
    with (
        DurableState.open(PATH, SlowTable(may_go), options=small, disk=disk) as state,
        ThreadPoolExecutor(1) as pool,
    ):
        for number in range(7):
            lsn = state.update(partial(line, number), urgent=True)
            state.wait_durable(lsn)
        until(lambda: names(disk, ".tmp"), "the compaction")
        waiting = pool.submit(state.update, lambda _: ["waited", 1])
        with pytest.raises(TimeoutError):
            waiting.result(0.05)
        assert state.update(lambda _: ["urgent", 1], urgent=True) == 8
        may_go.set()
        assert waiting.result(TIMEOUT_S) == 9


def test_no_update_is_refused_for_a_compaction(disk: SimulatedDisk) -> None:
    """An update continues after `room_timeout_s`, however long the compaction takes."""
    may_go = threading.Event()
    small = options(checkpoint_min_bytes=4000, flush_bytes=1000)
    with DurableState.open(
        PATH, SlowTable(may_go), options=small, room_timeout_s=0.01, disk=disk
    ) as state:
        for number in range(7):
            state.wait_durable(state.update(partial(line, number), urgent=True))
        until(lambda: names(disk, ".tmp"), "the compaction")
        assert state.update(partial(line, 8)) == 8
        may_go.set()


def test_a_failed_compaction_does_not_hold_updates(disk: SimulatedDisk) -> None:
    """The log continues after a failure, however far it is past the due point."""
    may_go = threading.Event()

    def items() -> Iterator[str]:
        if may_go.wait(TIMEOUT_S):
            raise ZeroDivisionError("the owner's own")
        yield "too late"

    with open_on(disk, checkpoint_min_bytes=4000, flush_bytes=1000) as journal:
        journal.start_compaction(lambda: (journal.last_lsn, items()))
        put_lines(journal, 8, size=700)
        with pytest.raises(TimeoutError, match="no room"):
            journal.wait_room(timeout_s=0.01)
        may_go.set()
        journal.wait_room(timeout_s=TIMEOUT_S)
        put_lines(journal, 20, size=700)
        assert journal.has_room


def test_an_endless_compaction_slows_updates(disk: SimulatedDisk) -> None:
    """P7: Updates that wait get room again and again, since the checkpoint of a large state may
    take minutes."""
    encodes = threading.Event()
    items = (encodes.wait(TIMEOUT_S) for _ in itertools.count())

    def held_up() -> bool:
        encodes.set()
        journal.wait_room(timeout_s=TIMEOUT_S)
        encodes.clear()  # room that is given during a commit counts as no stall
        put_lines(journal, 1, size=1_000_000)  # more than the room that was given
        return journal.stats().stalls > 2

    with open_on(disk, checkpoint_min_bytes=4000, flush_bytes=1000) as journal:
        journal.start_compaction(lambda: (journal.last_lsn, items))
        until(held_up, "three periods without room")
        encodes.set()


def wait_room_in_loop(journal: Journal) -> None:
    asyncio.run(asyncio.wait_for(journal.room(), TIMEOUT_S / 2))


def wait_room(journal: Journal) -> None:
    journal.wait_room(timeout_s=TIMEOUT_S / 2)


@pytest.mark.parametrize("wait", [wait_room, wait_room_in_loop], ids=["thread", "event loop"])
def test_each_update_that_waited_for_room_goes_on(
    disk: SimulatedDisk, wait: Callable[[Journal], None]
) -> None:
    """P7: None starves, even if others always use the room before it looks."""
    with open_on(disk) as journal, ThreadPoolExecutor(1) as pool:
        buffer = journal._core.buffer
        buffer.hold_from(0)
        waiting = pool.submit(wait, journal)
        until(buffer._backpressure.last_gate, "the wait")
        assert not journal.has_room  # others have used the room before the gate opens
        open_gates(buffer._backpressure.last_gate())
        waiting.result(TIMEOUT_S)


def test_an_abandoned_compaction_does_not_hold_updates(disk: SimulatedDisk) -> None:
    """The journal of a dropped state can still be used, without compaction."""

    def freeze() -> tuple[int, list[Any]]:
        raise ClosedError("the state was dropped without being closed")

    with open_on(disk, checkpoint_min_bytes=4000, flush_bytes=1000) as journal:
        journal.start_compaction(freeze)
        put_lines(journal, 8, size=700)
        journal.wait_room(timeout_s=TIMEOUT_S)


def test_a_successful_compaction_ends_the_back_off(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: After a compaction by hand succeeds, the thread does not sit out its back-off."""
    monkeypatch.setattr(compaction_schedule, "_BACKOFF_S_MIN", NEVER_S)
    monkeypatch.setattr(compaction_schedule, "_BACKOFF_S_MAX", NEVER_S)
    with open_on(disk, checkpoint_min_bytes=4000, flush_bytes=1000) as journal:
        freeze = FailsOnce(journal, ZeroDivisionError("the owner's own"))
        journal.start_compaction(freeze)
        put_lines(journal, 6, size=700)
        until(lambda: freeze.attempts, "the attempt that fails")
        journal.compact().close()
        put_lines(journal, 8, size=700)
        journal.wait_room(timeout_s=TIMEOUT_S)
        until(lambda: freeze.attempts == 3, "the next compaction")
