"""The simulated disk's extras: copies of the machine, a hook before each change, older contents,
sectors, and the sync of a range."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal._disk.disk import Directory
from journal.testing import (
    Change,
    Outcome,
    SimulatedDisk,
    fates,
    keep,
    lose,
)
from tests.support import PATH, put_file, scripted


def asked_changes(disk: SimulatedDisk, decide: Outcome = keep) -> list[Change]:
    """Cut the power and return the changes that it asks about."""
    changes: list[Change] = []

    def outcome(change: Change) -> bytes | None:
        changes.append(change)
        return decide(change)

    disk.power_cut(outcome)
    return changes


# --- copies of the machine ---


def test_a_snapshot_is_an_independent_machine(disk: SimulatedDisk, directory: Directory) -> None:
    """A snapshot contains cached and stable contents, and unsynced changes of bytes and names.

    The copy and the original do not affect each other.
    """
    file = put_file(directory, "a", b"0123")
    file.write(b"-", 0)
    put_file(directory, "b", b"")
    directory.rename("b", "c")
    snapshot = disk.snapshot()
    file.write(b"++", 2)
    directory.remove("c")
    twin = SimulatedDisk(snapshot)
    assert twin.contents(PATH) == {"a": b"-123", "c": b""}
    twin.power_cut(lose)
    assert twin.contents(PATH) == {"a": b"0123", "b": b""}
    twin = SimulatedDisk(snapshot)
    twin.open_directory(PATH, write=True).sync()
    twin.power_cut(keep)
    assert twin.contents(PATH) == {"a": b"-123", "c": b""}
    assert disk.contents(PATH) == {"a": b"-1++"}
    disk.power_cut(lose)
    assert disk.contents(PATH) == {"a": b"0123", "b": b""}


def test_a_snapshot_holds_no_lock(disk: SimulatedDisk, directory: Directory) -> None:
    """No process runs in a snapshot yet: its lock is free, and the original's is held."""
    directory.lock()
    twin = SimulatedDisk(disk.snapshot()).open_directory(PATH, write=True)
    assert twin.lock_holder() is None
    twin.lock()
    assert directory.lock_holder() == disk.pid


def test_a_snapshot_keeps_clean_pages_that_are_not_on_the_disk(
    disk: SimulatedDisk, directory: Directory
) -> None:
    """P2: After a failed sync, a snapshot reads like the original until its cache is dropped."""
    file = put_file(directory, "a", b"0123")
    file.write(b"abcd", 0)
    disk.fail("sync", 5)
    with pytest.raises(OSError, match="EIO"):
        file.sync()
    twin = SimulatedDisk(disk.snapshot()).open_directory(PATH, write=True).open("a", "update")
    assert twin.read(9, 0) == b"abcd"
    twin.sync()
    twin.drop_cache()
    assert twin.read(9, 0) == b"0123"


def test_a_disk_can_start_with_durable_files() -> None:
    """`holding` makes a disk whose files exist from the start, and are durable."""
    disk = SimulatedDisk.holding(PATH, {"a": b"0123", "b": b""})
    assert asked_changes(disk) == []
    assert disk.contents(PATH) == {"a": b"0123", "b": b""}
    assert disk.contents("/elsewhere") == {}


def test_watch_is_called_before_each_change(disk: SimulatedDisk) -> None:
    """`watch` is called before each mutation, while the disk is unchanged, and never for reads."""
    watched: list[tuple[str, str, dict[str, bytes]]] = []

    def watch(operation: str, path: str) -> None:
        watched.append((operation, path, SimulatedDisk(disk.snapshot()).contents(PATH)))

    disk.watch = watch
    file = disk.open_directory(PATH, write=True).open("a", "create")
    file.write(b"0123", 0)
    assert file.read(4, 0) == b"0123"
    file.truncate(2)
    assert watched == [
        ("make_directory", PATH, {}),
        ("create", f"{PATH}/a", {}),
        ("write", f"{PATH}/a", {"a": b""}),
        ("truncate", f"{PATH}/a", {"a": b"0123"}),
    ]
    disk.crash_after(0)
    with pytest.raises(OSError, match="EIO"):
        file.sync()
    assert len(watched) == 4, "a call that fails is not watched"


# --- outcomes of a write ---


def test_a_change_states_the_old_bytes(disk: SimulatedDisk, directory: Directory) -> None:
    """An outcome gets the old bytes of a write's range, as earlier changes left them."""
    file = put_file(directory, "a", b"0123")
    file.write(b"ab", 1)
    file.write(b"xyz", 2)
    assert [(c.data, c.old) for c in asked_changes(disk)] == [(b"ab", b"12"), (b"xyz", b"b3\0")]
    assert disk.contents(PATH) == {"a": b"0axyz"}


