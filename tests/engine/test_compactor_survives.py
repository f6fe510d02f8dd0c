"""Foreign code does not end the compactor's thread: the owner's, an observer's or a log
handler's."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from journal import Journal
from journal._engine import compaction_schedule
from journal._engine.compaction_schedule import CompactionSchedule
from journal._engine.compactor import Compactor
from journal._log import settle
from journal.testing import SimulatedDisk
from journal.testing.disk import Operation
from tests.engine.compaction_support import FailsOnce, RecordingObserver, open_small, raising
from tests.support import TIMEOUT_S, frozen, put_lines, until

ENDING = (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, MemoryError)


def failing_midway(journal: Journal, error: BaseException) -> Callable[[], Any]:
    def items() -> Iterator[int]:
        yield from range(3)
        raise error

    return lambda: (journal.last_lsn, items())


@pytest.mark.parametrize("midway", [False, True], ids=["freeze", "items"])
@pytest.mark.parametrize("error", ENDING)
def test_the_thread_survives_every_error_of_an_owner(
    disk: SimulatedDisk, impatient: None, error: type[BaseException], midway: bool
) -> None:
    """P8: The thread ends only when the journal stops, and a failed attempt is reported like any
    other."""
    observer, freezes = RecordingObserver(), [0]
    with open_small(disk) as journal:
        journal.observe(observer)
        failing = failing_midway(journal, error()) if midway else raising(error())

        def freeze() -> Any:
            freezes[0] += 1
            return failing() if freezes[0] == 1 else (journal.last_lsn, ["good"])

        journal.start_compaction(freeze)
        put_lines(journal, 8, size=700)
        until(lambda: journal.stats().compactions == 1, "the second attempt")
        assert journal.stats().compaction_failures == 1
        journal.wait_room(timeout_s=TIMEOUT_S)
    assert len(observer.failures) == 1


@pytest.mark.parametrize("error", ENDING)
def test_the_thread_survives_every_error_of_an_observer(
    disk: SimulatedDisk, impatient: None, error: type[BaseException]
) -> None:
    """P8: An observer that raises from `compaction_failed` is skipped."""

    class Raising(RecordingObserver):
        def compaction_failed(self, _: BaseException) -> None:
            super().compaction_failed(_)
            raise error

    observer = Raising()
    with open_small(disk) as journal:
        journal.observe(observer)
        journal.start_compaction(FailsOnce(journal, ZeroDivisionError()))
        put_lines(journal, 8, size=700)
        until(lambda: journal.stats().compactions == 1, "the second attempt")
        assert journal.stats().compaction_failures == 1
    assert observer.failures == ["ZeroDivisionError()"]


class Raising(logging.Filter):
    """A log filter that reads an unset ContextVar, as filters for request ids may, or that raises
    another error."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self._error = error
        self._request_id: ContextVar[str] = ContextVar("request_id")
        self.calls = 0

    def filter(self, record: logging.LogRecord) -> bool:
        self.calls += 1
        if self._error is LookupError:
            self._request_id.get()
        raise self._error


@pytest.mark.parametrize("error", [LookupError, *ENDING])
def test_the_thread_survives_a_log_filter_that_raises(
    disk: SimulatedDisk, impatient: None, error: type[BaseException]
) -> None:
    """P8: A log filter that raises does not prevent the next compaction."""
    log, raising_filter = logging.getLogger("journal"), Raising(error)
    log.addFilter(raising_filter)
    try:
        with open_small(disk) as journal:
            journal.start_compaction(FailsOnce(journal, ZeroDivisionError("the owner's own")))
            put_lines(journal, 8, size=700)
            until(lambda: journal.stats().compactions == 1, "the second attempt")
            assert not journal._core.compactor.join(0)
        assert settle(TIMEOUT_S)
    finally:
        log.removeFilter(raising_filter)
    assert raising_filter.calls == 1


def test_a_hanging_log_handler_holds_up_no_work(disk: SimulatedDisk, impatient: None) -> None:
    """P8: A log handler that hangs holds up no compaction, no update that waits for room, and no
    close."""
    reached, may_go = threading.Event(), threading.Event()

    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reached.set()
            may_go.wait(TIMEOUT_S)

    log, handler = logging.getLogger("journal"), Stuck()
    log.addHandler(handler)
    try:
        with open_small(disk) as journal:
            journal.start_compaction(FailsOnce(journal, ZeroDivisionError("the owner's own")))
            put_lines(journal, 8, size=700)
            assert reached.wait(TIMEOUT_S)
            until(lambda: journal.stats().compactions == 1, "the second attempt")
            journal.wait_room(timeout_s=TIMEOUT_S)
            journal.close(timeout_s=TIMEOUT_S)
        assert not may_go.is_set()
    finally:
        may_go.set()
        log.removeHandler(handler)
    assert settle(TIMEOUT_S)


