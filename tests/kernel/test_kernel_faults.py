"""System calls of the unmodified engine that fail, one at a time, on the real disk.

Each sweep takes one system call, one error and one thread of an owner, and lets the first, and
about each eighth call after it, fail; then the journal is opened here without faults.

    JOURNAL_KERNEL_STEP=1 python -m pytest -rP tests/kernel/test_kernel_faults.py    at each call
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from journal._format.layout import FRAME_HEADER_BYTES
from tests.kernel.kernel_child import COMMITS, Thread, open_table
from tests.kernel.kernel_support import BEGIN_LSN, Durability, Fault, Told, Tracer, sweep
from tests.kernel.lazy_fs_writer import batch_after
from tests.support import TIMEOUT_S

pytestmark = pytest.mark.slow

STEP = int(os.environ.get("JOURNAL_KERNEL_STEP", "8"))
DENSE = max(1, STEP // 4)  # where it matters most
FLUSHER: Thread = "journal-flusher"
MAIN: Thread = "MainThread"

FATAL = [
    ("pwrite64", "EIO"),
    ("pwrite64", "EROFS"),
    ("fdatasync", "EIO"),
    ("fsync", "EIO"),
    ("fsync", "ENOSPC"),
    ("openat", "EIO"),
    ("getdents64", "EIO"),
    ("renameat2?", "EIO"),
]
NO_SPACE = [
    ("pwrite64", "ENOSPC"),
    ("pwrite64", "EDQUOT"),
    ("openat", "ENOSPC"),
    ("openat", "EDQUOT"),
    ("openat", "EMFILE"),
    ("openat", "ENFILE"),
    ("renameat2?", "ENOSPC"),
    ("renameat2?", "EDQUOT"),
]
HARMLESS = [
    ("fallocate", "ENOSPC"),
    ("fallocate", "EDQUOT"),
    ("fallocate", "EOPNOTSUPP"),
    ("fallocate", "EIO"),
    ("ftruncate", "EIO"),
    ("unlinkat", "EIO"),
    ("statx", "EIO"),
    ("pwrite64", "EINTR"),
    ("fdatasync", "EINTR"),
    ("fsync", "EINTR"),
    ("openat", "EINTR"),
    ("fallocate", "EINTR"),
]
OPENING_OR_COMPACTING = [
    ("openat", "EIO"),
    ("openat", "EMFILE"),
    ("pread64", "EIO"),
    ("getdents64", "EIO"),
    ("fstat|newfstatat|statx", "EIO"),
    ("fadvise64", "EIO"),
    ("pwrite64", "EIO"),
    ("pwrite64", "ENOSPC"),
    ("fdatasync", "EIO"),
    ("fsync", "EIO"),
    ("renameat2?", "EIO"),
    ("unlinkat", "EIO"),
    ("ftruncate", "EIO"),
    ("fcntl", "EMFILE"),
]
HERE = [
    ("pwrite64", "EIO"),
    ("pwrite64", "ENOSPC"),
    ("pwrite64", "EINTR"),
    ("fdatasync", "EIO"),
    ("fdatasync", "ENOSPC"),
    ("fdatasync", "EINTR"),
]
CHANGES = ["pwrite64", "fdatasync", "fsync", "openat", "renameat2?", "unlinkat", "ftruncate"]


@pytest.fixture(scope="module")
def tracer() -> Iterator[Tracer]:
    with Tracer() as tracer:
        yield tracer


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal whose owner was killed while it removed what a checkpoint covers: at its opening
    there is something to sync, to read, to trim and to remove."""
    folder = tmp_path_factory.mktemp("kernel")
    path, live = folder / "begin", folder / "live"
    with open_table(live, "disk") as state:
        for n in range(12):
            for _ in range(3):
                state.update_batch(lambda _: batch_after(state.journal.last_lsn))
            state.wait_durable(timeout_s=TIMEOUT_S)
            if n == 9:
                shutil.copytree(live, path)
            if n in (5, 7, 10):
                state.compact()
        shutil.copytree(live, path, dirs_exist_ok=True)
        assert state.journal.last_lsn == BEGIN_LSN
    (path / "00000000000000000099-0000000001.seg.tmp").touch()
    assert len(list(path.glob("*.seg"))) > len(list(live.glob("*.seg")))
    return path


def check_stopped(told: Told) -> None:
    """P2: after the fault nothing is acknowledged or done to the disk; all are told. Where only a
    mark or the end was at stake, all that there was is acknowledged."""
    failed = told.of("failed")
    assert not told.changes_after, str(told)
    assert failed or told.durable_lsn == told.appended_lsn, str(told)
    assert {line[1] for line in failed} <= {told.durable_lsn}, str(told)
    words = [line[0] for line in told.lines]
    assert not failed or "durable" not in words[words.index("failed") :], str(told)