def test_a_range_may_get_older_contents(disk: SimulatedDisk, directory: Directory) -> None:
    """Older contents come from this file before its last sync, or from an older file.

    The blocks of an older file may have been reused. A file too small for blocks gives none.
    """
    put_file(directory, "note", b"pid 1")
    put_file(directory, "older", b"o" * 70)
    file = put_file(directory, "a", b"first")
    file.write(b"again", 0)
    file.sync()
    file.write(b"now", 1)
    [change] = asked_changes(disk, lambda change: change.stale[0])
    assert (change.old, change.stale) == (b"gai", (b"irs", b"ooo"))
    assert disk.contents(PATH)["a"] == b"airsn"


def test_fates_names_every_outcome_of_a_write_once(
    disk: SimulatedDisk, directory: Directory
) -> None:
    """A write can be kept, lost, torn at bytes or sectors, zeroed, garbled or stale.

    Each outcome has its own name, and none occurs twice.
    """
    put_file(directory, "older", b"s" * 2000)
    file = put_file(directory, "a", b"o" * 2000)
    file.write(b"n" * 1200, 400)
    [change] = asked_changes(disk)
    assert change.sectors == [112, 624, 1136]
    outcomes = fates(change)
    assert list(outcomes) == [
        *("kept", "lost", "torn after 1", "torn after 3", "torn after 112", "torn after 512"),
        *("torn after 1136", "torn after 1199", "torn before 112", "torn before 1136"),
        *("zeros", "garbage", "stale 1"),
    ]
    assert outcomes["torn after 112"] == b"n" * 112
    assert outcomes["torn before 1136"] == b"o" * 1136 + b"n" * 64
    assert outcomes["stale 1"] == b"s" * 1200
    small = Change("write", "", 0, b"\0\0", b"\0\0")
    assert list(fates(small)) == ["kept", "lost", "garbage"]
    assert list(fates(Change("rename", ""))) == ["kept", "lost"]


@pytest.mark.parametrize(
    ("draws", "damage", "after"),
    [
        ([3, 1, 0, 1], False, b"o" * 512 + b"n" * 512 + b"o" * 176),
        ([3, 0, 1, 1], False, b"n" * 512 + b"o" * 688),
        ([5, 0], True, b"s" * 1200),
        ([6, 1, 1, 0], True, b"o" * 1024 + b"n" * 176),
    ],
)
def test_drawn_outcomes_reach_sectors_and_older_contents(
    disk: SimulatedDisk, directory: Directory, draws: list[int], damage: bool, after: bytes
) -> None:
    """Any of a write's sectors may be on disk without the others, in any order."""
    put_file(directory, "older", b"s" * 1200)
    put_file(directory, "a", b"o" * 1200).write(b"n" * 1200, 0)
    disk.power_cut(scripted(draws, damage=damage))
    assert disk.contents(PATH)["a"] == after


# --- a sync of a range ---


def test_a_sync_of_a_range_covers_that_range_only(
    disk: SimulatedDisk, directory: Directory
) -> None:
    """P2: A write before the range stays unsynced, and so do the bytes beside it."""
    file = put_file(directory, "a", b"..........")
    file.write(b"mark", 0)
    file.write(b"frame", 4)
    file.sync_range(5, 4)
    assert [(c.offset, c.data) for c in asked_changes(disk, lose)] == [(0, b"mark")]
    assert disk.contents(PATH) == {"a": b"....frame."}


SPANS = st.tuples(st.integers(0, 12), st.integers(1, 8))


@given(writes=st.lists(SPANS, max_size=4), size=st.none() | st.integers(0, 12), span=SPANS)
def test_a_synced_range_reads_as_before(
    writes: list[tuple[int, int]], size: int | None, span: tuple[int, int]
) -> None:
    """A synced range reads as it was written, whatever happens to the rest of the file."""
    disk = SimulatedDisk()
    file = put_file(disk.open_directory(PATH, write=True), "a", b"0123456789")
    for number, (offset, length) in enumerate(writes):
        file.write(b"abcd"[number : number + 1] * length, offset)
        if number == 1 and size is not None:
            file.truncate(size)
    before, (offset, length) = file.read(99, 0), span
    file.sync_range(length, offset)
    assert file.read(99, 0) == before
    kept, lost = SimulatedDisk(disk.snapshot()), SimulatedDisk(disk.snapshot())
    kept.power_cut(keep)
    lost.power_cut(lose)
    assert kept.contents(PATH)["a"] == before
    end = min(len(before), offset + length)
    assert lost.contents(PATH)["a"][offset:end].ljust(end - offset, b"\0") == before[offset:end]