def test_waiters_are_released_before_foreign_code_runs(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: Updates have room as soon as an attempt has failed, before the error's `__str__` and the
    observers run, which may take any time."""
    monkeypatch.setattr(compaction_schedule, "_BACKOFF_S_MIN", 3600.0)
    monkeypatch.setattr(compaction_schedule, "_BACKOFF_S_MAX", 3600.0)
    may_fail, may_go = threading.Event(), threading.Event()

    class Slow(Exception):  # noqa: N818
        def __str__(self) -> str:
            may_go.wait(2 * TIMEOUT_S)  # longer than any wait for room below
            return "slow"

    def freeze() -> Any:
        may_fail.wait(TIMEOUT_S)
        raise Slow

    with open_small(disk) as journal:
        journal.start_compaction(freeze)
        put_lines(journal, 8, size=700)
        with pytest.raises(TimeoutError, match="no room"):
            journal.wait_room(timeout_s=0.01)
        may_fail.set()
        try:
            journal.wait_room(timeout_s=TIMEOUT_S)
        finally:
            may_go.set()
        until(lambda: journal.stats().compaction_failures, "the attempt is counted")


def test_a_retry_removes_covered_files(disk: SimulatedDisk, impatient: None) -> None:
    """P8: An attempt that fails after its checkpoint was published is repeated after the back-off,
    and not only when the log has grown again."""
    with open_small(disk) as journal:
        failures = itertools.count()

        def before(operation: Operation, path: str) -> None:
            is_compactor = threading.current_thread().name == "journal-compactor"
            if operation == "names" and is_compactor and next(failures) < 2:
                raise OSError(errno.EIO, "I/O error", path)

        disk.before = before
        journal.start_compaction(frozen(journal, "state"))
        put_lines(journal, 8, size=700)
        until(lambda: journal.stats().compactions == 1, "the third attempt")
        assert journal.stats().compaction_failures == 2


def test_a_retry_does_not_hold_updates(disk: SimulatedDisk, impatient: None) -> None:
    """P8: Updates don't wait for a retry, however far it lags behind the log."""
    reached, may_go = threading.Event(), threading.Event()

    def items() -> Iterator[str]:
        reached.set()
        assert may_go.wait(TIMEOUT_S)
        yield "state"

    with open_small(disk) as journal:
        first = FailsOnce(journal, ZeroDivisionError())

        def freeze() -> Any:
            first()
            return journal.last_lsn, items()

        journal.start_compaction(freeze)
        put_lines(journal, 8, size=700)
        assert reached.wait(TIMEOUT_S)
        put_lines(journal, 8, size=700)
        assert journal.has_room
        may_go.set()
        until(lambda: journal.stats().compactions, "the second attempt")


@pytest.mark.parametrize(
    ("owner", "broken"),
    [
        (CompactionSchedule, "hold_bytes"),
        (CompactionSchedule, "due_bytes"),
        (Compactor, "_wait_until_due"),
    ],
)
def test_a_defect_of_the_loop_is_retried(
    disk: SimulatedDisk,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
    engine_log: list[logging.LogRecord],
    owner: type,
    broken: str,
) -> None:
    """P8: A defect of the thread's own loop is reported, backed off from and retried, and the log
    continues."""
    calls, original = [0], getattr(owner, broken)
    is_property = isinstance(original, property)

    def breaks(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == 1:
            raise MemoryError("unforeseen")
        bound = original.__get__(self)
        return bound if is_property else bound(*args, **kwargs)

    with open_small(disk) as journal:
        monkeypatch.setattr(owner, broken, property(breaks) if is_property else breaks)
        journal.start_compaction(frozen(journal, "state"))
        until(lambda: journal.stats().compaction_failures == 1, "the failure")
        put_lines(journal, 8, size=700)
        until(lambda: journal.stats().compactions == 1, "the compaction")
        assert journal.stats().last_compaction_error == "MemoryError: unforeseen"
    assert settle(TIMEOUT_S)
    assert [record.levelname for record in engine_log] == ["WARNING"]


def test_a_loop_that_keeps_breaking_does_not_spin(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread backs off as after a failed compaction, and close does not wait for the
    back-off."""

    def breaks(*_: Any, **__: Any) -> None:
        raise MemoryError("unforeseen")

    with open_small(disk) as journal:
        monkeypatch.setattr(Compactor, "_wait_until_due", breaks)
        journal.start_compaction(frozen(journal, "state"))
        until(lambda: journal.stats().compaction_failures == 1, "the first failure")
        put_lines(journal, 8, size=700)
        journal.wait_room(timeout_s=TIMEOUT_S)
        assert journal.stats().compaction_failures == 1
        journal.close(timeout_s=TIMEOUT_S)
