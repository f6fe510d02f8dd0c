"""What fails, and what happens then: full disks, broken ones, what is deleted underneath."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    BufferFullError,
    CorruptionError,
    FailedError,
    Journal,
    JournalError,
    JournalReader,
    Options,
)
from journal.testing import Outcome, SimulatedDisk, keep, lose
from journal.testing.disk import Operation
from tests.support import (
    PATH,
    TIMEOUT_S,
    Watched,
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
    until,
    write_at,
)

FIRST = "00000000000000000001-0000000001.seg"


@pytest.fixture
def disk() -> Iterator[SimulatedDisk]:
    """Mended in the end: leaving a journal's `with` on a full disk waits for room."""
    disk = SimulatedDisk()

    def mend() -> None:
        disk.before, disk.capacity = None, None

    timer = threading.Timer(TIMEOUT_S, mend)
    timer.start()
    yield disk
    timer.cancel()
    timer.join()


# --- a disk that is full ---

NO_SPACE = [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_no_space_for_a_write(disk: SimulatedDisk, code: int) -> None:
    """Nothing is lost: the same bytes are written at the same offset until there is room, and
    waiters wait or time out meanwhile."""
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
def test_no_space_in_the_midst_of_a_write(disk: SimulatedDisk, part: int) -> None:
    """P1, P3: a frame that found room for a part of itself is written again from its beginning."""
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
    """Full, over quota or out of handles while a segment is made, the first or a later one: no
    half-made one is left, and the journal goes on by itself when there is room."""
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


def test_a_full_disk_is_told_once_and_when_it_is_over(
    disk: SimulatedDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """The log of the program says that the disk is full, and that it no longer is; so do the
    observers and the figures."""
    told: list[str] = []

    class Ear:
        def committed(self, records: int, size_bytes: int, sync_ns: int) -> None: ...
        def compacted(self, *_: Any) -> None: ...
        def failed(self, error: BaseException) -> None: ...
        def stalled(self, error: OSError) -> None:
            told.append(str(error.errno))

    with open_on(disk) as journal:
        journal.observe(Ear())
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
    messages = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert len(messages) == 2
    assert messages[0].startswith("no room on disk, the journal waits and tries again: ")
    assert messages[1] == "there is room again: the journal goes on"
    assert (told, journal.stats().stalls) == ([str(errno.ENOSPC)], 1)


def test_a_full_disk_fills_the_buffer_and_no_more(disk: SimulatedDisk) -> None:
    """P8: at the bound appends are refused, room is waited for in vain, urgent records still fit;
    and when there is room again all of it is committed."""
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
    """P5: opening, replaying and reading need no space; the first commit waits for it."""
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
        assert len(read_all(disk)) >= 19  # of a live journal all that has a later witness
        journal.append("on")
        with pytest.raises(TimeoutError):
            journal.wait_durable(timeout_s=0.03)
        disk.capacity = None
        journal.wait_durable(timeout_s=TIMEOUT_S)
    assert reopened(disk)[-1] == "on"


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EOPNOTSUPP, errno.EINVAL])
def test_preallocation_may_fail(disk: SimulatedDisk, code: int) -> None:
    """It is an optimization: whatever fails in it is ignored, and the segments are as before."""

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
def test_short_writes_are_finished(disk: SimulatedDisk, write_bytes_max: int) -> None:
    """A write that takes a part only is gone on with, in segments and checkpoints."""
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
    ("create", ".tmp", errno.EIO),
    ("create", ".tmp", errno.EACCES),
    ("write", ".seg.tmp", errno.EIO),
    ("write", ".seg.tmp", errno.EROFS),
    ("sync", ".seg.tmp", errno.EIO),
    ("rename", ".seg", errno.EIO),
    ("sync_directory", PATH, errno.EIO),
    ("sync_directory", PATH, errno.ENOSPC),
]


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
    assert "close it, mend the disk, open it again" in str(caught.value)
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

    class Ear:
        def committed(self, records: int, size_bytes: int, sync_ns: int) -> None: ...
        def compacted(self, *_: Any) -> None: ...
        def stalled(self, error: OSError) -> None: ...
        def failed(self, error: BaseException) -> None:
            told.append(str(error))
            raise ValueError("the observer's own")

    with suppress(FailedError), open_on(disk) as journal:
        journal.observe(Ear())
        journal.observe(Ear())
        put(journal, 1)
        disk.fail("sync", errno.EIO)
        journal.append(2)
        with pytest.raises(FailedError):
            journal.wait_durable()
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


