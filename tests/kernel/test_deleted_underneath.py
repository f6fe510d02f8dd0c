"""A segment or a directory that is deleted while the journal is open: nothing more is
acknowledged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest

from journal import FailedError, Journal
from journal.testing import SimulatedDisk
from journal.testing.disk import Operation
from tests.support import FIRST, PATH, TIMEOUT_S, Watched, open_on, options, put, until


def delete_segment(path: Path) -> None:
    (file,) = path.glob("*.seg")
    file.unlink()


def delete_directory(path: Path) -> None:
    shutil.rmtree(path)


def replace_segment(path: Path) -> None:
    (file,) = path.glob("*.seg")
    shutil.copy(file, path / "copy")
    (path / "copy").rename(file)


@pytest.mark.parametrize("delete", [delete_segment, delete_directory, replace_segment])
@pytest.mark.parametrize("timeout_s", [None, TIMEOUT_S])
def test_deleted_files_stop_the_journal(
    tmp_path: Path, delete: Callable[[Path], None], timeout_s: float | None
) -> None:
    """P2: Once the segment has no name or the directory is deleted, nothing is acknowledged."""
    path = tmp_path / "j"
    with suppress(FailedError), Journal.open(path) as journal:
        put(journal, 1, 2)
        delete(path)
        lsn = journal.append(3)
        with pytest.raises(FailedError, match="deleted while it was open"):
            journal.wait_durable(lsn, timeout_s=timeout_s)
        with pytest.raises(FailedError):
            journal.append(4)
        assert journal.durable_lsn == 2


@pytest.mark.parametrize("delete", [delete_segment, delete_directory, replace_segment])
def test_deleted_files_stop_a_journal_in_os_mode(
    tmp_path: Path, delete: Callable[[Path], None]
) -> None:
    """P2: With "os", no sync fails and no segment ends, but the journal still stops soon."""
    limits = options(durability="os", segment_bytes=1 << 20)
    with suppress(FailedError), Journal.open(tmp_path / "j", options=limits) as journal:
        put(journal, 1, 2)
        delete(tmp_path / "j")
        until(lambda: refused(journal), "a commit looks for the segment's name")
        with pytest.raises(FailedError, match="deleted while it was open"):
            journal.append(4)


def refused(journal: Journal) -> bool:
    try:
        put(journal, 3)
    except FailedError:
        return True
    return False


CHECK_NS = 10_000_000  # the longest time between two checks in "os" mode


@pytest.mark.parametrize(("later_ns", "acknowledged"), [(0, 3), (CHECK_NS, 2), (-CHECK_NS, 2)])
def test_an_os_commit_checks_its_segment_from_time_to_time(
    disk: SimulatedDisk, later_ns: int, acknowledged: int
) -> None:
    """P2: A commit 10 ms after the last check checks again, even if the clock was set back.

    An earlier commit relies on the next check.
    """
    disk.tick_ns = 0
    with suppress(FailedError), open_on(disk, durability="os") as journal:
        put(journal, 1, 2)
        disk.open_directory(PATH, write=True).remove(FIRST)
        disk.clock_ns += later_ns
        assert refused(journal) == (acknowledged == 2)
        assert journal.durable_lsn == acknowledged


def test_an_os_journal_checks_its_segment_rarely(disk: SimulatedDisk) -> None:
    """At 1,000 commits a second, one commit in ten checks the segment's name."""
    disk.tick_ns = 1_000_000
    with open_on(disk, durability="os", segment_bytes=1 << 20) as journal:
        put(journal, 0)
        watched = Watched(disk)
        put(journal, *range(100))
        assert watched.of("is_linked") == 10


@pytest.mark.parametrize("durability", ["disk", "os"])
def test_an_idle_mark_checks_the_segment(
    disk: SimulatedDisk, durability: Literal["disk", "os"]
) -> None:
    """P2: A segment that is deleted after the last commit is noticed when the log goes idle."""
    disk.tick_ns = 0
    with open_on(disk, durability=durability) as journal:
        put(journal, 1)
        disk.open_directory(PATH, write=True).remove(FIRST)
        with pytest.raises(FailedError, match="deleted while it was open"):
            journal._core.committer.mark()
        with suppress(FailedError):  # with "disk", everything was synced
            journal.close()


def test_an_idle_os_journal_stops_by_itself(disk: SimulatedDisk) -> None:
    """P2: If nobody appends or waits, the flusher stops the journal at the idle mark."""
    disk.tick_ns = 0
    hasty = {"flush_interval_s": 0.01, "flush_bytes": 1}
    with suppress(FailedError), open_on(disk, durability="os", **hasty) as journal:
        put(journal, 1)
        directory = disk.open_directory(PATH, write=True)

        def before(operation: Operation, path: str) -> None:
            if operation == "write":
                disk.before = None
                directory.remove(FIRST)

        disk.before = before
        put(journal, 2)
        until(lambda: fails(journal), "the idle log looks")


def fails(journal: Journal) -> bool:
    try:
        journal.check()
    except FailedError:
        return True
    return False


def test_a_directory_deleted_before_the_first_segment_stops_the_journal(tmp_path: Path) -> None:
    """P2: No segment can be made in a deleted directory, so a wait raises FailedError."""
    path = tmp_path / "j"
    with suppress(FailedError), Journal.open(path) as journal:
        shutil.rmtree(path)
        journal.append(1)
        with pytest.raises(FailedError):
            journal.wait_durable(timeout_s=TIMEOUT_S)
    assert not path.exists()
