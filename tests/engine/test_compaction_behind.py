"""A compaction that the log outgrows: who waits for it, how long, and when the next one is due."""

from __future__ import annotations

import asyncio
import errno
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from journal import ClosedError, DurableState
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
    """Its checkpoint takes until it may go on."""

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
    """P8: where callers never wait for the disk the log would outgrow any: at a quarter more than
    what made the compaction due they wait for it, at most for the room that is left."""
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


def test_the_next_compaction_begins_earlier_where_the_log_grows_fast(disk: SimulatedDisk) -> None:
    """P8: by twice what it grew by during the last one, at most a quarter: done by when it would
    have begun, it leaves the disk no more than what two of them let the log grow by."""
    busy = True

    def items() -> Iterator[str]:
        if busy:
            put_lines(journal, 2, size=956)
        yield "state"

    with open_on(disk, checkpoint_min_bytes=10_000) as journal:
        journal.start_compaction(lambda: (journal.last_lsn, items()))
        put_lines(journal, 10, size=956)  # 1,006 bytes each, with its frame's header
        until(lambda: journal.stats().compactions == 1, "the first compaction")
        busy = False
        put_lines(journal, 5, size=956)
        assert journal.stats().compactions == 1
        put_lines(journal, 1, size=956)
        until(lambda: journal.stats().compactions == 2, "the second compaction, a quarter early")
        put_lines(journal, 8, size=956)
        assert journal.stats().compactions == 2
        put_lines(journal, 2, size=956)
        until(lambda: journal.stats().compactions == 3, "the third compaction, at its time again")


def test_a_late_compaction_makes_the_next_one_earlier(disk: SimulatedDisk) -> None:
    """P8: what a commit adds past that point is on the disk as well as what comes after it."""
    with open_on(disk, checkpoint_min_bytes=10_000) as journal:
        journal.start_compaction(frozen(journal, "state"))
        journal.wait_durable(journal.append_batch(["x" * 1000] * 14))
        until(lambda: journal.stats().compactions == 1, "the first compaction")
        put_lines(journal, 8, size=956)
        until(lambda: journal.stats().compactions == 2, "the second compaction, a quarter early")


def test_a_log_that_was_long_at_open_makes_the_next_no_earlier(disk: SimulatedDisk) -> None:
    """It did not grow while the compaction was made."""
    with open_on(disk) as journal:
        put_lines(journal, 30, size=956)
    with open_on(disk, checkpoint_min_bytes=10_000) as journal:
        journal.start_compaction(frozen(journal, "state"))
        until(lambda: journal.stats().compactions == 1, "the first compaction")
        committer = journal._core.committer
        until(lambda: 0 < committer.due_bytes < 10**9, "the thread waits for the next")
        assert committer.due_bytes == 10_000


def test_updates_wait_until_what_a_compaction_covers_is_removed(disk: SimulatedDisk) -> None:
    """P8: among callers in a hurry the compactor waits for its turn after each file."""
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


def test_a_removal_that_fails_holds_nobody(disk: SimulatedDisk) -> None:
    """Its checkpoint counts, and puts off the next compaction, and with it when updates wait."""
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


def test_no_update_waits_for_a_compactor_in_back_off(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: whoever compacts by hand meanwhile, and fails as he removes what that covers: only the
    thread that will compact says from where on updates wait."""
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
def test_no_error_of_an_owner_ends_the_thread(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """P8: its compactions go on, as after any other error; nobody would make them else."""
    monkeypatch.setattr(compaction_schedule, "_BACKOFF_S_MIN", 0.001)
    with open_on(disk, checkpoint_min_bytes=4000, flush_bytes=1000) as journal:
        freeze = FailsOnce(journal, error())
        journal.start_compaction(freeze)
        put_lines(journal, 8, size=700)
        until(lambda: journal.stats().compactions == 1, "the second attempt")
        journal.wait_room(timeout_s=TIMEOUT_S)


def test_a_thread_that_does_not_start_holds_nobody(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal goes on without compaction; it may be asked for again, and closes."""

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


def test_an_interrupt_at_the_end_of_a_compaction_holds_nobody(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: it puts off the next one, and with it when updates wait, even if nobody is told."""
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
        for _ in range(4):  # past where it was due and where updates were to wait, not past either
            put_lines(journal, 1, size=700)
            journal.wait_room(timeout_s=TIMEOUT_S)
        assert journal.stats().compactions == 1


def test_updates_wait_for_a_compaction_that_is_far_behind(disk: SimulatedDisk) -> None:
    """P7, P8: before they take the lock; what is urgent does not."""
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
    """However long it takes: after `room_timeout_s` the update goes on."""
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


def test_a_compaction_that_fails_holds_nobody(disk: SimulatedDisk) -> None:
    """The log goes on, however far it has outgrown what made the compaction due."""
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


def test_no_compaction_holds_anybody_for_long(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state may be so large that its checkpoint takes minutes."""
    monkeypatch.setattr(compaction_schedule, "_HOLD_S_MAX", 0.0)
    with open_on(disk, checkpoint_min_bytes=4000, flush_bytes=1000) as journal:
        journal.start_compaction(lambda: (journal.last_lsn, itertools.count()))
        put_lines(journal, 8, size=700)
        journal.wait_room(timeout_s=TIMEOUT_S)
        assert journal.stats().compactions == 0
        put_lines(journal, 20, size=700)
        assert journal.has_room


def test_a_compaction_that_is_given_up_holds_nobody(disk: SimulatedDisk) -> None:
    """A state that was dropped leaves its journal to whoever has it."""

    def freeze() -> tuple[int, list[Any]]:
        raise ClosedError("the state was dropped without being closed")

    with open_on(disk, checkpoint_min_bytes=4000, flush_bytes=1000) as journal:
        journal.start_compaction(freeze)
        put_lines(journal, 8, size=700)
        journal.wait_room(timeout_s=TIMEOUT_S)


def test_a_compaction_that_works_ends_the_back_off(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: who compacts by hand after a failure leaves nobody waiting for the thread's next try."""
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
