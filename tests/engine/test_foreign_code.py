"""Foreign code inside the engine's calls: log filters and handlers, observers, event loops.

It may raise anything at any time. Even then, nothing false is acknowledged, nothing hangs, and no
other caller is affected.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import NoReturn

import pytest

from journal import (
    ClosedError,
    DurableState,
    FailedError,
    InterruptedCallError,
    Journal,
    JournalError,
)
from journal._commit.committer import Committer
from journal._commit.gate import Gate
from journal._log import settle
from journal.testing import SimulatedDisk
from tests.support import (
    FIRST,
    PATH,
    TIMEOUT_S,
    Held,
    Table,
    frozen,
    on_disk,
    open_on,
    options,
    put,
    until,
)

RAISED = [
    LookupError("no context in this thread"),
    SystemExit(1),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    GeneratorExit(),
]
raised = pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)


@contextmanager
def filtered(filter_: Callable[[logging.LogRecord], bool]) -> Iterator[None]:
    """Pass every log message of the engine through this filter."""
    log = logging.getLogger("journal")
    log.addFilter(filter_)
    try:
        yield
    finally:
        assert settle(TIMEOUT_S)
        log.removeFilter(filter_)


def raising(error: BaseException) -> Callable[..., bool]:
    def filter_(*_: object) -> bool:
        raise error

    return filter_


# --- logging ---


@raised
def test_a_log_filter_that_raises_does_not_hide_a_failure(
    disk: SimulatedDisk, error: BaseException
) -> None:
    """P2: If a sync fails, and so does the log message about it, every waiter still gets
    FailedError, as do later calls and close."""
    with filtered(raising(error)), ThreadPoolExecutor(8) as pool:
        journal = open_on(disk)
        put(journal, "safe")
        with Held(disk, "sync", ".seg") as held:
            first = pool.submit(journal.wait_durable, journal.append("at the sync"))
            held.wait_reached()
            waits = [pool.submit(journal.wait_durable, journal.append(n)) for n in range(3)]
            waits += [pool.submit(asyncio.run, journal.durable(journal.last_lsn))]
            disk.fail("sync", errno.EIO, path=".seg")
            held.release_all()
            first.result(TIMEOUT_S)
            for wait in waits:
                with pytest.raises(FailedError):
                    wait.result(TIMEOUT_S)
        calls: list[Callable[[], object]] = [
            lambda: journal.append("after"),
            lambda: journal.wait_durable(),
            lambda: journal.wait_durable(3),
            lambda: asyncio.run(journal.durable()),
            journal.wait_room,
            lambda: journal.compact(frozen(journal)),
            journal.close,
        ]
        for call in calls:
            with pytest.raises(FailedError):
                call()
        assert journal.durable_lsn == 2


def test_a_log_filter_that_raises_on_a_full_disk_does_not_stop_the_journal(
    disk: SimulatedDisk,
) -> None:
    """P2: A filter for request ids raises in the flusher's thread, which has no context. The
    journal waits for space all the same, and continues."""
    request_id: ContextVar[str] = ContextVar("request_id")

    def filter_(record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True

    request_id.set("a request")
    with filtered(filter_), open_on(disk) as journal, ThreadPoolExecutor(1) as pool:
        put(journal, "safe")
        disk.fail("write", errno.ENOSPC, times=None)
        waiting = pool.submit(put, journal, "waits")
        until(lambda: journal.stats().stalls == 1, "the stall")
        disk.before = None
        assert waiting.result(TIMEOUT_S) == 2
    assert on_disk(disk) == ["safe", "waits"]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_log_handler_may_take_a_lock_that_a_waiter_holds(disk: SimulatedDisk, code: int) -> None:
    """A log handler may need a lock that a thread holds while it waits for its record to be
    durable, for example to journal what is logged. The engine's message waits for that lock, but no
    waiter waits for the message."""
    lock = threading.Lock()

    def filter_(_: logging.LogRecord) -> bool:
        with lock:
            return True

    def log_and_wait(record: object) -> int:
        with lock:
            return put(journal, record)

    with filtered(filter_), ThreadPoolExecutor(1) as pool:
        journal = open_on(disk)
        put(journal, "safe")
        disk.fail("write", code, path=FIRST, times=None)
        waiting = pool.submit(log_and_wait, "logged")
        if code == errno.EIO:
            with pytest.raises(FailedError):
                waiting.result(TIMEOUT_S)
            with pytest.raises(FailedError):
                journal.close()
        else:
            until(lambda: journal.stats().stalls == 1, "the stall")
            disk.before = None
            assert waiting.result(TIMEOUT_S) == 2
            journal.close()


def test_a_hanging_log_handler_does_not_stop_the_journal(disk: SimulatedDisk) -> None:
    """Commits and close don't wait for a log handler that hangs in a message about a full disk."""
    may_return = threading.Event()

    def filter_(_: logging.LogRecord) -> bool:
        return may_return.wait(TIMEOUT_S)

    with filtered(filter_):
        try:
            with open_on(disk) as journal:
                put(journal, 1)
                disk.fail("write", errno.ENOSPC)
                put(journal, 2, 3)
                disk.fail("write", errno.ENOSPC)
                put(journal, 4)
        finally:
            may_return.set()
    assert on_disk(disk) == [1, 2, 3, 4]


