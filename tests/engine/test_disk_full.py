"""A full disk: nothing is lost, and the journal continues by itself when there is room."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from contextlib import suppress

import pytest

from journal import (
    BufferFullError,
)
from journal._log import settle
from journal.testing import SimulatedDisk
from journal.testing.disk import Operation
from tests.support import (
    FIRST,
    PATH,
    TIMEOUT_S,
    IdleObserver,
    crash,
    end_of,
    frozen,
    logged,
    names,
    on_disk,
    open_on,
    put,
    put_lines,
    read_all,
    reopened,
    sized,
    write_at,
)

NO_SPACE = [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_no_space_for_a_write(disk: SimulatedDisk, code: int) -> None:
    """On a full disk, the same bytes are written at the same offset until there is room. Meanwhile,
    waiters wait or time out, and nothing is lost."""
    with open_on(disk) as journal:
        put(journal, 1)
        disk.fail("write", code, path=FIRST, times=None)
        journal.append(2)
        with pytest.raises(TimeoutError):
            journal.wait_durable(timeout_s=0.05)
        journal.append(3)
        assert (journal.durable_lsn, journal.last_lsn) == (1, 3)
        disk.before = None
        journal.wait_durable(timeout_s=TIMEOUT_S)
        put(journal, 4)
        assert logged(journal) == [1, 2, 3, 4]
    assert on_disk(disk) == [1, 2, 3, 4] == reopened(disk)


@pytest.mark.parametrize("part", [0, 1, 20, 44, 100])
def test_no_space_for_the_rest_of_a_write(disk: SimulatedDisk, part: int) -> None:
    """P1, P3: A frame that fits only in part is written again from its beginning."""
    with open_on(disk, segment_bytes=1 << 20) as journal:
        disk.fail("allocate", errno.EOPNOTSUPP)
        put(journal, "a")
        disk.capacity = sum(map(len, disk.contents(PATH).values())) + part
        journal.append_batch(["b" * 90, "c"])
        with pytest.raises(TimeoutError):
            journal.wait_durable(timeout_s=0.05)
        assert journal.durable_lsn == 1
        disk.capacity = None
        journal.wait_durable(timeout_s=TIMEOUT_S)
    assert on_disk(disk) == ["a", "b" * 90, "c"] == reopened(disk)


@pytest.mark.parametrize("code", NO_SPACE, ids=errno.errorcode.get)
@pytest.mark.parametrize("operation", ["create", "write", "sync", "rename"])
@pytest.mark.parametrize("first", [True, False])
def test_no_space_for_a_new_segment(
    disk: SimulatedDisk, operation: Operation, code: int, first: bool
) -> None:
    """If a segment can't be made for want of space, quota or file handles, no incomplete file is
    left, and the journal continues by itself when there is room."""
    with open_on(disk) as journal:
        if not first:
            put_lines(journal, 4, size=900)
        log = logged(journal)
        path = f"{len(log) + 1:020d}-0000000001.seg"
        disk.fail(operation, code, path=path, times=None)
        journal.append("x" * 900)
        with pytest.raises(TimeoutError):
            journal.wait_durable(timeout_s=0.03)
        assert logged(journal) == log
        disk.before = None
        journal.wait_durable(timeout_s=TIMEOUT_S)
        assert names(disk, ".tmp") == []
        put(journal, "on")
    assert reopened(disk) == [*log, "x" * 900, "on"]


def test_a_full_disk_and_its_end_are_reported_once(
    disk: SimulatedDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """The log and the observers report a full disk once, and `stats()` counts it. The log also
    reports when there is room again."""
    observed: list[str] = []

    class RecordingObserver(IdleObserver):
        def stalled(self, error: OSError) -> None:
            observed.append(str(error.errno))

    with open_on(disk) as journal:
        journal.observe(RecordingObserver())
        put(journal, 1)
        calls = []

        def full(operation: Operation, path: str) -> None:
            if operation == "write":
                calls.append(path)
                if len(calls) < 4:
                    raise OSError(errno.ENOSPC, "full", path)

        disk.before = full
        journal.append(2)
        journal.wait_durable(timeout_s=TIMEOUT_S)
    assert settle(TIMEOUT_S)
    messages = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert len(messages) == 2
    assert messages[0].startswith("/journal: a commit lacks disk space or a file handle: ")
    assert messages[1] == "/journal: there is space again; the journal continues"
    assert (observed, journal.stats().stalls) == ([str(errno.ENOSPC)], 1)


def test_a_full_disk_fills_the_buffer_up_to_its_bound(disk: SimulatedDisk) -> None:
    """P8: At the bound, appends are refused, waits for room time out, and urgent records still fit.
    When there is room again, all of them are committed."""
    with open_on(disk, buffer_bytes=1000) as journal:
        put(journal, sized(10))
        disk.fail("write", errno.ENOSPC, times=None)
        appended = 1
        with suppress(BufferFullError):
            while True:
                journal.append(sized(100))
                appended += 1
        assert appended == 11
        with pytest.raises(TimeoutError, match="no room"):
            journal.wait_room(timeout_s=0.01)
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(journal.room(), 0.01))
        assert journal.append(sized(250), urgent=True) == 12
        with pytest.raises(BufferFullError):
            journal.append(None, urgent=True)
        disk.before = None
        journal.wait_room(timeout_s=TIMEOUT_S)
        put(journal, "on")
    assert [len(record) for record in reopened(disk)] == [8] + [98] * 10 + [248, 2]


@pytest.mark.parametrize("torn", [True, False])
def test_a_full_disk_opens_and_reads(disk: SimulatedDisk, torn: bool) -> None:
    """P5: Opening, replaying and reading need no space, and the first commit waits for it."""
    journal = open_on(disk)
    put_lines(journal, 20, size=700)
    if torn:
        crash(journal, disk)
        name = names(disk, ".seg")[-1]
        write_at(disk, name, end_of(disk, name), b"torn")
    else:
        journal.close()
    disk.open_directory(PATH, write=True).remove("LOCK")
    disk.capacity = 0
    with open_on(disk) as journal:
        assert [record[0] for record in logged(journal)] == [*range(1, 21)]
        # A reader of a live journal sees every record that a later frame proves durable.
        assert len(read_all(disk)) >= 19
        journal.append("on")
        with pytest.raises(TimeoutError):
            journal.wait_durable(timeout_s=0.03)
        disk.capacity = None
        journal.wait_durable(timeout_s=TIMEOUT_S)
    assert reopened(disk)[-1] == "on"


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EOPNOTSUPP, errno.EINVAL])
def test_preallocation_may_fail(disk: SimulatedDisk, code: int) -> None:
    """Preallocation is an optimization: its errors are ignored, and the segments are the same."""

    def fail(operation: Operation, path: str) -> None:
        if operation == "allocate":
            raise OSError(code, "no", path)

    disk.before = fail
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        assert len(names(disk, ".seg")) == 3
    disk.before = None
    assert len(on_disk(disk)) == 12 == len(reopened(disk))


@pytest.mark.parametrize("write_bytes_max", [1, 7, 100])
def test_short_writes_are_continued(disk: SimulatedDisk, write_bytes_max: int) -> None:
    """A write that takes only a part of its bytes is continued, in segments and in checkpoints."""
    disk.write_bytes_max = write_bytes_max
    with open_on(disk) as journal:
        put_lines(journal, 6, size=300)
        journal.append_batch(["a", "b" * 50])
        journal.compact(frozen(journal, *range(100)))
        put(journal, "on")
    expected = [[n, "x" * 300] for n in range(1, 7)] + ["a", "b" * 50, "on"]
    assert on_disk(disk) == expected
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert list(journal.checkpoint.items()) == [*range(100)]
        assert logged(journal, 0) == expected


class Naps:
    """A stand-in for `time` whose `sleep` returns at once."""

    perf_counter_ns = staticmethod(time.perf_counter_ns)

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    def sleep(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)


def test_a_full_disk_is_retried_every_second(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal retries at least once a second, and more often at first."""
    naps = Naps()
    monkeypatch.setattr("journal._commit.committer.time", naps)
    with open_on(disk) as journal:
        put(journal, 1)
        disk.fail("write", errno.ENOSPC, path=FIRST, times=20)
        put(journal, 2)
    assert len(naps.slept_s) > 10  # a write of a mark may have met some of the 20 errors
    assert 0 < naps.slept_s[0] < 0.1
    assert max(naps.slept_s) == 1.0