# --- deleted underneath ---


def delete_segment(path: Path) -> None:
    (file,) = path.glob("*.seg")
    file.unlink()


def delete_directory(path: Path) -> None:
    shutil.rmtree(path)


def replace_segment(path: Path) -> None:
    (file,) = path.glob("*.seg")
    shutil.copy(file, path / "copy")
    (path / "copy").rename(file)


@pytest.mark.parametrize("harm", [delete_segment, delete_directory, replace_segment])
@pytest.mark.parametrize("timeout_s", [None, TIMEOUT_S])
def test_what_is_deleted_underneath_stops_the_journal(
    tmp_path: Path, harm: Callable[[Path], None], timeout_s: float | None
) -> None:
    """P2: once the segment has no name, or the directory is gone, nothing is acknowledged."""
    path = tmp_path / "j"
    with suppress(FailedError), Journal.open(path) as journal:
        put(journal, 1, 2)
        harm(path)
        lsn = journal.append(3)
        with pytest.raises(FailedError, match="deleted underneath"):
            journal.wait_durable(lsn, timeout_s=timeout_s)
        with pytest.raises(FailedError):
            journal.append(4)
        assert journal.durable_lsn == 2


def test_a_directory_that_is_deleted_before_the_first_segment(tmp_path: Path) -> None:
    """P2: no segment can be made where there is no directory: FailedError."""
    path = tmp_path / "j"
    with suppress(FailedError), Journal.open(path) as journal:
        shutil.rmtree(path)
        journal.append(1)
        with pytest.raises(FailedError):
            journal.wait_durable(timeout_s=TIMEOUT_S)
    assert not path.exists()


# --- failures while opening ---


def refused(disk: SimulatedDisk) -> JournalError | OSError | None:
    """What opening raises, and closing again."""
    try:
        with open_on(disk) as journal:
            assert journal.last_lsn == 15
    except (JournalError, OSError) as error:
        return error
    return None


OPENING: list[Operation] = [
    "open_directory", "lock", "names", "open", "read", "size", "sync", "sync_directory",
    "lock_holder", "create", "write", "truncate", "remove", "drop_cache",
]  # fmt: skip


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE], ids=errno.errorcode.get)
@pytest.mark.parametrize("operation", OPENING)
@pytest.mark.parametrize("after", range(4))
def test_a_failing_open_changes_nothing(
    disk: SimulatedDisk, operation: Operation, after: int, code: int
) -> None:
    """P4, P5: a read that fails is no corruption: FailedError (OSError where the directory itself
    can't be opened), nothing changed, the lock free; the next open recovers all."""
    journal = open_on(disk)
    put_lines(journal, 12, size=700)
    journal.compact(frozen(journal, "state"))
    put_lines(journal, 3, size=700)
    crash(journal, disk)
    before = disk.contents(PATH)
    disk.fail(operation, code, after=after, times=None)
    refusal = refused(disk)
    disk.before = None
    if isinstance(refusal, FailedError):
        assert isinstance(refusal.__cause__, OSError)
        assert refusal.__cause__.errno == code
    elif refusal is not None:
        assert not isinstance(refusal, JournalError)
        assert operation in ("open_directory", "lock", "names")
        assert refusal.errno == code
    after_it = disk.contents(PATH)
    for name in names(disk, ".seg"):
        assert after_it[name].rstrip(b"\0") == before[name].rstrip(b"\0")
    assert names(disk, ".json") == [name for name in before if name.endswith(".json")]
    with open_on(disk) as journal:
        assert len(logged(journal, 0)) == 15
        put(journal, "on")