# --- observers ---


class Raising:
    """An observer whose methods all raise."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        def method(*_: object) -> None:
            self.calls.append(name)
            raise self.error

        return method


@raised
def test_an_observer_that_raises_is_skipped(disk: SimulatedDisk, error: BaseException) -> None:
    """An observer that raises at any event is skipped: commits, stalls, compactions and failures
    are handled, and the other observers are called."""
    observers = Raising(error), Raising(error)
    journal = open_on(disk)
    for observer in observers:
        journal.observe(observer)
    put(journal, 1, 2)
    disk.fail("write", errno.ENOSPC, path=FIRST)
    put(journal, 3)
    journal.compact(frozen(journal, "state")).close()
    disk.fail("sync", errno.EIO, path=FIRST)
    with pytest.raises(FailedError):
        put(journal, 4)
    with pytest.raises(FailedError):
        journal.close()
    expected = ["committed"] * 3 + ["compacted", "failed", "stalled"]
    for observer in observers:
        assert sorted(observer.calls) == expected
    assert settle(TIMEOUT_S)


def test_observers_never_run_in_a_callers_thread(disk: SimulatedDisk) -> None:
    """Waiters commit and callers compact in their own threads, but only a thread of the engine
    calls observers. An exception that a signal handler raises in a caller's thread is then never
    taken for an observer's error."""

    class ThreadRecorder:
        def __init__(self) -> None:
            self.calls: list[tuple[str, int]] = []

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_: self.calls.append((name, threading.get_ident()))

    observer = ThreadRecorder()
    with open_on(disk) as journal:
        journal.observe(observer)
        for n in range(20):
            journal.wait_durable(journal.append(n))  # without a timeout: the waiter commits
        journal.compact(frozen(journal, "state")).close()
    assert {name for name, _ in observer.calls} == {"committed", "compacted"}
    assert threading.get_ident() not in {thread for _, thread in observer.calls}


# --- gates and threads ---


