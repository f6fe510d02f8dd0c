"""A power cut on the simulated disk: it has every outcome that a real one can have, and no
other."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal._disk.disk import Directory
from journal.testing import Change, Outcome, SimulatedDisk, keep, lose, seeded
from tests.crash.crash_support import drawn_by
from tests.support import PATH, put_file, scripted

SUBSETS = list(itertools.product([True, False], repeat=3))


def answers(*kept: bool) -> Outcome:
    """Return an outcome that keeps or loses each change in turn, as `kept` says."""
    remaining = iter(kept)
    return lambda change: change.data if next(remaining) else None


# --- contents after a power cut ---


def test_synced_writes_survive_a_power_cut(disk: SimulatedDisk, directory: Directory) -> None:
    """A synced write to a file with a synced name survives the worst outcome."""
    put_file(directory, "a", b"0123")
    disk.power_cut(lose)
    assert disk.contents(PATH) == {"a": b"0123"}


def test_a_file_and_its_name_are_synced_separately(
    disk: SimulatedDisk, directory: Directory
) -> None:
    """A synced file may lose its unsynced name, and a synced name its unsynced contents."""
    put_file(directory, "a", b"0123", synced=False).sync()
    disk.power_cut(lose)
    assert disk.contents(PATH) == {}
    directory = disk.open_directory(PATH, write=True)
    put_file(directory, "a", b"0123", synced=False)
    directory.sync()
    disk.power_cut(lose)
    assert disk.contents(PATH) == {"a": b""}


@pytest.mark.parametrize(
    ("written", "after"),
    [
        (b"abcd", b"01abcd6789"),
        (None, b"0123456789"),
        (b"", b"0123456789"),
        (b"abc", b"01abc56789"),
        (b"\0\0\0\0", b"01\0\0\0\x006789"),
        (b"wxyz", b"01wxyz6789"),
        (b"a3c5", b"01a3c56789"),  # torn in the middle: any mix of old and new
    ],
)
def test_an_unsynced_write_may_leave_anything_in_its_range(
    disk: SimulatedDisk, directory: Directory, written: bytes | None, after: bytes
) -> None:
    """A write may be kept, lost, torn, or become zeros or garbage. Nothing outside it changes."""
    put_file(directory, "a", b"0123456789").write(b"abcd", 2)

    def outcome(change: Change) -> bytes | None:
        assert change == Change("write", f"{PATH}/a", 2, b"abcd")
        return written

    disk.power_cut(outcome)
    assert disk.contents(PATH) == {"a": after}


def test_an_outcome_outside_the_written_range_is_refused(
    disk: SimulatedDisk, directory: Directory
) -> None:
    """An outcome that would damage bytes outside the write is an error of the test."""
    put_file(directory, "a", b"0123").write(b"-", 1)
    with pytest.raises(AssertionError, match="longer than the write"):
        disk.power_cut(lambda _: b"--")


@pytest.mark.parametrize(
    ("draws", "after"),
    [
        ([0], b"abcd"),
        ([1], b"0123"),
        ([2, 0], b"abc3"),
        ([2, 3], b"0123"),
        ([3], b"\0\0\0\0"),
        ([4, 7], random.Random(7).randbytes(4)),
    ],
)
def test_draws_reach_every_kind_of_outcome(
    disk: SimulatedDisk, directory: Directory, draws: list[int], after: bytes
) -> None:
    """Every kind of outcome is the result of some draw, and a draw of 0 keeps the change."""
    put_file(directory, "a", b"0123").write(b"abcd", 0)
    disk.power_cut(scripted(draws, damage=True))
    assert disk.contents(PATH) == {"a": after}


@pytest.mark.parametrize("damage", [True, False])
def test_seeds_reach_every_kind_of_outcome(damage: bool) -> None:
    """A seed always gives the same outcome. Seeds give every kind, and damage only on request."""

    def outcome(seed: int) -> bytes:
        disk = SimulatedDisk()
        put_file(disk.open_directory(PATH, write=True), "a", b"0123").write(b"abcd", 0)
        disk.power_cut(seeded(seed, damage=damage))
        return disk.contents(PATH)["a"]

    contents = [outcome(seed) for seed in range(200)]
    assert contents == [outcome(seed) for seed in range(200)]
    plain = {b"abcd", b"0123", b"abc3", b"ab23", b"a123"}
    assert plain <= set(contents)
    assert (b"\0\0\0\0" in contents, set(contents) > plain) == (damage, damage)


@pytest.mark.parametrize("kept", SUBSETS)
def test_each_write_is_decided_separately(
    disk: SimulatedDisk, directory: Directory, kept: tuple[bool, ...]
) -> None:
    """A later write may be on disk without an earlier one. The hole between them reads as zeros."""
    file = put_file(directory, "a", b"-")
    for index in range(3):
        file.write(b"%d" % index, index + 1)
    disk.power_cut(answers(*kept))
    expected = b"-" + b"".join(b"%d" % i if kept[i] else b"\0" for i in range(3))
    assert disk.contents(PATH) == {"a": expected.rstrip(b"\0")}


@pytest.mark.parametrize(
    ("kept_cut", "kept_growth", "after"),
    [
        (True, True, b"01\0\0\0\0"),
        (True, False, b"01"),
        (False, True, b"0123\0\0"),
        (False, False, b"0123"),
    ],
)
def test_each_change_of_size_is_decided_separately(
    disk: SimulatedDisk, directory: Directory, kept_cut: bool, kept_growth: bool, after: bytes
) -> None:
    """An unsynced truncate and an unsynced allocation may each be undone."""
    file = put_file(directory, "a", b"0123")
    file.truncate(2)
    file.allocate(6)
    disk.power_cut(answers(kept_cut, kept_growth))
    assert disk.contents(PATH) == {"a": after}


def test_a_synced_change_is_not_decided_again(disk: SimulatedDisk, directory: Directory) -> None:
    """A power cut decides only changes that neither a sync nor an earlier cut has decided."""
    file = put_file(directory, "a", b"0123")
    file.truncate(2)
    file.sync()
    file.write(b"-", 0)
    directory.open("b", "create")
    disk.power_cut(lose)
    disk.power_cut(lambda change: pytest.fail(f"asked about {change}"))
    assert disk.contents(PATH) == {"a": b"01"}


# --- names after a power cut ---


@pytest.mark.parametrize("kept", SUBSETS)
def test_each_change_of_a_name_is_decided_separately(
    disk: SimulatedDisk, directory: Directory, kept: tuple[bool, ...]
) -> None:
    """Any subset of a create, a removal and a rename may be on disk."""
    put_file(directory, "b", b"")
    put_file(directory, "c", b"")
    directory.open("a", "create")
    directory.remove("b")
    directory.rename("c", "d")
    disk.power_cut(answers(*kept))
    created, removed, renamed = kept
    expected = ["a"] * created + ["b"] * (not removed) + ["d" if renamed else "c"]
    assert sorted(disk.contents(PATH)) == expected


@pytest.mark.parametrize(("kept", "after"), [(False, {"a": b"0123"}), (True, {})])
def test_an_undone_removal_restores_the_file(
    disk: SimulatedDisk, directory: Directory, kept: bool, after: dict[str, bytes]
) -> None:
    """A removed file can come back with its contents until its removal is synced."""
    put_file(directory, "a", b"0123")
    directory.remove("a")
    disk.power_cut(answers(kept))
    assert disk.contents(PATH) == after


def test_a_rename_is_atomic(disk: SimulatedDisk, directory: Directory) -> None:
    """After a power cut, both files have their old names, or the new name has the new file."""
    put_file(directory, "new", b"old content")
    put_file(directory, "tmp", b"new content")
    directory.rename("tmp", "new")
    disk.power_cut(lose)
    assert disk.contents(PATH) == {"new": b"old content", "tmp": b"new content"}
    disk.open_directory(PATH, write=True).rename("tmp", "new")
    disk.power_cut(keep)
    assert disk.contents(PATH) == {"new": b"new content"}


def test_a_rename_may_be_kept_without_its_contents(
    disk: SimulatedDisk, directory: Directory
) -> None:
    """P10: Renaming an unsynced file can lose both the old and the new contents."""
    put_file(directory, "new", b"old content")
    put_file(directory, "tmp", b"new content", synced=False)
    directory.rename("tmp", "new")
    disk.power_cut(lambda change: None if change.operation == "write" else change.data)
    assert disk.contents(PATH) == {"new": b""}


def test_a_rename_may_be_kept_without_the_create(disk: SimulatedDisk, directory: Directory) -> None:
    """A rename refers to the file itself, not to its earlier name."""
    put_file(directory, "tmp", b"0123", synced=False).sync()
    directory.rename("tmp", "new")
    disk.power_cut(lambda change: change.data if change.operation == "rename" else None)
    assert disk.contents(PATH) == {"new": b"0123"}


def test_a_later_create_of_the_old_name_keeps_the_rename(
    disk: SimulatedDisk, directory: Directory
) -> None:
    """If a later create of the old name is kept, the rename is kept too.

    Without the rename, its file would have no name.
    """
    put_file(directory, "a", b"0123")
    directory.rename("a", "b")
    directory.open("a", "create")
    disk.power_cut(answers(False, True))
    assert disk.contents(PATH) == {"a": b"", "b": b"0123"}


def test_a_kept_rename_removes_the_old_name(disk: SimulatedDisk, directory: Directory) -> None:
    """A rename that is kept takes the file from the name that an undone rename had left."""
    put_file(directory, "a", b"0123")
    directory.rename("a", "b")
    directory.rename("b", "c")
    disk.power_cut(answers(False, True))
    assert disk.contents(PATH) == {"c": b"0123"}


NAMES = st.sampled_from("abcde")


@given(steps=st.lists(st.tuples(NAMES, NAMES), max_size=12), data=st.data())
def test_no_outcome_of_renames_loses_or_duplicates_a_file(
    steps: list[tuple[str, str]], data: st.DataObject
) -> None:
    """A durable file that was only renamed has exactly one name after any outcome."""
    disk = SimulatedDisk()
    directory = disk.open_directory(PATH, write=True)
    for name in "abc":
        put_file(directory, name, name.encode())
    for old, new in steps:
        names = directory.names()
        if old in names and new not in names:
            directory.rename(old, new)
        elif old not in names:
            directory.open(old, "create")
    disk.power_cut(drawn_by(data))
    assert sorted(filter(None, disk.contents(PATH).values())) == [b"a", b"b", b"c"]


def test_directories_are_decided_separately(disk: SimulatedDisk, directory: Directory) -> None:
    """A disk can hold several journals, and a sync of one does not sync another."""
    other = disk.open_directory("/other", write=True)
    put_file(directory, "a", b"1")
    put_file(other, "b", b"2", synced=False)
    disk.power_cut(lose)
    assert (disk.contents(PATH), disk.contents("/other")) == ({"a": b"1"}, {})
