"""Failed compactions are visible in the statistics, to observers, and in the log."""

from __future__ import annotations

import errno
import gc
import logging
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from journal import ClosedError, CowTable, DurableState, InterruptedCallError, Journal
from journal._log import settle
from journal.testing import SimulatedDisk
from tests.engine.compaction_support import FailsOnce, RecordingObserver, open_small, raising, small
from tests.engine.state_support import len_of_rows, state_on
from tests.engine.state_support import put as put_row
from tests.support import (
    PATH,
    TIMEOUT_S,
    Table,
    frozen,
    open_on,
    put,
    put_lines,
    until,
)

# --- statistics and observers ---


@pytest.mark.usefixtures("impatient")
def test_a_failed_compaction_is_counted(disk: SimulatedDisk) -> None:
    """Failed attempts of the thread and failed attempts by hand count alike. The text of the last
    error stays after a compaction succeeds."""
    with open_small(disk) as journal:
        put(journal, 1)
        with pytest.raises(ZeroDivisionError):
            journal.compact(raising(ZeroDivisionError("by hand")))
        stats = journal.stats()
        assert stats.compaction_failures == 1
        assert stats.last_compaction_error == "ZeroDivisionError: by hand"
        journal.start_compaction(FailsOnce(journal, KeyError("gone")))
        put_lines(journal, 8, size=700)
        until(lambda: journal.stats().compactions == 1, "the second attempt of the thread")
        stats = journal.stats()
    assert stats.compaction_failures == 2
    assert stats.last_compaction_error == "KeyError: 'gone'"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit(), "SystemExit"),
        (ValueError("a\nb"), "ValueError: a\nb"),
        (OSError(errno.EIO, "I/O error", "/x"), "OSError: [Errno 5] I/O error: '/x'"),
    ],
    ids=["no_text", "two_lines", "with_path"],
)
def test_the_text_of_the_last_error_is_never_empty(
    disk: SimulatedDisk, error: BaseException, text: str
) -> None:
    """The text begins with the error's type, so that an error without a message is not taken for
    none."""
    with open_on(disk) as journal:
        with pytest.raises(type(error)):
            journal.compact(raising(error))
        assert journal.stats().last_compaction_error == text


def test_an_error_without_a_text_is_counted(disk: SimulatedDisk, impatient: None) -> None:
    """An error of the owner is counted even if its `__str__`, which is the owner's code, raises."""

    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise SystemExit

    with open_small(disk) as journal:
        journal.start_compaction(FailsOnce(journal, Mute()))
        put_lines(journal, 8, size=700)
        until(lambda: journal.stats().compactions == 1, "the second attempt")
        assert journal.stats().last_compaction_error == "Mute"


def test_a_failure_keeps_nothing_alive(disk: SimulatedDisk) -> None:
    """Statistics keep the error's text only: its traceback's frames would keep the owner's state
    alive."""

    class State:
        def freeze(self) -> tuple[int, Iterable[Any]]:
            raise ZeroDivisionError("the owner's own")

    state = State()
    gone = weakref.ref(state)
    observer = RecordingObserver()
    with open_on(disk) as journal:
        journal.observe(observer)
        with pytest.raises(ZeroDivisionError):
            journal.compact(state.freeze)
        del state
        gc.collect()
        assert gone() is None
    assert observer.failures == ['ZeroDivisionError("the owner\'s own")']


def test_a_compaction_that_close_abandons_is_no_failure(
    disk: SimulatedDisk, engine_log: list[logging.LogRecord]
) -> None:
    """A close during a compaction, by hand or in the thread, logs nothing and counts no failure."""
    reached, observer = threading.Event(), RecordingObserver()

    def items() -> Iterator[int]:
        reached.set()
        while True:
            yield 1

    journal = open_small(disk)
    journal.observe(observer)
    journal.start_compaction(lambda: (journal.last_lsn, items()))
    put_lines(journal, 8, size=700)
    assert reached.wait(TIMEOUT_S)
    journal.close(timeout_s=TIMEOUT_S)
    assert settle(TIMEOUT_S)
    stats = journal.stats()
    assert (stats.compaction_failures, stats.last_compaction_error) == (0, "")
    assert (observer.failures, engine_log) == ([], [])


def test_a_freeze_that_stays_closed_is_a_failure(disk: SimulatedDisk, impatient: None) -> None:
    """A first ClosedError may mean that the journal is about to close. A second one in an open
    journal means that something that `freeze` needs is closed, and is a failure."""
    with open_small(disk) as journal:
        journal.start_compaction(raising(ClosedError("the state was dropped")))
        put_lines(journal, 8, size=700)
        until(lambda: journal.stats().compaction_failures, "the second attempt")
        assert journal.stats().last_compaction_error == "ClosedError: the state was dropped"


