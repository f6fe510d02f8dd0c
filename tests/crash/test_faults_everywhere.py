"""A fault at every call to the disk, one at a time, and the report of corruption."""

from __future__ import annotations

import errno
import itertools
import logging
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    CorruptionError,
    FailedError,
    Journal,
    JournalReader,
    Options,
)
from journal.testing import Outcome, SimulatedDisk, keep, lose
from journal.testing.disk import Operation
from tests.crash.crash_support import fail_at
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
    reopened,
    write_at,
)
from tests.tiers import slow_unless

# --- faults at every call ---


class Acknowledged:
    """The appended records, and the highest LSN that was reported to survive a power cut."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.safe_lsn = 0

    def check(self, journal: Journal) -> None:
        """Check P1 and P2: the journal is a prefix of the log with everything acknowledged."""
        records = logged(journal, None)
        assert self.safe_lsn <= journal.last_lsn <= len(self.log)
        assert records == self.log[journal.last_lsn - len(records) : journal.last_lsn]
        if journal.checkpoint:
            assert journal.checkpoint.count == journal.checkpoint.lsn


def workload(
    disk: SimulatedDisk, acknowledged: Acknowledged, durability: Literal["disk", "os"]
) -> None:
    """Append records and batches, fill segments, compact, and reopen."""
    for opening in range(2):
        with suppress(FailedError), open_on(disk, durability=durability) as journal:
            acknowledged.check(journal)
            del acknowledged.log[journal.last_lsn :]
            for n in range(3):
                acknowledged.log += [[opening, n, "x" * 900], "a", "b"]
                journal.append(acknowledged.log[-3])
                journal.append_batch(acknowledged.log[-2:])
                journal.wait_durable(timeout_s=TIMEOUT_S)
                if durability == "disk":
                    acknowledged.safe_lsn = journal.durable_lsn
                with suppress(OSError):
                    lsn = journal.compact(frozen(journal, *range(journal.last_lsn))).lsn
                    acknowledged.safe_lsn = max(acknowledged.safe_lsn, lsn)
            journal.close(timeout_s=TIMEOUT_S)
            acknowledged.safe_lsn = journal.durable_lsn


def count_calls(durability: Literal["disk", "os"]) -> int:
    disk = SimulatedDisk()
    watched = Watched(disk)
    workload(disk, Acknowledged(), durability)
    return len(watched.calls)


@pytest.mark.parametrize(
    ("code", "durability"),
    slow_unless(
        lambda code, durability: code == errno.EIO and durability == "disk",
        itertools.product([errno.EIO, errno.ENOSPC], ["disk", "os"]),
    ),
    ids=lambda value: errno.errorcode.get(value, value),
)
@pytest.mark.parametrize(
    ("cut", "step"), [(None, 7), (keep, 7), (lose, 2)], ids=["no cut", "kept", "lost"]
)
def test_a_fault_at_any_call_loses_nothing_acknowledged(
    code: int, durability: Literal["disk", "os"], cut: Outcome | None, step: int
) -> None:
    """P1, P2, P5: If any call to the disk fails once, the reopened journal has lost nothing
    acknowledged.

    The same holds if the power fails after that. The journal opens without help, its records are a
    prefix, and it can continue.
    """
    calls = count_calls(durability)
    assert calls > 100
    for failing in range(random.randrange(step), calls, step):
        disk, acknowledged = SimulatedDisk(), Acknowledged()
        fail_at(disk, failing, code)
        with suppress(OSError):
            workload(disk, acknowledged, durability)
        disk.before = None
        if cut:
            disk.power_cut(cut)
        with open_on(disk) as journal:
            acknowledged.check(journal)
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
    """P1, P2, P5: The same holds for several faults, short writes and a power cut in one run."""
    disk = SimulatedDisk()
    disk.write_bytes_max = write_bytes_max
    calls = dict.fromkeys(["write", "sync", "create", "rename", "sync_directory"], 0)
    mutex = threading.Lock()

    def fail(operation: Operation, path: str) -> None:
        if operation in calls:
            with mutex:
                calls[operation] += 1
                call = calls[operation]
            for kind, code, number in faults:
                if (kind, number) == (operation, call):
                    raise OSError(code, "a fault", path)

    disk.before = fail
    acknowledged = Acknowledged()
    with suppress(OSError):
        workload(disk, acknowledged, "disk")
    disk.before = None
    disk.power_cut(lose)
    with open_on(disk) as journal:
        acknowledged.check(journal)


# --- corruption ---


def test_damage_is_refused_with_its_place(disk: SimulatedDisk) -> None:
    """P4: CorruptionError states path, offset and LSN, and the command that shows more.

    Nothing is changed. A reader yields the good records before the damage, then raises the same
    error.
    """
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
        with pytest.raises(CorruptionError) as raised_by_reader:
            next(entries)
        assert (
            raised_by_reader.value.path,
            raised_by_reader.value.offset,
            raised_by_reader.value.lsn,
        ) == (error.path, offset, 3)


def test_a_torn_tail_and_a_bad_checkpoint_are_logged(
    disk: SimulatedDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """P4: Recovery logs what it passes over, with file, offset and the next LSN.

    A torn tail is no warning, because every crash may leave one.
    """
    journal = open_on(disk)
    put(journal, 1, 2)
    journal.compact(frozen(journal, "state"))
    put(journal, 3)
    crash(journal, disk)
    (segment,), (checkpoint,) = names(disk, ".seg"), names(disk, ".json")
    end = end_of(disk, segment)
    write_at(disk, segment, end, b"torn")
    write_at(disk, checkpoint, 10, b"-")
    with caplog.at_level(logging.INFO, "journal"):
        assert reopened(disk) == [1, 2, 3]
    records = [record for record in caplog.records if record.module == "recovery"]
    assert [record.levelname for record in records] == ["WARNING", "INFO"]
    bad, torn = (record.getMessage() for record in records)
    skipped = f"a checkpoint is skipped, because it does not verify: {PATH}/{checkpoint}: "
    assert bad.startswith(skipped)
    assert torn == (
        f"{PATH}/{segment}: a torn tail begins at offset {end}; it stays there, and a new segment "
        "continues the log at LSN 4"
    )


def test_waiters_on_a_full_disk_all_finish(disk: SimulatedDisk) -> None:
    """Threads that append and wait all finish, although the disk is full again and again."""
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
    """P2: A journal with default options on a real disk has all its records after a reopen."""
    with Journal.open(tmp_path / "j", options=Options()) as journal:
        lsn = journal.append_batch([{"n": n} for n in range(1000)])
        journal.wait_durable(lsn)
    with Journal.open(tmp_path / "j") as journal:
        assert logged(journal) == [{"n": n} for n in range(1000)]
