"""A disk that fails under a live writer: read-only, aborted by ext4, without power, or with I/O
errors. The disk is a small real ext4, which is then mounted again.

    JOURNAL_KERNEL_CYCLES=1000 python -m pytest tests/kernel/test_kernel_outage.py -k power  a soak
"""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

import pytest

from journal import ClosedError, DurableState, FailedError, Journal, JournalReader
from journal._disk import posix_file
from journal._format.layout import FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES
from tests.kernel.kernel_disk import BLOCK_BYTES, KIB, SmallDisk, ThinDisk
from tests.kernel.lazy_fs_writer import batch_after, open_checked
from tests.support import TIMEOUT_S, Table, logged, options, put, sized

CYCLES = int(os.environ.get("JOURNAL_KERNEL_CYCLES", "10"))
THREADS = 3


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path) as disk:
        yield disk


class Owners:
    """Threads that append and wait, and one that compacts, until the journal fails.

    They are a context manager, and stop at its end in any case.
    """

    def __init__(self, state: DurableState[Table], durability: Literal["disk", "os"]) -> None:
        self._state = state
        self._durability = durability
        self._acknowledged: list[int] = [state.journal.last_lsn]
        self._appended = threading.Semaphore(0)
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(THREADS + 1)
        self._waiters = [self._pool.submit(self._append) for _ in range(THREADS)]
        self._compactor = self._pool.submit(self._compact)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._pool.shutdown()

    def _append(self) -> None:
        state = self._state
        while not self._stopping.is_set():
            lsn = state.update_batch(lambda _: batch_after(state.journal.last_lsn))
            assert lsn is not None
            state.wait_durable(lsn, timeout_s=random.choice([None, TIMEOUT_S]))
            safe_lsn = lsn if self._durability == "disk" else state.stats().synced_lsn
            self._acknowledged.append(safe_lsn)
            self._appended.release()

    def _compact(self) -> None:
        while not self._stopping.is_set():
            with suppress(OSError):
                self._state.compact().close()
            time.sleep(0.002)

    def wait_appended(self, times: int) -> None:
        for _ in range(times):
            assert self._appended.acquire(timeout=TIMEOUT_S)

    @property
    def safe_lsn(self) -> int:
        """The highest LSN that was acknowledged as safe from a power cut."""
        return max(self._acknowledged)

    def check_all_failed(self) -> None:
        """Check P2: each thread gets FailedError, none hangs, and the durable LSN stays."""
        for waiter in self._waiters:
            assert isinstance(waiter.exception(TIMEOUT_S), FailedError)
        # A compaction under way is abandoned, as at a close.
        assert isinstance(self._compactor.exception(TIMEOUT_S), (FailedError, ClosedError))
        journal = self._state.journal
        frozen_lsn = journal.durable_lsn
        with pytest.raises(FailedError):
            self._state.update(lambda _: ["k", 1])
        with suppress(FailedError):
            self._state.close(timeout_s=TIMEOUT_S)
        assert journal.durable_lsn == frozen_lsn >= self.safe_lsn


def check_reopened(path: Path, durability: Literal["disk", "os"], safe_lsn: int) -> None:
    """Check P1 to P6: the journal opens, has everything that was safe, and can continue."""
    with JournalReader.open(path) as reader:
        assert {finding.kind for finding in reader.verify()} <= {"torn_tail", "stray"}
    with open_checked(path, durability) as state:
        assert state.journal.last_lsn >= safe_lsn
        state.update_batch(lambda _: batch_after(state.journal.last_lsn))


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["disk", "os"])
def test_power_cuts_lose_nothing_safe(disk: SmallDisk, durability: Literal["disk", "os"]) -> None:
    """P1 to P6: After any power cut and ext4's recovery, the journal has everything that was safe.

    The same journal goes through all power cuts.
    """
    path = disk.path / "j"
    disk.cut_power()  # skips the test if it is not possible
    disk.remount()
    for _ in range(CYCLES):
        with Owners(open_checked(path, durability), durability) as owners:
            owners.wait_appended(random.randrange(1, 60))
            # A sync that is under way when ext4 is shut down may still return success.
            safe_lsn = owners.safe_lsn
            disk.cut_power()
            owners.check_all_failed()
        disk.remount()
        check_reopened(path, durability, safe_lsn)