def test_a_read_error_is_no_corruption_to_a_reader(disk: SimulatedDisk) -> None:
    """P4: what can't be read is not called damaged, by entries() or by verify()."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
    with JournalReader.open(PATH, disk=disk) as reader:
        disk.fail("read", errno.EIO, after=1, times=None)
        for look in (lambda: list(reader.entries()), lambda: list(reader.verify())):
            with pytest.raises(OSError, match="EIO"):
                look()


# --- faults at every call ---


class Told:
    """What was appended, and the highest LSN that was said to survive a power cut."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.safe_lsn = 0

    def check(self, journal: Journal) -> None:
        """P1, P2: a prefix of what was appended, with all that was acknowledged."""
        found = logged(journal, None)
        assert self.safe_lsn <= journal.last_lsn <= len(self.log)
        assert found == self.log[journal.last_lsn - len(found) : journal.last_lsn]
        if journal.checkpoint:
            assert journal.checkpoint.count == journal.checkpoint.lsn


def workload(disk: SimulatedDisk, told: Told, durability: Literal["disk", "os"]) -> None:
    """Appends, batches, rolls, compactions and a reopening."""
    for life in range(2):
        with suppress(FailedError), open_on(disk, durability=durability) as journal:
            told.check(journal)
            del told.log[journal.last_lsn :]
            for n in range(3):
                told.log += [[life, n, "x" * 900], "a", "b"]
                journal.append(told.log[-3])
                journal.append_batch(told.log[-2:])
                journal.wait_durable(timeout_s=TIMEOUT_S)
                if durability == "disk":
                    told.safe_lsn = journal.durable_lsn
                with suppress(OSError):
                    lsn = journal.compact(frozen(journal, *range(journal.last_lsn))).lsn
                    told.safe_lsn = max(told.safe_lsn, lsn)
            journal.close(timeout_s=TIMEOUT_S)
            told.safe_lsn = journal.durable_lsn


def count_calls(durability: Literal["disk", "os"]) -> int:
    disk = SimulatedDisk()
    watched = Watched(disk)
    workload(disk, Told(), durability)
    return len(watched.calls)


