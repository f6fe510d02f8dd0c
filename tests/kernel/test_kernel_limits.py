"""Limits that the kernel sets to a process, and files that are deleted while threads write."""

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

# The beginning of each child's script. In this process, the limits would affect the tests.
PREAMBLE = f"""
import os, resource, sys
from contextlib import suppress
from journal import FailedError, Journal, JournalReader, Options

TIMEOUT_S = {TIMEOUT_S}
path = sys.argv[1]
options = Options(segment_bytes=int(sys.argv[2]))

def put(record):
    journal.wait_durable(journal.append(record), timeout_s=TIMEOUT_S)

def limit(resource_number, soft):
    resource.setrlimit(resource_number, (soft, resource.getrlimit(resource_number)[1]))

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
put([2, "in the open segment"])
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

OUT_OF_MEMORY = """
from journal import CowTable, DurableState, Tables, pack

class Texts(CowTable):
    application = "texts/1"

    def apply(self, lsn, record):
        self[lsn] = record

    def load(self, item):
        self.apply(len(self), item)

def raised(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__

journal = Journal.open(path, options=options)
tables, state = Tables.open(path + ".tables"), DurableState.open(path + ".state", Texts())
text = "x" * (64 << 20)  # its packer needs 128 MiB
pages = int(open("/proc/self/statm").read().split()[0])
limit(resource.RLIMIT_AS, pages * resource.getpagesize() + (96 << 20))
print(raised(lambda: pack(text)))
print(raised(lambda: journal.append(text)))
print(raised(lambda: state.update(lambda _: text)))
print(raised(lambda: tables.table("texts").set(1, text)))
put([1, "on"])
state.wait_durable(state.update(lambda _: "on"))
tables.table("texts").set(1, "on")
for opened in (tables, state, journal):
    opened.close()
"""


def run_script(script: str, path: Path, *arguments: object) -> list[str]:
    """Return the lines that a child prints when it runs the script. A traceback is a failure."""
    process = run(PREAMBLE + script, path, *arguments)
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    return process.stdout.splitlines()


def numbers(path: Path) -> list[int]:
    with Journal.open(path) as journal:
        return [record[0] for record in logged(journal, 0)]


def test_a_lack_of_handles_delays_or_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """Without handles, the first segment waits, and later ones reuse the handle of the one before.

    Every other use of a handle is refused. When there are handles again, the journal continues.
    """
    path = tmp_path / "j"
    lines = run_script(OUT_OF_HANDLES, path, 4096)
    assert lines == ["TimeoutError 0", "OSError", "OSError", "OSError"]
    assert numbers(path) == [1, 2, 3, 4]


def test_a_partly_refused_frame_stops_the_journal(tmp_path: Path) -> None:
    """P1, P2, P3: If the kernel writes a part of a frame and refuses the rest, the journal stops.

    Acknowledged records are there, and no record of the batch is.
    """
    path = tmp_path / "j"
    failed, refused, closed = run_script(FILE_TOO_LARGE, path, 1 << 20)
    assert failed.startswith("FailedError 1 [7")
    assert (refused, closed) == ("FailedError", "FailedError")
    with JournalReader.open(path) as reader:
        assert [finding.kind for finding in reader.verify()] == ["torn_tail"]
    assert numbers(path) == [1]


def test_the_rest_of_a_short_write_is_written(tmp_path: Path) -> None:
    """If the kernel takes a part of a frame or of a checkpoint, the rest is written after it."""
    path = tmp_path / "j"
    frame, checkpoint = run_script(A_SHORT_WRITE, path, 1 << 20, "lift the limit")
    assert frame.startswith("[7")
    assert checkpoint == "2"
    assert numbers(path) == [1, 2, 3, 4]
    with Journal.open(path) as journal:
        assert journal.checkpoint is not None
        assert list(journal.checkpoint.items()) == ["x" * 10000]


# --- deleted files ---


def test_a_lack_of_memory_is_not_blamed_on_the_record(tmp_path: Path) -> None:
    """A record that could not be packed for lack of memory raises MemoryError. RecordError would
    say that no journal can hold it. Nothing has changed, and smaller records go on."""
    lines = run_script(OUT_OF_MEMORY, tmp_path / "j", 1 << 20)
    assert lines == ["MemoryError"] * 4
    assert numbers(tmp_path / "j") == [1]


def delete_directory(path: Path, last: Path) -> None:
    while path.exists():  # a segment may be made at the same time
        shutil.rmtree(path, ignore_errors=True)


def delete_last_segments(path: Path, last: Path) -> None:
    """Delete `last` and later segments. A writer that has just left `last` no longer checks it."""
    for segment in path.glob("*.seg"):
        if segment >= last:
            segment.unlink()


@pytest.mark.parametrize("delete", [delete_directory, delete_last_segments])
def test_deleted_files_stop_all_writers(
    tmp_path: Path, delete: Callable[[Path, Path], None]
) -> None:
    """P2: After the deletion, at most the commit under way is acknowledged, and all waiters get an
    error.

    The rest of the journal opens.
    """
    path = tmp_path / "j"
    state = open_checked(path, "disk")
    appended, stopping = threading.Semaphore(0), threading.Event()

    def work(state: DurableState[Table]) -> None:
        while not stopping.is_set():
            lsn = state.update_batch(lambda _: batch_after(state.journal.last_lsn))
            state.wait_durable(lsn, timeout_s=TIMEOUT_S)
            appended.release()

    with ThreadPoolExecutor(3) as pool:
        workers = [pool.submit(work, state) for _ in range(3)]
        try:
            for _ in range(150):  # a few segments
                assert appended.acquire(timeout=TIMEOUT_S)
            last = max(path.glob("*.seg"))
            for _ in range(1 if delete is delete_directory else 20):
                delete(path, last)
                under_way_lsn = state.journal.last_lsn
                if not (running := wait(workers, 0.1).not_done):
                    break
            assert not running
            errors = [future.exception(TIMEOUT_S) for future in workers]
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