def test_an_ext4_error_stops_the_journal(disk: SmallDisk) -> None:
    """P2: If an ext4 error makes the disk read-only, the journal stops and all waiters get an
    error.

    It can then be read but not opened. After a remount, it is complete.
    """
    path = disk.path / "j"
    with Owners(open_checked(path, "disk"), "disk") as owners:
        owners.wait_appended(20)
        safe_lsn = owners.safe_lsn
        disk.abort()
        owners.check_all_failed()
    with JournalReader.open(path) as reader:
        lsns = [entry.lsn for entry in reader.entries()]
        assert lsns == [*range(lsns[0], lsns[-1] + 1)]
        assert lsns[-1] >= safe_lsn
        # A compaction may have continued until the error, and removed what it covers.
        covered = [checkpoint.lsn for checkpoint in reader.checkpoints()]
        assert safe_lsn in lsns or safe_lsn <= min(covered)
    with pytest.raises((FailedError, OSError)):
        Journal.open(path)
    disk.remount()
    check_reopened(path, "disk", safe_lsn)


def test_a_read_only_remount_stops_the_first_commit(disk: SmallDisk) -> None:
    """P2: A journal that is remounted read-only before its first segment stops at the first commit.

    Its records can still be read. When the disk is writable again, the journal opens with them.
    """
    path = disk.path / "j"
    with Journal.open(path) as journal:
        put(journal, 1, 2)
    journal = Journal.open(path)
    disk.make_read_only()
    journal.append(3)
    with pytest.raises(FailedError) as caught:
        journal.wait_durable(timeout_s=TIMEOUT_S)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EROFS
    assert journal.durable_lsn == 2
    with pytest.raises(FailedError):
        journal.close()
    with JournalReader.open(path) as reader:
        assert [entry.record for entry in reader.entries()] == [1, 2]
    with pytest.raises((FailedError, OSError)):
        Journal.open(path)
    disk.make_writable()
    with Journal.open(path) as journal:
        assert logged(journal) == [1, 2]
        put(journal, "on")


# --- a disk that promised more space than it has ---


def test_a_disk_that_loses_accepted_writes_stops_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: Writes that the disk accepted and could not keep fail the sync, and the journal.

    The lost pages are clean in memory. Reopened in the same boot, the journal yields nothing that a
    later power cut removes.
    """
    path = tmp_path / "ext4" / "j"
    # Zeros ahead of the log would take the blocks before the disk runs out.
    monkeypatch.setattr(posix_file, "overwrites_in_place", lambda _fd: False)
    with ThinDisk(tmp_path) as disk:
        journal = Journal.open(path, options=options(segment_bytes=256 * KIB))
        # The record ends at the end of a block, so that the next record gets only new blocks.
        put(journal, sized(BLOCK_BYTES - SEGMENT_HEADER_BYTES - FRAME_HEADER_BYTES))
        disk.run_out()
        journal.append("x" * 20_000)
        with pytest.raises(FailedError) as caught:
            journal.wait_durable(timeout_s=TIMEOUT_S)
        cause = caught.value.__cause__
        assert isinstance(cause, OSError)
        assert cause.errno in (errno.EIO, errno.ENOSPC)
        with pytest.raises(FailedError):
            journal.append("y")
        with pytest.raises(FailedError):
            journal.close()
        with Journal.open(path) as journal:
            reopened_lsn = journal.last_lsn
        assert reopened_lsn >= 1
        disk.cut_power()
        disk.refill()
        disk.remount()
        with Journal.open(path) as journal:
            assert journal.last_lsn >= reopened_lsn
            put(journal, "on")