def test_a_wait_raises_the_error_of_a_signal_handler(
    disk: SimulatedDisk,
) -> None:
    """P2: If a signal handler raises in the thread of a waiter, the wait raises that error, and not
    one of its own."""
    for opened in (False, True):
        gate = Gate()
        turnstile = gate._turnstile

        class InterruptedTurnstile:
            """A turnstile in whose exit a signal handler raises."""

            def acquire(self, *_: object) -> None:
                if opened:  # noqa: B023
                    turnstile.acquire()  # noqa: B023

            def release(self, *_: object) -> None:
                raise RuntimeError("took too long")

            __enter__, __exit__ = acquire, release

        if opened:
            gate.open()
        gate._turnstile = InterruptedTurnstile()  # type: ignore[assignment]
        with pytest.raises(RuntimeError, match="took too long"):
            gate.wait()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_unexpected_end_of_the_flusher_is_a_failure(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flusher thread that ends leaves the journal failed or closed, even if recording the failure
    fails."""
    journal = open_on(disk)
    put(journal, "safe")
    monkeypatch.setattr(Committer, "_fail", raising(SystemExit(1)))
    disk.fail("sync", errno.EIO, path=FIRST)
    lsn = journal.append("lost")
    with pytest.raises(FailedError, match="the flusher thread ended"):
        journal.wait_durable(lsn, timeout_s=TIMEOUT_S)
    with pytest.raises(FailedError):
        journal.append("after")
    with pytest.raises(FailedError):
        journal.close()


def test_a_closed_event_loop_does_not_affect_other_waiters(disk: SimulatedDisk) -> None:
    """An event loop that was closed during a wait is skipped. Threads and other loops are woken."""
    with open_on(disk) as journal, ThreadPoolExecutor(2) as pool:
        put(journal, 1)
        with Held(disk, "sync", ".seg") as held:
            lsn = journal.append(2)
            first = pool.submit(journal.wait_durable, lsn)
            held.wait_reached()
            loop = asyncio.new_event_loop()
            task = loop.create_task(journal.durable(lsn))
            loop.run_until_complete(asyncio.sleep(0))
            second = pool.submit(asyncio.run, journal.durable(lsn))
            until(lambda: len(_gate_of_commit(journal)._loops) == 2, "both loops wait")
            with suppress(RuntimeError):
                task.cancel()
            loop.close()
            held.release_all()
        first.result(TIMEOUT_S)
        second.result(TIMEOUT_S)
        del task


def _gate_of_commit(journal: Journal) -> Gate:
    batch = journal._turn._committing
    assert batch is not None
    assert batch.gate is not None
    return batch.gate


# --- signal handlers ---


@pytest.mark.parametrize("interrupted", ["append", "commit"])
def test_compact_in_a_signal_handler_is_refused_where_it_would_deadlock(
    disk: SimulatedDisk, interrupted: str
) -> None:
    """A compaction needs the lock of the log buffer, and commits. In a signal handler inside a call
    that holds this lock or commits, `compact` is refused. It would wait for another thread's
    compaction, which waits for this thread."""
    began, over = threading.Event(), threading.Event()

    def freeze() -> NoReturn:
        began.set()
        over.wait(5)  # reached only if `compact` waits: then ends that wait
        raise ZeroDivisionError

    def handler(*_: object) -> None:
        disk.before = None
        with pytest.raises(InterruptedCallError):
            journal.compact(lambda: pytest.fail("`compact` waited for the other compaction"))

    with open_on(disk) as journal, ThreadPoolExecutor(1) as pool:
        put(journal, "a segment, which a waiter's own commit needs")
        compaction = pool.submit(journal.compact, freeze)
        assert began.wait(TIMEOUT_S)
        if interrupted == "append":
            with journal._buffer._lock.checked():
                handler()
        else:
            lsn = journal.append("committed by its waiter")
            disk.before = handler
            journal.wait_durable(lsn)
            assert disk.before is None
        over.set()
        assert isinstance(compaction.exception(TIMEOUT_S), ZeroDivisionError)


# --- calls of a state machine ---


def test_a_wait_inside_a_callback_is_refused(disk: SimulatedDisk) -> None:
    """`wait_durable` and similar calls inside `decide` would wait under the owner's lock. They are
    refused, and change nothing."""
    with DurableState.open(PATH, Table(), options=options(), disk=disk) as state:
        calls: list[Callable[[], object]] = [
            state.wait_durable,
            lambda: asyncio.run(state.durable()),
            state.wait_room,
            state.compact,
            state.close,
            lambda: state.update(lambda _: ["a", 1]),
            lambda: state.update_batch(lambda _: [["a", 1]]),
            lambda: state.read(Table.content),
        ]
        for call in calls:
            with pytest.raises(RuntimeError, match="already inside a call"):
                state.update(lambda _, call=call: call())  # type: ignore[misc]
        state.wait_durable(state.update(lambda _: ["a", 1]))
        assert state.machine.content() == {"a": 1}
    with pytest.raises(ClosedError):
        state.update(lambda _: ["a", 2])


def test_only_the_state_appends_to_its_journal(disk: SimulatedDisk) -> None:
    """P6: An append that the state machine would not see is refused."""
    with DurableState.open(PATH, Table(), options=options(), disk=disk) as state:
        with pytest.raises(JournalError, match="use update or update_batch"):
            state.journal.append(["a", 1])
        with pytest.raises(JournalError, match="use update or update_batch"):
            state.journal.append_batch([["a", 1]], urgent=True)
        assert state.journal.last_lsn == 0
