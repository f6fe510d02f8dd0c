"""Fail-stop: what a failed sync or write and a deleted file lead to."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from journal import FailedError, Journal
from journal._commit.writer import Writer
from journal._log import settle
from journal.testing import SimulatedDisk, lose
from journal.testing.disk import Operation
from tests.support import (
    FIRST,
    PATH,
    TIMEOUT_S,
    Watched,
    crash,
    frozen,
    logged,
    names,
    on_disk,
    open_on,
    put,
    put_lines,
    reopened,
    until,
)

# --- fail-stop ---


FATAL: list[tuple[Operation, str, int]] = [
    ("write", FIRST, errno.EIO),
    ("write", FIRST, errno.EROFS),
    ("write", FIRST, errno.ENOENT),
    ("write", FIRST, errno.EBADF),
    ("sync", FIRST, errno.EIO),
    ("sync", FIRST, errno.ENOSPC),
    ("sync", FIRST, errno.EDQUOT),
    ("is_linked", FIRST, errno.EIO),
]


FATAL_AT_A_ROLL: list[tuple[Operation, str, int]] = [
    ("sync", FIRST, errno.EIO),
    ("names", PATH, errno.EIO),
    ("create", ".tmp", errno.EIO),
    ("create", ".tmp", errno.EACCES),
    ("write", ".seg.tmp", errno.EIO),
    ("write", ".seg.tmp", errno.EROFS),
    ("sync", ".seg.tmp", errno.EIO),
    ("rename", ".seg", errno.EIO),
    ("sync_directory", PATH, errno.EIO),
    ("sync_directory", PATH, errno.ENOSPC),
]


def test_waiters_are_released_before_the_files_are_closed(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: on a disk that is broken even closing a file may take for ever."""
    may_close = threading.Event()
    release = Writer.release

    def stuck(writer: Writer) -> None:
        may_close.wait(TIMEOUT_S)
        release(writer)

    with suppress(FailedError), open_on(disk) as journal:
        put(journal, 1)
        monkeypatch.setattr(Writer, "release", stuck)
        disk.fail("sync", errno.EIO, path=FIRST)
        try:
            lsn = journal.append(2)
            with pytest.raises(FailedError):
                journal.wait_durable(lsn, timeout_s=TIMEOUT_S / 2)
        finally:
            may_close.set()


def calls_after_failure(journal: Journal) -> Iterator[Callable[[], object]]:
    yield lambda: journal.append(1)
    yield lambda: journal.append(1, urgent=True)
    yield lambda: journal.append_batch([1])
    yield lambda: journal.wait_durable()
    yield lambda: journal.wait_durable(timeout_s=1)
    yield lambda: asyncio.run(journal.durable())
    yield lambda: journal.wait_room()
    yield lambda: asyncio.run(journal.room())
    yield lambda: journal.replay()
    yield lambda: journal.compact(frozen(journal))
    yield lambda: journal.start_compaction(frozen(journal))
    yield lambda: journal.backup("/copy")


@pytest.mark.parametrize(
    ("operation", "path", "code", "roll"),
    [(*fault, False) for fault in FATAL] + [(*fault, True) for fault in FATAL_AT_A_ROLL],
)
@pytest.mark.parametrize("here", [True, False], ids=["no limit", "limit"])
def test_a_broken_disk_stops_the_journal(
    disk: SimulatedDisk, operation: Operation, path: str, code: int, roll: bool, here: bool
) -> None:
    """P2: the durable LSN is frozen; every waiter and later call raises FailedError, with the
    OSError as cause and the file named, before it changes anything; nothing is tried again; and a
    reopening recovers all that was acknowledged, and goes on."""
    journal = open_on(disk)
    put_lines(journal, 4, size=900)
    disk.fail(operation, code, path=path)
    lsn = journal.append("x" * 900 if roll else "x")
    with pytest.raises(FailedError) as caught:
        journal.wait_durable(lsn, timeout_s=None if here else TIMEOUT_S)
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == code
    assert errno.errorcode[code] in str(caught.value)
    assert PATH in str(caught.value)
    assert "close it, fix the cause, and reopen it" in str(caught.value)
    watched = Watched(disk)
    for call in calls_after_failure(journal):
        with pytest.raises(FailedError):
            call()
    assert (journal.last_lsn, journal.durable_lsn) == (5, 4)
    assert journal.stats().durable_lsn == 4
    with pytest.raises(FailedError):
        journal.close(timeout_s=TIMEOUT_S)
    assert not {"write", "sync", "rename", "sync_directory"} & {
        operation for operation, path in watched.calls if "LOCK" not in path
    }
    disk.before = None
    assert names(disk, ".tmp") == []
    disk.power_cut(lose)
    with open_on(disk) as journal:
        assert len(logged(journal)) >= 4
        put(journal, "on")
    found = reopened(disk)
    assert [record[0] for record in found[:4]] == [1, 2, 3, 4]
    assert found[-1] == "on"