def check_complete(told: Told) -> None:
    """The log went on, and everybody was served."""
    assert not told.of("failed"), str(told)
    assert len(told.of("durable")) == COMMITS, str(told)
    assert told.durable_lsn == told.appended_lsn, str(told)
    assert told.of("closed") == [[]], str(told)


@pytest.mark.parametrize("durability", ["disk", "os"])
@pytest.mark.parametrize(("call", "error"), FATAL)
def test_a_failed_call_stops_the_journal(
    tracer: Tracer, begin: Path, call: str, error: str, durability: Durability
) -> None:
    """P2: an error of the disk in the flusher is the end: no acknowledgement, nothing more is
    written or synced, every waiter is told; and a reopening has all that was acknowledged."""
    fault = Fault(call, error)
    for told in sweep(tracer, begin, fault, FLUSHER, step=DENSE, durability=durability):
        check_stopped(told)
        assert durability == "os" or len(told.of("durable")) <= told.synced, str(told)


@pytest.mark.parametrize(("call", "error"), NO_SPACE)
def test_no_space_is_waited_out(tracer: Tracer, begin: Path, call: str, error: str) -> None:
    """A full disk, a quota or want of handles in the flusher loses and stops nothing: the same
    bytes are written at the same offset again, and each wait returns."""
    fault = Fault(call, error, times=random.choice([1, 2, 3]))
    for told in sweep(tracer, begin, fault, FLUSHER, step=STEP):
        check_complete(told)
        check_repeated(told)


def check_repeated(told: Told) -> None:
    """A frame is written again as it was. A mark is not: nothing depends on it."""
    written, _, _ = told.failing.partition(") = ")
    if ".seg>" not in written or f", {FRAME_HEADER_BYTES}, " in written:
        return
    after = told.calls[told.calls.index(told.failing) + 1 :]
    again = next(call for call in after if call.startswith("pwrite64"))
    assert again.partition(") = ")[0] == written, str(told)


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
def test_no_space_at_a_sync(tracer: Tracer, begin: Path, error: str) -> None:
    """P2: a sync of frames that failed is never tried again, whatever its error; that of a new
    segment is, with a new file."""
    for told in sweep(tracer, begin, Fault("fdatasync", error), FLUSHER, step=STEP):
        if ".tmp>" in told.failing:
            check_complete(told)
        else:
            check_stopped(told)


@pytest.mark.parametrize("call", ["fstat|newfstatat|statx", "close"])
def test_a_failing_call_stops_the_journal_or_is_harmless(
    tracer: Tracer, begin: Path, call: str
) -> None:
    """P2: where a failed call may stop the journal or not, it does one of both in full."""
    for told in sweep(tracer, begin, Fault(call, "EIO"), FLUSHER, step=STEP):
        if told.of("failed"):
            check_stopped(told)
        else:
            check_complete(told)


@pytest.mark.parametrize(("call", "error"), HARMLESS)
def test_optional_calls_may_fail(tracer: Tracer, begin: Path, call: str, error: str) -> None:
    """What only saves space or time, and a call that a signal broke off, fail unnoticed."""
    for told in sweep(tracer, begin, Fault(call, error), FLUSHER, step=STEP):
        check_complete(told)


@pytest.mark.parametrize(("call", "error"), OPENING_OR_COMPACTING)
def test_opening_and_compacting(tracer: Tracer, begin: Path, call: str, error: str) -> None:
    """P5: an opening that meets a fault raises FailedError or OSError, and the next one succeeds;
    of a compaction it ends that attempt only."""
    for told in sweep(tracer, begin, Fault(call, error), MAIN, step=STEP):
        if not told.of("refused"):
            check_complete(told)


@pytest.mark.parametrize(("call", "error"), HERE)
def test_a_waiter_that_commits_itself(tracer: Tracer, begin: Path, call: str, error: str) -> None:
    """P2: a fault in the thread of a waiter stops the journal, or is waited out, as it would be in
    the flusher."""
    for told in sweep(tracer, begin, Fault(call, error), MAIN, step=DENSE, waits="here"):
        fatal = error == "EIO" or (call, error) == ("fdatasync", "ENOSPC")
        if fatal and ".seg>" in told.failing and not told.of("refused"):
            check_stopped(told)
        elif not told.of("refused"):
            check_complete(told)


@pytest.mark.parametrize("durability", ["disk", "os"])
@pytest.mark.parametrize("thread", [FLUSHER, MAIN])
@pytest.mark.parametrize("call", CHANGES)
def test_a_kill_at_each_call(
    tracer: Tracer, begin: Path, call: str, thread: Thread, durability: Durability
) -> None:
    """P1, P2, P3, P5, P6: killed in front of any call that changes the disk, a journal has all that
    was acknowledged."""
    for told in sweep(tracer, begin, Fault(call, "KILL"), thread, step=STEP, durability=durability):
        assert told.exit_code == -9