def test_a_freeze_that_calls_its_own_state_is_a_failure(
    disk: SimulatedDisk, impatient: None, engine_log: list[logging.LogRecord]
) -> None:
    """A freeze that is refused, because it calls its own state, is counted, reported and logged."""
    observer = RecordingObserver()

    class CallsItself(Table):
        def freeze(self) -> list[Any]:
            return [state.read(len_of_rows)]

    with state_on(disk, CallsItself(), checkpoint_min_bytes=4000) as state:
        state.journal.observe(observer)
        for number in range(20):
            put_row(state, f"{number}", "x" * 700)
        until(lambda: observer.failures, "a failure")
        assert state.stats().last_compaction_error.startswith("InterruptedCallError")
    assert settle(TIMEOUT_S)
    assert "a compaction failed: InterruptedCallError" in engine_log[0].getMessage()


def test_a_refused_compaction_is_no_failure(disk: SimulatedDisk) -> None:
    """A compaction within another one of the same thread is refused, and counts as none."""
    with open_on(disk) as journal:

        def freeze() -> tuple[int, list[Any]]:
            with pytest.raises(InterruptedCallError):
                journal.compact(freeze)
            return journal.last_lsn, []

        put(journal, 1)
        journal.compact(freeze).close()
        assert (journal.stats().compactions, journal.stats().compaction_failures) == (1, 0)


def test_a_successful_compaction_reports_no_failure(disk: SimulatedDisk) -> None:
    """A compaction that succeeds counts as a success only."""
    observer = RecordingObserver()
    with open_on(disk) as journal:
        journal.observe(observer)
        put(journal, 1)
        journal.compact(frozen(journal, 1)).close()
        stats = journal.stats()
    assert (stats.compactions, stats.compaction_failures) == (1, 0)
    assert (observer.compactions, observer.failures) == (1, [])


# --- log messages ---


def test_a_warning_names_error_journal_and_remedy(
    disk: SimulatedDisk, impatient: None, engine_log: list[logging.LogRecord]
) -> None:
    """The message names the journal, the error, and what to do. The owner's error comes with its
    traceback."""
    with open_small(disk) as journal:
        journal.start_compaction(FailsOnce(journal, LookupError("no such user")))
        put_lines(journal, 8, size=700)
        until(lambda: journal.stats().compactions == 1, "the second attempt")
    assert settle(TIMEOUT_S)
    (record,) = engine_log
    assert (record.levelname, record.threadName) == ("WARNING", "journal-reporter")
    message = record.getMessage()
    assert message.startswith(f"{PATH}: a compaction failed: LookupError: no such user. ")
    assert "the next attempt is in 0.001 s" in message
    assert "Fix `freeze`" in message
    assert record.exc_info
    assert isinstance(record.exc_info[1], LookupError)


def test_a_disk_error_is_logged_without_a_traceback(
    disk: SimulatedDisk, impatient: None, engine_log: list[logging.LogRecord]
) -> None:
    """The message of a disk error names the file. A traceback of the engine's frames would not
    help."""
    observer = RecordingObserver()
    with open_small(disk) as journal:
        journal.observe(observer)
        disk.fail("write", errno.ENOSPC, path=".json.tmp")
        journal.start_compaction(frozen(journal, "state"))
        put_lines(journal, 8, size=700)
        until(lambda: journal.stats().compactions == 1, "the second attempt")
        assert journal.stats().compaction_failures == 1
    assert settle(TIMEOUT_S)
    (record,) = engine_log
    assert "ENOSPC" in record.getMessage()
    assert ".json.tmp" in record.getMessage()
    assert "Check the disk" in record.getMessage()
    assert not record.exc_info
    assert len(observer.failures) == 1


def test_a_stopped_state_must_be_reopened(
    disk: SimulatedDisk, engine_log: list[logging.LogRecord]
) -> None:
    """A state whose `apply` raised can't be frozen until it is reopened, so the message does not
    promise a next attempt."""

    class Stopping:
        application = "stopping/1"

        def __init__(self) -> None:
            self.table: CowTable[int, Any] = CowTable()

        def load(self, item: Any) -> None: ...
        def apply(self, lsn: int, record: Any) -> None:
            if record == "bad":
                raise ZeroDivisionError("the machine's own")

        def freeze(self) -> Iterable[Any]:
            return []

    with DurableState.open(PATH, Stopping(), options=small(), disk=disk) as state:
        with pytest.raises(ZeroDivisionError):
            state.update(lambda _: "bad")
        for _ in range(8):  # append without the state machine
            state.journal.wait_durable(Journal.append(state.journal, "x" * 700))
        until(lambda: state.journal.stats().compaction_failures, "the attempt")
    assert settle(TIMEOUT_S)
    (message,) = [r.getMessage() for r in engine_log if "a compaction failed" in r.getMessage()]
    assert "FailedError" in message
    assert message.endswith("Close the journal, fix the cause, and reopen it")
    assert "next attempt" not in message
