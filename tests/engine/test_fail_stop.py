"""Fail-stop: the consequences of a failed sync, a failed write or a deleted file."""

from __future__ import annotations

import asyncio
import errno
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

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
    IdleObserver,
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
    """P9: Waiters don't wait for files to be closed, which may take forever on a broken disk."""
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
@pytest.mark.parametrize("without_limit", [True, False], ids=["no limit", "limit"])
def test_a_disk_error_stops_the_journal(
    disk: SimulatedDisk, operation: Operation, path: str, code: int, roll: bool, without_limit: bool
) -> None:
    """P2: After a disk error, the durable LSN no longer changes. Every waiter and every later call
    raises FailedError, with the OSError as its cause and the file named, and changes nothing.
    Nothing is retried. A reopening recovers everything that was acknowledged, and continues."""
    journal = open_on(disk)
    put_lines(journal, 4, size=900)
    disk.fail(operation, code, path=path)
    lsn = journal.append("x" * 900 if roll else "x")
    with pytest.raises(FailedError) as caught:
        journal.wait_durable(lsn, timeout_s=None if without_limit else TIMEOUT_S)
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == code
    assert errno.errorcode[code] in str(caught.value)
    assert PATH in str(caught.value)
    assert "fix the cause, and reopen it" in str(caught.value)
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
    records = reopened(disk)
    assert [record[0] for record in records[:4]] == [1, 2, 3, 4]
    assert records[-1] == "on"


def test_a_failed_mark_loses_no_durable_record(disk: SimulatedDisk) -> None:
    """P2: The mark of an idle log may be the first write that fails. Then later appends fail, and
    the durable records stay durable."""
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
    """On a full disk, the mark is skipped, and the journal continues."""
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


@pytest.mark.parametrize("error", [RuntimeError("bug"), MemoryError(), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("operation", ["write", "sync"])
def test_an_unforeseen_exception_is_fail_stop(
    disk: SimulatedDisk, error: BaseException, operation: Operation
) -> None:
    """An unforeseen exception in a commit, in any thread, is fail-stop, with that exception as the
    cause."""
    with suppress(FailedError), open_on(disk) as journal:
        put(journal, 1)

        def before(called: Operation, path: str) -> None:
            if called == operation:
                raise error

        disk.before = before
        lsn = journal.append(2)
        words = re.escape(str(error) or repr(error))
        with pytest.raises(FailedError, match=f"stopped: {words}; ") as caught:
            journal.wait_durable(lsn, timeout_s=TIMEOUT_S)
        assert caught.value.__cause__ is error
        disk.before = None
        with pytest.raises(FailedError):
            journal.append(3)
    assert reopened(disk)[:1] == [1]


def test_a_failure_is_logged_and_observed(
    disk: SimulatedDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """Fail-stop logs one error and calls each observer once, and an observer may raise."""
    observed: list[str] = []

    class RecordingObserver(IdleObserver):
        def failed(self, error: BaseException) -> None:
            observed.append(str(error))
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
    assert len(observed) == 2
    assert "EIO" in observed[0]


def test_after_a_failed_sync_recovery_does_not_trust_the_cache(disk: SimulatedDisk) -> None:
    """P2: The next opening doesn't read records from the cache that a failed sync left there, clean
    but not written: a power cut would remove them from the middle of the log."""
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


def test_recovery_syncs_files_before_it_reads_them(disk: SimulatedDisk) -> None:
    """P2: Readable bytes may be in memory only, so each opening syncs the directory and the last
    segment before it reads anything."""
    journal = open_on(disk)
    put_lines(journal, 5, size=900)
    journal.compact(frozen(journal, 1))
    crash(journal, disk)
    watched = Watched(disk)
    open_on(disk).close()
    first_read = watched.calls.index(next(call for call in watched.calls if call[0] == "read"))
    synced = [call for call in watched.calls[:first_read] if call[0].startswith("sync")]
    assert synced == [("sync_directory", PATH), ("sync", f"{PATH}/{names(disk, '.seg')[-1]}")]