def test_a_failure_of_the_mark_costs_nothing_durable(disk: SimulatedDisk) -> None:
    """P2: the idle mark may meet the broken disk first: then what comes next fails."""
    journal = open_on(disk)
    put(journal, 1)
    disk.fail("write", errno.EIO, path=FIRST, times=None)

    def failed() -> bool:
        with suppress(FailedError):
            journal.check()
            return False
        return True

    until(failed, "the mark's failure")
    with pytest.raises(FailedError):
        journal.append(2)
    journal.wait_durable()
    journal.close()
    disk.before = None
    assert reopened(disk) == [1]


def test_no_space_for_the_mark_is_no_failure(disk: SimulatedDisk) -> None:
    """A mark that a full disk refuses is left out."""
    with open_on(disk) as journal:
        put(journal, 1)
        watched = []

        def full(operation: Operation, path: str) -> None:
            if operation == "write":
                watched.append(path)
                raise OSError(errno.ENOSPC, "full", path)

        disk.before = full
        until(lambda: watched, "the mark")
        disk.before = None
        put(journal, 2)
    assert on_disk(disk) == [1, 2] == reopened(disk)


@pytest.mark.parametrize(
    "error", [RuntimeError("bug"), MemoryError("none"), SystemExit(3)], ids=repr
)
@pytest.mark.parametrize("operation", ["write", "sync"])
def test_no_thread_dies_in_silence(
    disk: SimulatedDisk, error: BaseException, operation: Operation
) -> None:
    """An exception that nobody foresaw, wherever the commit runs, is fail-stop with it as cause."""
    with suppress(FailedError), open_on(disk) as journal:
        put(journal, 1)

        def before(called: Operation, path: str) -> None:
            if called == operation:
                raise error

        disk.before = before
        lsn = journal.append(2)
        with pytest.raises(FailedError, match=str(error)) as caught:
            journal.wait_durable(lsn, timeout_s=TIMEOUT_S)
        assert caught.value.__cause__ is error
        disk.before = None
        with pytest.raises(FailedError):
            journal.append(3)
    assert reopened(disk)[:1] == [1]


def test_a_failure_is_logged_and_observed(
    disk: SimulatedDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """Fail-stop is one error in the log, and one call of each observer; one may raise."""
    told: list[str] = []

    class RecordingObserver:
        def committed(self, records: int, size_bytes: int, sync_ns: int) -> None: ...
        def compacted(self, *_: Any) -> None: ...
        def compaction_failed(self, error: BaseException) -> None: ...
        def stalled(self, error: OSError) -> None: ...
        def failed(self, error: BaseException) -> None:
            told.append(str(error))
            raise ValueError("the observer's own")

    with suppress(FailedError), open_on(disk) as journal:
        journal.observe(RecordingObserver())
        journal.observe(RecordingObserver())
        put(journal, 1)
        disk.fail("sync", errno.EIO)
        journal.append(2)
        with pytest.raises(FailedError):
            journal.wait_durable()
    assert settle(TIMEOUT_S)
    messages = [record.getMessage() for record in caplog.records]
    assert sum("the journal stopped" in message for message in messages) == 1
    assert len(told) == 2
    assert "EIO" in told[0]


def test_after_a_failed_sync_only_the_disk_is_believed(disk: SimulatedDisk) -> None:
    """P2: what a failed sync left in the cache, clean and never written, is not there for the next
    opening, or it would go on behind records that a power cut then takes away."""
    journal = open_on(disk)
    put(journal, 1)
    disk.fail("sync", errno.EIO)
    journal.append(2)
    with pytest.raises(FailedError):
        journal.wait_durable()
    crash(journal, disk)
    with open_on(disk) as journal:
        assert logged(journal) == [1]
        put(journal, "another 2")
    disk.power_cut(lose)
    assert reopened(disk) == [1, "another 2"]


def test_recovery_syncs_what_it_is_about_to_trust(disk: SimulatedDisk) -> None:
    """P2: what can be read may stand in memory only: directory and last segment are synced before
    anything is read, by each opening."""
    journal = open_on(disk)
    put_lines(journal, 5, size=900)
    journal.compact(frozen(journal, 1))
    crash(journal, disk)
    watched = Watched(disk)
    open_on(disk).close()
    first_read = watched.calls.index(next(call for call in watched.calls if call[0] == "read"))
    synced = [call for call in watched.calls[:first_read] if call[0].startswith("sync")]
    assert synced == [("sync_directory", PATH), ("sync", f"{PATH}/{names(disk, '.seg')[-1]}")]
