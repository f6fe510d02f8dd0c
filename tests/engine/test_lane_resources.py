"""The threads and handles of lanes: without them, when they end, and which file they sync."""

from __future__ import annotations

import errno
import gc
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from journal import InterruptedCallError, Journal, Options
from journal._commit.open_segment import OpenSegment
from journal._commit.sync_lanes import PendingSync
from journal._disk.posix import PosixDisk
from journal.testing import SimulatedDisk
from journal.testing.disk import SimulatedFile
from tests.engine.waiting_support import wait_in
from tests.lanes_support import side_by_side, without_lone_waiters
from tests.support import TIMEOUT_S, open_on, put, reopened


@pytest.fixture(autouse=True)
def _lanes() -> Iterator[None]:
    with side_by_side(), without_lone_waiters():
        yield


@pytest.mark.parametrize(
    "missing", [AttributeError("reopen"), OSError(errno.EMFILE, "no handles left")]
)
def test_without_further_handles_syncs_take_turns(
    disk: SimulatedDisk, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, missing: Any
) -> None:
    """A disk of the user may open no file again, and handles may run out."""
    if isinstance(missing, AttributeError):
        monkeypatch.delattr(SimulatedFile, "reopen")
    else:
        disk.fail("open", errno.EMFILE, times=None)
    with open_on(disk) as journal:
        for future in [wait_in(pool, journal, journal.append(number)) for number in range(20)]:
            future.result(TIMEOUT_S)
    disk.before = None
    assert reopened(disk) == [*range(20)]


def test_without_further_threads_syncs_take_turns(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may be at its limit of threads."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("journal-sync"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with open_on(disk) as journal:
        put(journal, *range(5))
    assert reopened(disk) == [*range(5)]


def test_a_finalizer_in_a_lane_can_not_wait_for_its_own_thread(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The garbage collector may run a user's code in any thread."""
    raised: list[type] = []
    run = PendingSync.run
    own = open_on(disk)

    class Resource:
        def __del__(self) -> None:
            try:
                own.wait_durable(own.last_lsn, timeout_s=1)
            except Exception as error:
                raised.append(type(error))

    def run_with_finalizer(pending: PendingSync) -> None:
        Resource()
        gc.collect()
        run(pending)

    monkeypatch.setattr(PendingSync, "run", run_with_finalizer)
    with own:
        put(own, 0, 1)
    assert set(raised) == {InterruptedCallError}


def test_the_end_of_a_journal_ends_its_lanes(tmp_path: Path) -> None:
    """No thread and no handle is left."""
    with Journal.open(tmp_path / "j") as journal:
        put(journal, *range(5))
        assert any(each.name.startswith("journal-sync") for each in threading.enumerate())
    assert not [each for each in threading.enumerate() if each.name.startswith("journal-")]
    if sys.platform == "linux":
        assert handles_of(".seg") == []


def handles_of(end: str) -> list[str]:
    """Return the open files of this process whose path ends so."""
    links = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    return [path for path in links if path.endswith(end)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux opens the same file again")
def test_a_forked_child_closes_the_handles_of_all_lanes(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    """The child has no lanes, and none of their files."""
    with Journal.open(tmp_path / "j") as journal:
        for future in [wait_in(pool, journal, journal.append(number)) for number in range(50)]:
            future.result(TIMEOUT_S)
        journal._core.committer._writer.handle(2)
        assert len(handles_of(".seg")) == 3
        child = os.fork()
        if not child:
            os._exit(len(handles_of(".seg")))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        put(journal, "after")


def test_a_lane_syncs_the_file_that_is_written_even_if_its_name_is_taken(tmp_path: Path) -> None:
    """P2: A handle that is opened by name could be that of another file."""
    directory = PosixDisk().open_directory(tmp_path / "j", write=True)
    file = directory.open("a", "create")
    directory.rename("a", "b")
    directory.open("a", "create").write(b"another file", 0)
    segment = OpenSegment(file, "a", bytes(8), 0)
    second = segment.handle(1)
    assert second is not None
    file.write(b"written", 0)
    assert second.read(20, 0) == b"written"
    segment.close()


def test_each_lane_has_a_handle_of_its_own(disk: SimulatedDisk) -> None:
    """P2: The system reports a failed write to each handle once."""
    with open_on(disk) as journal:
        put(journal, 0)
        handle = journal._core.committer._writer.handle
        handles = [handle(lane) for lane in (0, 1, 2, 2, 1, 0)]
    assert handles[:3] == handles[:2:-1]
    assert len(set(map(id, handles))) == 3


def test_commits_without_a_sync_use_no_lanes(disk: SimulatedDisk) -> None:
    """Durability "os" syncs nothing, so lanes have nothing to do."""
    with Journal.open("/journal", options=Options(durability="os"), disk=disk) as journal:
        put(journal, *range(5))
        assert journal._core.committer._lanes._lanes == []
