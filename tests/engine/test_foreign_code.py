"""Other people's code inside the engine's calls: log filters and handlers, observers, event loops.

It may raise anything, at any moment: nothing false is acknowledged, nothing hangs, and nobody else
is harmed.
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
    """Every message of the engine passes through this filter."""
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
def test_a_log_filter_that_raises_lets_nothing_be_acknowledged(
    disk: SimulatedDisk, error: BaseException
) -> None:
    """P2: a sync fails, and so does the message about it. Every waiter gets FailedError, and so do
    later calls and close."""
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


def test_a_log_filter_that_raises_on_a_full_disk_costs_nothing(disk: SimulatedDisk) -> None:
    """P2: it raises in the flusher's thread, which has no context, as filters for request ids do.
    The journal waits for space, and goes on."""
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
    """A handler that journals what is logged, say: its lock is held by whoever logs and waits for
    that to be durable. A message of the engine waits for that lock, and nobody for the message."""
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


def test_a_log_handler_that_never_returns_stops_nobody(disk: SimulatedDisk) -> None:
    """It is stuck with the message that the disk is full; commits go on, and so does close."""
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
    """An observer, all of whose methods raise."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        def method(*_: object) -> None:
            self.told.append(name)
            raise self.error

        return method


@raised
def test_an_observer_that_raises_is_skipped(disk: SimulatedDisk, error: BaseException) -> None:
    """Whatever it raises, at each event: commits, stalls, compactions and the failure go on, and
    whoever observes beside it is told."""
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
        assert sorted(observer.told) == expected
    assert settle(TIMEOUT_S)


def test_no_caller_runs_observers(disk: SimulatedDisk) -> None:
    """Waiters commit and callers compact in their own threads, and the engine's report it: what a
    signal handler raises in a caller's thread is never taken for an observer's error."""

    class Noting:
        def __init__(self) -> None:
            self.told: list[tuple[str, int]] = []

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_: self.told.append((name, threading.get_ident()))

    observer = Noting()
    with open_on(disk) as journal:
        journal.observe(observer)
        for n in range(20):
            journal.wait_durable(journal.append(n))  # without a timeout: the waiter commits
        journal.compact(frozen(journal, "state")).close()
    assert {name for name, _ in observer.told} == {"committed", "compacted"}
    assert threading.get_ident() not in {thread for _, thread in observer.told}


# --- gates and threads ---


def test_a_runtime_error_of_a_signal_handler_in_a_wait_is_the_handlers(
    disk: SimulatedDisk,
) -> None:
    """P2: a waiter behind another's commit is struck; what struck it comes out of the wait."""
    for opened in (False, True):
        gate = Gate()
        turnstile = gate._turnstile

        class Struck:
            """The turnstile, in which a signal handler raises."""

            def __enter__(self) -> None:
                if opened:  # noqa: B023
                    turnstile.__enter__()  # noqa: B023

            def __exit__(self, *_: object) -> None:
                raise RuntimeError("took too long")

        if opened:
            gate.open()
        gate._turnstile = Struck()  # type: ignore[assignment]
        with pytest.raises(RuntimeError, match="took too long"):
            gate.wait()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_flusher_that_ends_for_no_known_reason_is_a_failure(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread of the engine ends without the journal having failed or closed: even if recording
    a failure fails."""
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


def test_a_closed_event_loop_harms_no_other_waiter(disk: SimulatedDisk) -> None:
    """A loop that is closed while it waits is passed over; threads and other loops are woken."""
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
            until(lambda: len(_gate_at_work(journal)._loops) == 2, "both loops wait")
            with suppress(RuntimeError):
                task.cancel()
            loop.close()
            held.release_all()
        first.result(TIMEOUT_S)
        second.result(TIMEOUT_S)
        del task


def _gate_at_work(journal: Journal) -> Gate:
    batch = journal._turn._committing
    assert batch is not None
    assert batch.gate is not None
    return batch.gate


# --- signal handlers ---


@pytest.mark.parametrize("interrupted", ["append", "commit"])
def test_a_handler_does_not_wait_for_a_compaction_that_waits_for_its_thread(
    disk: SimulatedDisk, interrupted: str
) -> None:
    """A compaction needs the log buffer's lock and commits. On top of a call that holds the lock or
    commits, `compact` is refused, instead of waiting for a compaction in another thread."""
    began, over = threading.Event(), threading.Event()

    def freeze() -> NoReturn:
        began.set()
        over.wait(5)  # only if `compact` waits, which ends then
        raise ZeroDivisionError

    def handler(*_: object) -> None:
        disk.before = None
        with pytest.raises(InterruptedCallError):
            journal.compact(lambda: pytest.fail("it waited for the other compaction"))

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


# --- a state machine's own code ---


def test_a_wait_inside_a_callback_is_refused(disk: SimulatedDisk) -> None:
    """`wait_durable` and the like inside `decide` would wait under the owner's lock: refused, and
    nothing has changed."""
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


def test_a_state_alone_appends_to_its_journal(disk: SimulatedDisk) -> None:
    """P6: what the machine would never see is refused, and nothing is appended."""
    with DurableState.open(PATH, Table(), options=options(), disk=disk) as state:
        with pytest.raises(JournalError, match="use update or update_batch"):
            state.journal.append(["a", 1])
        with pytest.raises(JournalError, match="use update or update_batch"):
            state.journal.append_batch([["a", 1]], urgent=True)
        assert state.journal.last_lsn == 0
