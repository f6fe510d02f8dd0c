"""System calls of the unmodified engine that fail on the real disk, one at a time.

Each sweep takes one system call, one error and one thread of an owner. It lets the first call fail,
and then about every eighth one. After each failure, the journal is opened here without faults.

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
from tests.kernel.kernel_support import BEGIN_LSN, Durability, Fault, RunReport, Tracer, sweep
from tests.kernel.lazy_fs_writer import batch_after
from tests.support import TIMEOUT_S

pytestmark = pytest.mark.slow

STEP = int(os.environ.get("JOURNAL_KERNEL_STEP", "8"))
SMALL_STEP = max(1, STEP // 4)  # for the faults that matter most
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
    """Make a journal whose owner was killed while it removed what a checkpoint covers.

    Its next open has something to sync, to read, to trim and to remove.
    """
    folder = tmp_path_factory.mktemp("kernel")
    path, live_path = folder / "begin", folder / "live"
    with open_table(live_path, "disk") as state:
        for n in range(12):
            for _ in range(3):
                state.update_batch(lambda _: batch_after(state.journal.last_lsn))
            state.wait_durable(timeout_s=TIMEOUT_S)
            if n == 9:
                shutil.copytree(live_path, path)
            if n in (5, 7, 10):
                state.compact()
        shutil.copytree(live_path, path, dirs_exist_ok=True)
        assert state.journal.last_lsn == BEGIN_LSN
    (path / "00000000000000000099-0000000001.seg.tmp").touch()
    assert len(list(path.glob("*.seg"))) > len(list(live_path.glob("*.seg")))
    return path


def check_stopped(report: RunReport) -> None:
    """Check P2: after the fault, nothing is acknowledged or changed, and all waiters get an error.

    If the fault struck only a mark or the close, everything is acknowledged.
    """
    failed = report.of("failed")
    assert not report.changes_after, str(report)
    assert failed or report.durable_lsn == report.appended_lsn, str(report)
    assert {line[1] for line in failed} <= {report.durable_lsn}, str(report)
    words = [line[0] for line in report.lines]
    assert not failed or "durable" not in words[words.index("failed") :], str(report)


def check_complete(report: RunReport) -> None:
    """Check that the log continued, and that every wait returned."""
    assert not report.of("failed"), str(report)
    assert len(report.of("durable")) == COMMITS, str(report)
    assert report.durable_lsn == report.appended_lsn, str(report)
    assert report.of("closed") == [[]], str(report)


@pytest.mark.parametrize("durability", ["disk", "os"])
@pytest.mark.parametrize(("call", "error"), FATAL)
def test_a_failed_call_stops_the_journal(
    tracer: Tracer, begin: Path, call: str, error: str, durability: Durability
) -> None:
    """P2: A disk error in the flusher stops the journal: no acknowledgement, write or sync follows.

    Every waiter gets an error. The reopened journal has everything that was acknowledged.
    """
    fault = Fault(call, error)
    for report in sweep(tracer, begin, fault, FLUSHER, step=SMALL_STEP, durability=durability):
        check_stopped(report)
        assert durability == "os" or len(report.of("durable")) <= report.synced, str(report)


@pytest.mark.parametrize(("call", "error"), NO_SPACE)
def test_the_journal_waits_for_space(tracer: Tracer, begin: Path, call: str, error: str) -> None:
    """A full disk, a quota, or a lack of handles in the flusher loses and stops nothing.

    The same bytes are written again at the same offset, and each wait returns.
    """
    fault = Fault(call, error, times=random.choice([1, 2, 3]))
    for report in sweep(tracer, begin, fault, FLUSHER, step=STEP):
        check_complete(report)
        check_repeated(report)


def check_repeated(report: RunReport) -> None:
    """Check that a frame is written again unchanged. A mark may differ: nothing depends on it."""
    written, _, _ = report.failing.partition(") = ")
    if ".seg>" not in written or f", {FRAME_HEADER_BYTES}, " in written:
        return
    after = report.calls[report.calls.index(report.failing) + 1 :]
    repeated = next(call for call in after if call.startswith("pwrite64"))
    assert repeated.partition(") = ")[0] == written, str(report)


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
def test_a_failed_sync_for_lack_of_space_is_not_repeated(
    tracer: Tracer, begin: Path, error: str
) -> None:
    """P2: A failed sync of frames is never repeated, whatever its error.

    A new segment whose sync failed is made again with a new file.
    """
    for report in sweep(tracer, begin, Fault("fdatasync", error), FLUSHER, step=STEP):
        if ".tmp>" in report.failing:
            check_complete(report)
        else:
            check_stopped(report)


@pytest.mark.parametrize("call", ["fstat|newfstatat|statx", "close"])
def test_a_failing_call_stops_the_journal_or_is_harmless(
    tracer: Tracer, begin: Path, call: str
) -> None:
    """P2: A failed call either stops the journal completely or has no effect at all."""
    for report in sweep(tracer, begin, Fault(call, "EIO"), FLUSHER, step=STEP):
        if report.of("failed"):
            check_stopped(report)
        else:
            check_complete(report)


@pytest.mark.parametrize(("call", "error"), HARMLESS)
def test_optional_and_interrupted_calls_may_fail(
    tracer: Tracer, begin: Path, call: str, error: str
) -> None:
    """A failed call has no effect if it only saves space or time, or if a signal interrupted it."""
    for report in sweep(tracer, begin, Fault(call, error), FLUSHER, step=STEP):
        check_complete(report)


@pytest.mark.parametrize(("call", "error"), OPENING_OR_COMPACTING)
def test_a_fault_in_the_main_thread_fails_an_open_or_a_compaction(
    tracer: Tracer, begin: Path, call: str, error: str
) -> None:
    """P5: An open that meets a fault raises FailedError or OSError, and the next one succeeds.

    A compaction that meets a fault fails, and nothing else does.
    """
    for report in sweep(tracer, begin, Fault(call, error), MAIN, step=STEP):
        if not report.of("refused"):
            check_complete(report)


@pytest.mark.parametrize(("call", "error"), HERE)
def test_a_fault_in_a_waiter_that_commits_is_handled_like_one_in_the_flusher(
    tracer: Tracer, begin: Path, call: str, error: str
) -> None:
    """P2: A fault in a waiter's thread stops the journal or is waited out, as in the flusher."""
    for report in sweep(tracer, begin, Fault(call, error), MAIN, step=SMALL_STEP, waits="here"):
        fatal = error == "EIO" or (call, error) == ("fdatasync", "ENOSPC")
        if fatal and ".seg>" in report.failing and not report.of("refused"):
            check_stopped(report)
        elif not report.of("refused"):
            check_complete(report)


@pytest.mark.parametrize("durability", ["disk", "os"])
@pytest.mark.parametrize("thread", [FLUSHER, MAIN])
@pytest.mark.parametrize("call", CHANGES)
def test_a_kill_at_each_call_loses_nothing_acknowledged(
    tracer: Tracer, begin: Path, call: str, thread: Thread, durability: Durability
) -> None:
    """P1, P2, P3, P5, P6: A kill before any call that changes the disk loses nothing
    acknowledged."""
    for report in sweep(
        tracer, begin, Fault(call, "KILL"), thread, step=STEP, durability=durability
    ):
        assert report.exit_code == -9