@pytest.mark.parametrize("durability", ["disk", "os"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize(
    ("cut", "step"), [(None, 7), (keep, 7), (lose, 2)], ids=["no cut", "kept", "lost"]
)
def test_a_fault_at_any_call_loses_nothing_acknowledged(
    code: int, durability: Literal["disk", "os"], cut: Outcome | None, step: int
) -> None:
    """P1, P2, P5: whichever call to the disk fails once, and if the power fails after that too, a
    reopening without help yields a prefix with all that was acknowledged, and goes on."""
    calls = count_calls(durability)
    assert calls > 100
    for failing in range(random.randrange(step), calls, step):
        disk, told, counter = SimulatedDisk(), Told(), itertools.count()

        def fail(
            operation: Operation,
            path: str,
            counter: itertools.count[int] = counter,
            failing: int = failing,
        ) -> None:
            if next(counter) == failing:
                raise OSError(code, f"fault at call {failing}", path)

        disk.before = fail
        with suppress(OSError):
            workload(disk, told, durability)
        disk.before = None
        if cut:
            disk.power_cut(cut)
        with open_on(disk) as journal:
            told.check(journal)
            put(journal, "on")
        with open_on(disk) as journal:
            assert logged(journal, None)[-1] == "on"


@given(
    faults=st.lists(
        st.tuples(
            st.sampled_from(["write", "sync", "create", "rename", "sync_directory"]),
            st.sampled_from([errno.EIO, errno.ENOSPC, errno.EROFS, errno.EMFILE]),
            st.integers(0, 60),
        ),
        max_size=3,
    ),
    write_bytes_max=st.none() | st.integers(1, 200),
)
def test_faults_of_all_kinds_together(
    faults: list[tuple[Operation, int, int]], write_bytes_max: int | None
) -> None:
    """P1, P2, P5: several faults in one life, and short writes, with a power cut at the end."""
    disk = SimulatedDisk()
    disk.write_bytes_max = write_bytes_max
    left = dict.fromkeys(["write", "sync", "create", "rename", "sync_directory"], 0)
    mutex = threading.Lock()

    def fail(operation: Operation, path: str) -> None:
        if operation in left:
            with mutex:
                left[operation] += 1
                call = left[operation]
            for kind, code, number in faults:
                if (kind, number) == (operation, call):
                    raise OSError(code, "a fault", path)

    disk.before = fail
    told = Told()
    with suppress(OSError):
        workload(disk, told, "disk")
    disk.before = None
    disk.power_cut(lose)
    with open_on(disk) as journal:
        told.check(journal)


# --- corruption ---


def test_damage_is_refused_with_its_place(disk: SimulatedDisk) -> None:
    """P4: CorruptionError has path, offset and LSN, says which command looks closer, and nothing
    has changed; a reader shows what is good before it, then raises the same."""
    with open_on(disk) as journal:
        put(journal, *range(1, 6))
    (name,) = names(disk, ".seg")
    with JournalReader.open(PATH, disk=disk) as reader:
        offset = [entry.offset for entry in reader.entries()][2]
    assert offset is not None
    write_at(disk, name, offset + 44, b"\xff")
    before = disk.contents(PATH)
    with pytest.raises(CorruptionError) as caught:
        open_on(disk)
    error = caught.value
    assert (error.path, error.offset, error.lsn) == (f"{PATH}/{name}", offset, 3)
    assert str(error).startswith(f"{PATH}/{name}: offset {offset}, LSN 3: ")
    assert f"journal-inspect verify {PATH}" in str(error)
    assert "nothing was changed" in str(error)
    assert disk.contents(PATH) == before
    with JournalReader.open(PATH, disk=disk) as reader:
        entries = reader.entries()
        assert [next(entries).record, next(entries).record] == [1, 2]
        with pytest.raises(CorruptionError) as seen:
            next(entries)
        assert (seen.value.path, seen.value.offset, seen.value.lsn) == (error.path, offset, 3)


def test_a_torn_tail_and_a_bad_checkpoint_are_logged(
    disk: SimulatedDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """P4: what recovery passes over is told: file, offset, and the LSN at which the log goes on."""
    journal = open_on(disk)
    put(journal, 1, 2)
    journal.compact(frozen(journal, "state"))
    put(journal, 3)
    crash(journal, disk)
    (segment,), (checkpoint,) = names(disk, ".seg"), names(disk, ".json")
    end = end_of(disk, segment)
    write_at(disk, segment, end, b"torn")
    write_at(disk, checkpoint, 10, b"-")
    assert reopened(disk) == [1, 2, 3]
    bad, torn = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert bad.startswith(f"checkpoint rejected: {PATH}/{checkpoint}: ")
    assert torn == (
        f"{PATH}/{segment}: a torn tail from offset {end} on is left behind, "
        "the log goes on at LSN 4"
    )


def test_waiters_of_a_full_disk_in_many_threads(disk: SimulatedDisk) -> None:
    """Threads that append and wait while the disk is full and empty by turns all get through."""
    with open_on(disk, segment_bytes=1 << 16) as journal:
        turns = iter(range(10**6))

        def full(operation: Operation, path: str) -> None:
            if operation == "write" and next(turns) % 3:
                raise OSError(errno.ENOSPC, "full", path)

        disk.before = full

        def work(thread: int) -> None:
            for n in range(4):
                journal.wait_durable(journal.append([thread, n]), timeout_s=TIMEOUT_S)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        disk.before = None
        log = logged(journal)
    assert sorted(log) == [[thread, n] for thread in range(8) for n in range(4)]
    assert on_disk(disk) == log


def test_default_options_on_a_real_disk_survive_a_reopen(tmp_path: Path) -> None:
    """P2: what all of this is for, once more without any simulation."""
    with Journal.open(tmp_path / "j", options=Options()) as journal:
        lsn = journal.append_batch([{"n": n} for n in range(1000)])
        journal.wait_durable(lsn)
    with Journal.open(tmp_path / "j") as journal:
        assert logged(journal) == [{"n": n} for n in range(1000)]
