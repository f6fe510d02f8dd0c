"""A disk that is really full: a small ext4 with a file that fills it and can be removed."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from journal import BufferFullError, Journal, JournalReader
from tests.kernel.kernel_disk import KIB, MIB, SmallDisk
from tests.support import TIMEOUT_S, frozen, logged, options, put, until

# An append is committed at once.
EAGER = options(segment_bytes=MIB, buffer_bytes=200 * KIB, flush_bytes=1)
RECORD = "x" * 20_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path) as disk:
        # The `with` of a journal on a full disk waits for room at its end, even if the test failed.
        timer = threading.Timer(2 * TIMEOUT_S, disk.empty)
        timer.start()
        yield disk
        timer.cancel()
        timer.join()


@pytest.fixture
def short_writes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list of the short writes: (bytes to write, bytes written)."""
    short: list[tuple[int, int]] = []
    pwrite = os.pwrite

    def watched(fd: int, data: Any, offset: int) -> int:
        written = pwrite(fd, data, offset)
        if written < len(data):
            short.append((len(data), written))
        return written

    monkeypatch.setattr(os, "pwrite", watched)
    return short


def fill_up(journal: Journal) -> None:
    """Append until the disk has no room for the records."""
    while not journal.stats().stalls:
        journal.append([journal.last_lsn + 1, RECORD])
        until(lambda: not backlog(journal) or journal.stats().stalls, "durable, or full")
    assert backlog(journal)


def backlog(journal: Journal) -> int:
    return journal.last_lsn - journal.durable_lsn


def numbers(path: Path) -> list[int]:
    """Return the numbers in the records that another open recovers."""
    with Journal.open(path) as journal:
        return [record[0] for record in logged(journal)]


@pytest.mark.parametrize("left_bytes", [4 * KIB, 64 * KIB, 3 * MIB])
def test_a_full_disk_delays_and_loses_nothing(
    disk: SmallDisk, short_writes: list[tuple[int, int]], left_bytes: int
) -> None:
    """P2, P8: A full disk stops nothing, whether a new segment or a frame in it gets no space.

    Waiters wait or time out. Appends are refused only at the limit of the buffer. When there is
    space again, all records are written and everybody continues.
    """
    path = disk.path / "j"
    with Journal.open(path, options=EAGER) as journal, ThreadPoolExecutor(3) as pool:
        disk.fill(left_bytes)
        fill_up(journal)
        durable_lsn = journal.durable_lsn
        with suppress(BufferFullError):
            while True:
                journal.append([journal.last_lsn + 1, RECORD])
        last_lsn = journal.last_lsn
        assert backlog(journal) == EAGER.buffer_bytes // (len(RECORD) + 6)
        with pytest.raises(TimeoutError):
            journal.wait_durable(timeout_s=0.05)
        with pytest.raises(TimeoutError):
            journal.wait_room(timeout_s=0.05)
        waiters = [
            pool.submit(journal.wait_durable, timeout_s=TIMEOUT_S),
            pool.submit(asyncio.run, journal.durable()),
            pool.submit(journal.wait_room, timeout_s=TIMEOUT_S),
        ]
        assert (journal.durable_lsn, journal.last_lsn) == (durable_lsn, last_lsn)
        disk.empty()
        for waiter in waiters:
            waiter.result(TIMEOUT_S)
        put(journal, [last_lsn + 1, "on"])
    assert numbers(path) == [*range(1, last_lsn + 2)]
    assert left_bytes != 64 * KIB or short_writes, "no write was short"


def test_a_segment_is_written_without_preallocation_on_a_full_disk(disk: SmallDisk) -> None:
    """A segment that can't be preallocated takes only the space of its frames.

    Later segments are preallocated again.
    """
    path = disk.path / "j"
    with Journal.open(path, options=options(segment_bytes=256 * KIB)) as journal:
        disk.fill(left_bytes=100 * KIB)
        put(journal, [1, "a"], [2, "b"])
        (segment,) = path.glob("*.seg")
        assert segment.stat().st_size < 4 * KIB
        assert journal.stats().stalls == 0
        disk.empty()
        put(journal, [3, "x" * 200 * KIB], [4, "x" * 100 * KIB])
        assert [file.stat().st_size for file in sorted(path.glob("*.seg"))][1] == 256 * KIB
    assert numbers(path) == [1, 2, 3, 4]


@pytest.mark.parametrize("torn", [True, False])
def test_a_full_disk_can_be_opened_and_read(disk: SmallDisk, torn: bool) -> None:
    """P5: Open and read need no space. The first commit waits for it."""
    path, live_path = disk.path / "j", disk.path / "live"
    with Journal.open(live_path, options=EAGER) as journal:
        put(journal, [1, "a"])
        journal.compact(frozen(journal, "state"))
        put(journal, [2, "b"])
        shutil.copytree(live_path, path)  # as a kill leaves it
    (segment,) = path.glob("*.seg")
    data = segment.read_bytes().rstrip(b"\0") + bytes(3)  # a mark ends in zeros, too
    segment.write_bytes(data + b"torn" * torn)
    (path / "LOCK").unlink()
    disk.fill()
    with JournalReader.open(path) as reader:
        assert [entry.lsn for entry in reader.entries(0)] == [1, 2]
    with Journal.open(path, options=EAGER) as journal:
        assert [record[0] for record in logged(journal, 0)] == [1, 2]
        journal.append([3, "c"])
        with pytest.raises(TimeoutError):
            journal.wait_durable(timeout_s=0.05)
        disk.empty()
        journal.wait_durable(timeout_s=TIMEOUT_S)
    assert numbers(path) == [1, 2, 3]


def test_a_compaction_on_a_full_disk_fails_alone(disk: SmallDisk) -> None:
    """A compaction without space raises OSError, leaves no file, and stops nothing."""
    path = disk.path / "j"
    with Journal.open(path, options=EAGER) as journal:
        put(journal, [1, "a"])
        disk.fill()
        before = sorted(file.name for file in path.iterdir())
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            journal.compact(frozen(journal, *[RECORD] * 20))
        assert sorted(file.name for file in path.iterdir()) == before
        put(journal, [2, "b"])  # in the existing segment
        disk.empty()
        assert journal.compact(frozen(journal, "state")).lsn == 2
    assert numbers(path) == [1, 2]


def fill_during_commits(journal: Journal, disk: SmallDisk) -> None:
    before = journal.stats().stalls
    disk.fill(left_bytes=random.randrange(12 * KIB))
    until(lambda: journal.stats().stalls > before, "full")


def test_threads_continue_while_the_disk_fills_and_empties(disk: SmallDisk) -> None:
    """P1, P2: Threads that append and wait all succeed, however often the disk fills up."""
    path = disk.path / "j"
    stopping = threading.Event()

    def work(journal: Journal, thread: int) -> int:
        for n in count():
            journal.wait_durable(journal.append([n, thread, "x" * 200]), timeout_s=TIMEOUT_S)
            if stopping.is_set():
                return n
        raise AssertionError

    with Journal.open(path, options=options(segment_bytes=16 * KIB)) as journal:
        with ThreadPoolExecutor(3) as pool:
            results = [pool.submit(work, journal, thread) for thread in range(3)]
            try:
                for _ in range(5):
                    fill_during_commits(journal, disk)
                    disk.empty()
                    journal.wait_durable(timeout_s=TIMEOUT_S)
            finally:
                stopping.set()
        log = logged(journal)
    for thread, last in enumerate(results):
        assert [n for n, writer, _ in log if writer == thread] == [*range(last.result() + 1)]
    assert numbers(path) == [n for n, _, _ in log]
