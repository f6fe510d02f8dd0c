"""Limits that the kernel sets to a process, and files that are deleted under threads that write."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

import pytest

from journal import DurableState, FailedError, Journal, JournalReader
from tests.kernel.lazy_fs_writer import batch_after, open_checked
from tests.support import TIMEOUT_S, Table, logged, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux's")

# What each script of a child begins with: the limits would be this process's.
PREAMBLE = f"""
import os, resource, sys
from contextlib import suppress
from journal import FailedError, Journal, JournalReader, Options

TIMEOUT_S = {TIMEOUT_S}
path = sys.argv[1]
options = Options(segment_bytes=int(sys.argv[2]))

def put(record):
    journal.wait_durable(journal.append(record), timeout_s=TIMEOUT_S)

def limit(what, soft):
    resource.setrlimit(what, (soft, resource.getrlimit(what)[1]))

short = []
pwrite = os.pwrite
def watched(fd, data, offset):
    written = pwrite(fd, data, offset)
    if written < len(data):
        short.append(written)
        if len(sys.argv) > 3:
            limit(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    return written
os.pwrite = watched

def refused(call):
    try:
        call()
    except (OSError, FailedError) as error:
        return type(error).__name__
"""

OUT_OF_HANDLES = """
before = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

def take_handles():
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    limit(resource.RLIMIT_NOFILE, lowest)

journal = Journal.open(path, options=options)
take_handles()
journal.append([1, "x" * 3000])
print(refused(lambda: journal.wait_durable(timeout_s=0.2)), journal.durable_lsn)
limit(resource.RLIMIT_NOFILE, before)
journal.wait_durable(timeout_s=TIMEOUT_S)
take_handles()
put([2, "in the segment that is open"])
put([3, "x" * 3000])  # in another one, with the handle of the first
print(refused(lambda: journal.compact(lambda: (3, []))))
print(refused(lambda: JournalReader.open(path)))
print(refused(lambda: Journal.open(path + "2")))
put([4, "on"])
limit(resource.RLIMIT_NOFILE, before)
journal.compact(lambda: (4, [])).close()
journal.close()
"""

FILE_TOO_LARGE = """
journal = Journal.open(path, options=options)
limit(resource.RLIMIT_FSIZE, 8000)
put([1, "a"])
journal.append_batch([[2, "x" * 5000], [3, "x" * 5000]])
print(refused(lambda: journal.wait_durable(timeout_s=TIMEOUT_S)), journal.durable_lsn, short)
print(refused(lambda: journal.append([4, "b"])))
print(refused(journal.close))
"""

A_SHORT_WRITE = """
journal = Journal.open(path, options=options)
limit(resource.RLIMIT_FSIZE, 8000)
put([1, "a"])
journal.append_batch([[2, "x" * 5000], [3, "x" * 5000]])
journal.wait_durable(timeout_s=TIMEOUT_S)
print(short)
limit(resource.RLIMIT_FSIZE, 8000)
journal.compact(lambda: (3, ["x" * 10000])).close()
print(len(short))
put([4, "on"])
journal.close()
"""


def told(script: str, path: Path, *arguments: object) -> list[str]:
    """What a child that runs the script says. None may end in a traceback."""
    ended = run(PREAMBLE + script, path, *arguments)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout.splitlines()


def numbers(path: Path) -> list[int]:
    with Journal.open(path) as journal:
        return [record[0] for record in logged(journal, 0)]


def test_out_of_handles(tmp_path: Path) -> None:
    """Nothing is lost: the first segment waits for a handle, later ones need none but its own, what
    else needs one is refused, and all goes on by itself when there are handles again."""
    path = tmp_path / "j"
    assert told(OUT_OF_HANDLES, path, 4096) == ["TimeoutError 0", "OSError", "OSError", "OSError"]
    assert numbers(path) == [1, 2, 3, 4]


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """P1, P2, P3: a frame of which a part was written and the rest refused stops the journal; what
    was acknowledged is there, of the batch nothing."""
    path = tmp_path / "j"
    failed, refused, closed = told(FILE_TOO_LARGE, path, 1 << 20)
    assert failed.startswith("FailedError 1 [7")
    assert (refused, closed) == ("FailedError", "FailedError")
    with JournalReader.open(path) as reader:
        assert [finding.kind for finding in reader.verify()] == ["torn_tail"]
    assert numbers(path) == [1]


def test_a_short_write_is_finished(tmp_path: Path) -> None:
    """The kernel takes a part of a frame, and of a checkpoint: the rest is written after it."""
    path = tmp_path / "j"
    frame, checkpoint = told(A_SHORT_WRITE, path, 1 << 20, "lift the limit")
    assert frame.startswith("[7")
    assert checkpoint == "2"
    assert numbers(path) == [1, 2, 3, 4]
    with Journal.open(path) as journal:
        assert journal.checkpoint is not None
        assert list(journal.checkpoint.items()) == ["x" * 10000]


# --- deleted underneath ---


def delete_directory(path: Path, last: Path) -> None:
    while path.exists():  # a segment may be made meanwhile
        shutil.rmtree(path, ignore_errors=True)


def delete_last_segment(path: Path, last: Path) -> None:
    """And what was begun behind it: a writer that was just leaving it does not miss it."""
    for segment in path.glob("*.seg"):
        if segment >= last:
            segment.unlink()


@pytest.mark.parametrize("delete", [delete_directory, delete_last_segment])
def test_deleted_under_writers(tmp_path: Path, delete: Callable[[Path, Path], None]) -> None:
    """P2: once it has gone, nothing is acknowledged beyond the commit that was under way; every
    thread that waits is told. What is left opens."""
    path = tmp_path / "j"
    state = open_checked(path, "disk")
    appended, stopping = threading.Semaphore(0), threading.Event()

    def work(state: DurableState[Table]) -> None:
        while not stopping.is_set():
            lsn = state.update_batch(lambda _: batch_after(state.journal.last_lsn))
            state.wait_durable(lsn, timeout_s=TIMEOUT_S)
            appended.release()

    with ThreadPoolExecutor(3) as pool:
        works = [pool.submit(work, state) for _ in range(3)]
        try:
            for _ in range(150):  # a few segments
                assert appended.acquire(timeout=TIMEOUT_S)
            last = max(path.glob("*.seg"))
            for _ in range(1 if delete is delete_directory else 4):
                delete(path, last)
                under_way_lsn = state.journal.last_lsn
                if not (going_on := wait(works, 0.1).not_done):
                    break
            assert not going_on
            errors = [future.exception(TIMEOUT_S) for future in works]
        finally:
            stopping.set()
    assert all(isinstance(error, FailedError) for error in errors), errors
    durable_lsn = state.journal.durable_lsn
    assert durable_lsn <= under_way_lsn
    with pytest.raises(FailedError):
        state.update_batch(lambda _: batch_after(state.journal.last_lsn))
    with suppress(FailedError):
        state.close(timeout_s=TIMEOUT_S)
    assert state.journal.durable_lsn == durable_lsn
    with open_checked(path, "disk") as state:
        assert state.journal.last_lsn <= durable_lsn
