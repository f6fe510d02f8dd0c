"""Crashes, faults and a full disk: the simulated disk has them where a test asks for them, and
nowhere else."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

import pytest

from journal._disk.disk import Directory
from journal.testing import SimulatedDisk, keep, lose
from tests.crash.crash_support import error_of
from tests.support import PATH, put_file

# --- the death of the process ---


@pytest.mark.parametrize("cut", [False, True])
def test_handles_of_a_dead_process_raise(
    disk: SimulatedDisk, directory: Directory, cut: bool
) -> None:
    """After `kill` and `power_cut`, old handles only raise, and hold no lock."""
    directory.lock()
    file = put_file(directory, "a", b"0123")
    if cut:
        disk.power_cut(keep)
    else:
        disk.kill()
    uses: list[Callable[[], object]] = [
        directory.names,
        directory.sync,
        directory.lock,
        directory.lock_holder,
        lambda: directory.open("b", "create"),
        lambda: directory.rename("a", "b"),
        lambda: directory.remove("a"),
        lambda: file.read(1, 0),
        lambda: file.write(b"-", 0),
        lambda: file.truncate(0),
        lambda: file.allocate(9),
        file.sync,
        file.size,
        file.is_linked,
    ]
    assert [error_of(use) for use in uses] == [errno.EIO] * len(uses)
    reopened = disk.open_directory(PATH, write=True)
    assert reopened.lock_holder() is None
    reopened.lock()
    file.close()
    directory.close(unlock=True)
    assert reopened.lock_holder() == disk.pid
    assert disk.contents(PATH) == {"a": b"0123"}


def test_a_kill_keeps_unsynced_writes(disk: SimulatedDisk, directory: Directory) -> None:
    """The next process reads what the dead one wrote, although it is not on disk yet."""
    put_file(directory, "a", b"0123", synced=False)
    disk.kill()
    assert disk.contents(PATH) == {"a": b"0123"}
    disk.power_cut(lose)
    assert disk.contents(PATH) == {}


def test_a_later_process_can_sync_earlier_writes(disk: SimulatedDisk, directory: Directory) -> None:
    """A sync in recovery makes durable what recovery reads."""
    put_file(directory, "a", b"0123", synced=False)
    disk.kill()
    directory = disk.open_directory(PATH, write=True)
    directory.open("a", "read").sync()
    directory.sync()
    disk.power_cut(lose)
    assert disk.contents(PATH) == {"a": b"0123"}


# --- faults ---


def test_a_failed_sync_loses_the_writes_that_it_should_have_written(
    disk: SimulatedDisk, directory: Directory
) -> None:
    """P2: After a failed sync, the cache has the new bytes, and a later sync succeeds without
    them."""
    file = put_file(directory, "a", b"0123")
    file.write(b"abcdef", 0)
    disk.fail("sync", errno.EIO)
    assert error_of(file.sync) == errno.EIO
    file.write(b"z", 3)
    file.sync()
    assert file.read(9, 0) == b"abczef"
    file.drop_cache()
    assert file.read(9, 0) == b"012z\0\0"
    disk.power_cut(keep)
    assert disk.contents(PATH) == {"a": b"012z"}


def test_a_sync_covers_what_was_written_when_it_began(
    disk: SimulatedDisk, directory: Directory
) -> None:
    """P2: What another thread writes during a sync is synced by the next one."""
    file = put_file(directory, "a", b"0123")
    file.write(b"4", 4)

    def write_during_it(*_: object) -> None:
        disk.before = None
        file.write(b"5", 5)

    disk.before = write_during_it
    file.sync()
    disk.power_cut(lose)
    assert disk.contents(PATH) == {"a": b"01234"}


def test_each_handle_of_a_file_gets_the_error_of_a_failed_sync_once(
    disk: SimulatedDisk, directory: Directory
) -> None:
    """P2: As Linux does it, for each open file description."""
    file = put_file(directory, "a", b"0123")
    second = file.reopen()
    file.write(b"abcd", 0)
    disk.fail("sync", errno.EIO)
    later = directory.open("a", "update")
    assert [error_of(each.sync) for each in (file, second, later)] == [errno.EIO] * 3
    assert [error_of(each.sync) for each in (file, second, later)] == [None] * 3
    assert error_of(file.reopen().sync) is None


def test_dropping_the_cache_keeps_unsynced_writes(
    disk: SimulatedDisk, directory: Directory
) -> None:
    """Only clean pages are dropped. Unsynced bytes are read as before."""
    file = put_file(directory, "a", b"0123")
    file.write(b"ab", 3)
    file.drop_cache()
    assert file.read(9, 0) == b"012ab"
    disk.power_cut(keep)
    assert disk.contents(PATH) == {"a": b"012ab"}


def test_a_later_sync_of_a_directory_covers_a_failed_one(
    disk: SimulatedDisk, directory: Directory
) -> None:
    """Names that a failed sync left undecided are durable after a successful one."""
    put_file(directory, "a", b"", synced=False)
    disk.fail("sync_directory", errno.EIO)
    assert error_of(directory.sync) == errno.EIO
    put_file(directory, "b", b"", synced=False)
    directory.sync()
    disk.power_cut(lose)
    assert disk.contents(PATH) == {"a": b"", "b": b""}


def test_faults_strike_the_chosen_calls(disk: SimulatedDisk, directory: Directory) -> None:
    """`fail` counts the calls of one operation on some paths, and affects no other call."""
    file, other = put_file(directory, "a.seg", b""), put_file(directory, "b.tmp", b"")
    disk.fail("write", errno.ENOSPC, path=".seg", after=2, times=2)
    results = [error_of(lambda: file.write(b"-", 0)) for _ in range(6)]
    assert results == [None, None, errno.ENOSPC, errno.ENOSPC, None, None]
    disk.fail("write", errno.EROFS, path=".seg", times=None)
    assert {error_of(lambda: file.write(b"-", 0)) for _ in range(9)} == {errno.EROFS}
    assert error_of(lambda: other.write(b"-", 0)) is None
    assert error_of(lambda: directory.open("a.seg", "read")) is None


def test_a_refused_operation_changes_nothing(disk: SimulatedDisk, directory: Directory) -> None:
    """An operation that `before` refuses leaves everything as it was."""
    file = put_file(directory, "a", b"0123")

    def refuse(operation: str, path: str) -> None:
        raise OSError(errno.EIO, "refused", path)

    operations_before = list(disk.operations)
    disk.before = refuse
    calls: list[Callable[[], object]] = [
        lambda: file.write(b"-", 0),
        lambda: file.truncate(0),
        lambda: file.allocate(9),
        lambda: directory.open("b", "create"),
        lambda: directory.rename("a", "b"),
        lambda: directory.remove("a"),
        lambda: disk.open_directory("/other", write=True),
    ]
    assert [error_of(call) for call in calls] == [errno.EIO] * len(calls)
    disk.before = None
    assert (disk.contents(PATH), disk.operations) == ({"a": b"0123"}, operations_before)
    assert error_of(lambda: disk.open_directory("/other", write=False)) == errno.ENOENT


def test_calls_after_a_crash_meet_no_faults(disk: SimulatedDisk, directory: Directory) -> None:
    """A call after a crash or a kill raises EIO without asking `before`, so none is retried."""
    file = put_file(directory, "a", b"")
    disk.before = lambda operation, path: pytest.fail("`before` was asked after a crash")
    disk.crash_after(0)
    assert error_of(lambda: file.write(b"-", 0)) == errno.EIO
    disk.kill()
    assert error_of(lambda: file.write(b"-", 0)) == errno.EIO


def test_a_sync_that_fails_after_a_kill_loses_nothing(
    disk: SimulatedDisk, directory: Directory
) -> None:
    """A dead process's thread that is still in a sync can't damage what the next process has."""
    file = put_file(directory, "a", b"0123")
    file.write(b"-", 0)

    def fail(operation: str, path: str) -> None:
        disk.before = None
        disk.kill()
        raise OSError(errno.ENOSPC, "too late", path)

    disk.before = fail
    assert error_of(file.sync) == errno.EIO
    disk.power_cut(keep)
    assert disk.contents(PATH) == {"a": b"-123"}


def test_a_before_hook_that_waits_blocks_no_other_thread(
    disk: SimulatedDisk, directory: Directory
) -> None:
    """A sync that a hook holds back is like a slow disk: other calls continue meanwhile."""
    file = put_file(directory, "a", b"0123")
    started, may_continue = threading.Event(), threading.Event()

    def wait(operation: str, path: str) -> None:
        if operation == "sync":
            started.set()
            assert may_continue.wait(30)

    disk.before = wait
    results: list[int | None] = []
    syncing = threading.Thread(target=lambda: results.append(error_of(file.sync)))
    syncing.start()
    assert started.wait(30)
    file.write(b"-", 0)
    assert file.read(4, 0) == b"-123"
    disk.kill()  # the waiting sync now belongs to a dead process
    disk.before = None
    may_continue.set()
    syncing.join(30)
    assert results == [errno.EIO]
    disk.power_cut(lose)
    assert disk.contents(PATH) == {"a": b"0123"}


def test_write_bytes_max_bounds_each_write(disk: SimulatedDisk, directory: Directory) -> None:
    """`write_bytes_max` bounds each write, which returns how many bytes it took."""
    file = put_file(directory, "a", b"")
    disk.write_bytes_max = 3
    assert (file.write(b"abcdef", 0), file.write(b"xy", 3)) == (3, 2)
    assert file.read(9, 0) == b"abcxy"


def test_a_full_disk_takes_the_bytes_that_fit(disk: SimulatedDisk, directory: Directory) -> None:
    """Past `capacity`, a write is short, and the next one raises ENOSPC.

    Allocated space can be written, and freed space can be used again.
    """
    disk.capacity = 10
    file, other = put_file(directory, "a", b"0123"), put_file(directory, "b", b"")
    other.allocate(4)
    assert file.write(b"abcd", 4) == 2
    assert error_of(lambda: file.write(b"cd", 6)) == errno.ENOSPC
    assert file.write(b"full", 1) == 4
    assert other.write(b"4567", 0) == 4
    assert error_of(lambda: other.write(b"8", 4)) == errno.ENOSPC
    assert error_of(lambda: other.allocate(5)) == errno.ENOSPC
    disk.capacity = 12
    assert error_of(lambda: other.allocate(99)) == errno.ENOSPC
    assert other.read(9, 0) == b"4567\0\0"
    other.truncate(4)
    assert file.write(b"cd", 6) == 2
    directory.remove("b")
    assert file.write(b"efghi", 8) == 4


def test_capacity_below_the_used_space_refuses_new_bytes(
    disk: SimulatedDisk, directory: Directory
) -> None:
    """A disk that others have filled takes no new bytes, but existing bytes can be overwritten."""
    file = put_file(directory, "a", b"0123")
    disk.capacity = 2
    assert file.write(b"abcd", 2) == 2
    assert error_of(lambda: file.write(b"-", 4)) == errno.ENOSPC


def test_a_power_cut_frees_undone_allocations(disk: SimulatedDisk, directory: Directory) -> None:
    """Allocated and unsynced space is free again when the allocation is lost."""
    file = put_file(directory, "a", b"")
    put_file(directory, "b", b"")
    disk.capacity = 4
    file.allocate(4)
    disk.power_cut(lose)
    assert disk.open_directory(PATH, write=True).open("b", "update").write(b"0123", 0) == 4


# --- crash points ---


def test_a_crash_comes_after_a_number_of_mutations(
    disk: SimulatedDisk, directory: Directory
) -> None:
    """After n more mutations, every call fails and changes nothing, until the process ends."""

    def work() -> None:
        file = put_file(directory, "a", b"0123", synced=False)
        assert file.size() == 4
        file.sync()
        directory.sync()

    count_before = len(disk.operations)
    disk.crash_after(3)
    with pytest.raises(OSError, match="EIO"):
        work()
    assert [operation for operation, _ in disk.operations[count_before:]] == [
        "create",
        "write",
        "sync",
    ]
    uses: list[Callable[[], object]] = [
        directory.names,
        lambda: directory.open("a", "read"),
        lambda: directory.remove("a"),
        lambda: disk.open_directory(PATH, write=False),
    ]
    assert [error_of(use) for use in uses] == [errno.EIO] * len(uses)
    assert disk.contents(PATH) == {"a": b"0123"}
    disk.power_cut(lambda change: change.data if change.operation == "create" else None)
    assert disk.contents(PATH) == {"a": b"0123"}
    disk.open_directory(PATH, write=True).remove("a")


def test_a_crash_in_a_sync_leaves_its_writes_undecided(
    disk: SimulatedDisk, directory: Directory
) -> None:
    """An outcome may still keep the writes that a crash stopped from being synced."""
    file = put_file(directory, "a", b"")
    file.write(b"0123", 0)
    disk.crash_after(0)
    assert error_of(file.sync) == errno.EIO
    disk.power_cut(keep)
    assert disk.contents(PATH) == {"a": b"0123"}


def test_reads_do_not_crash(disk: SimulatedDisk, directory: Directory) -> None:
    """A read does not set off the crash, so that synced records can be acknowledged first."""
    file = put_file(directory, "a", b"0123")
    disk.crash_after(0)
    assert file.is_linked()
    assert file.read(4, 0) == b"0123"
    assert error_of(lambda: file.write(b"-", 0)) == errno.EIO
    assert error_of(file.is_linked) == errno.EIO
    assert error_of(lambda: disk.open_directory("/new", write=True)) == errno.EIO


# --- clock and ids ---


def test_clock_and_ids_are_reproducible() -> None:
    """Two disks give the same times and ids, so that the same calls give the same bytes."""
    first, second = SimulatedDisk(), SimulatedDisk()
    assert [first.now_ns() for _ in range(3)] == [second.now_ns() for _ in range(3)]
    assert [first.new_id() for _ in range(3)] == [second.new_id() for _ in range(3)]
    first.clock_ns, first.tick_ns = 10**18, 5
    assert [first.now_ns(), first.now_ns()] == [10**18, 10**18 + 5]
