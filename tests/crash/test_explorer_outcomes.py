"""The outcomes of a crash that the explorer tries: exactly those of the simulated disk."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.testing import Bounds, Change, SimulatedDisk, fates, keep, lose
from journal.testing.medium import Medium
from journal.testing.outcomes import fingerprint
from tests.crash.crash_support import every_choice, images_of

PATH = "/journal"
ALL = Bounds(outcomes_max=10**9)

names = st.sampled_from(["a", "b", "c"])
writes = st.tuples(st.just("write"), names, st.sampled_from([0, 3, 510]), st.sampled_from([1, 5]))
STEPS = st.lists(
    st.one_of(
        writes,
        st.tuples(st.sampled_from(["truncate", "allocate"]), names, st.sampled_from([2, 600])),
        st.tuples(st.sampled_from(["sync", "remove"]), names),
        st.tuples(st.just("rename"), names, names),
        st.tuples(st.just("sync_directory")),
    ),
    max_size=7,
)


def run(steps: list[tuple[object, ...]]) -> SimulatedDisk:
    """Return a disk on which the steps were carried out. Impossible steps are skipped."""
    disk = SimulatedDisk()
    directory = disk.open_directory(PATH, write=True)
    for number, (step, *arguments) in enumerate(steps, 1):
        match step, arguments:
            case "write", [str(name), int(offset), int(size)]:
                mode = "update" if name in directory.names() else "create"
                file = directory.open(name, mode)  # type: ignore[arg-type] # one of the two
                file.write(bytes([number]) * size, offset)
            case "truncate", [str(name), int(size)] if name in directory.names():
                directory.open(name, "update").truncate(size)
            case "allocate", [str(name), int(size)] if name in directory.names():
                directory.open(name, "update").allocate(size)
            case "sync", [str(name)] if name in directory.names():
                directory.open(name, "update").sync()
            case "remove", [str(name)] if name in directory.names():
                directory.remove(name)
            case "rename", [str(old), str(new)] if old in directory.names():
                directory.rename(old, new)
            case "sync_directory", _:
                directory.sync()
    return disk


def explored(medium: Medium, bounds: Bounds) -> list[dict[str, bytes]]:
    return [
        {name: content.read(content.size, 0) for name, content in sorted(image.files.items())}
        for image in images_of(medium, bounds)
    ]


def power_cut_outcomes(medium: Medium) -> list[dict[str, bytes]]:
    """Return the contents after power cuts, one for each way to choose an outcome."""
    contents = []
    for choose in every_choice():
        disk = SimulatedDisk(medium)

        def outcome(change: Change, choose: Callable[[int], int] = choose) -> bytes | None:
            results = list(fates(change).values())
            return results[choose(len(results))]

        disk.power_cut(outcome)
        contents.append(disk.contents(PATH))
    return contents


def unsynced(medium: Medium) -> int:
    folder = medium._folders[PATH]
    inodes = {id(inode): inode for inode in (*folder.now.values(), *folder.stable.values())}
    return len(folder.unsynced) + sum(len(inode.unsynced) for inode in inodes.values())


@given(steps=STEPS)
def test_the_explored_outcomes_are_those_of_power_cuts(steps: list[tuple[object, ...]]) -> None:
    """The explorer leaves out no outcome within its bounds, and invents none."""
    medium = run(steps).snapshot()
    while unsynced(medium) > 4:
        steps = steps[:-1]
        medium = run(steps).snapshot()
    explored_images, power_cut_images = explored(medium, ALL), power_cut_outcomes(medium)
    assert {repr(image) for image in explored_images} == {repr(image) for image in power_cut_images}


@given(steps=STEPS, outcomes_max=st.integers(1, 40), deviations=st.integers(1, 2))
def test_bounded_outcomes_include_all_kept_and_all_lost(
    steps: list[tuple[object, ...]], outcomes_max: int, deviations: int
) -> None:
    """If there are too many outcomes, the chosen ones include all changes kept and all lost."""
    disk = run(steps)
    medium = disk.snapshot()
    bounds = Bounds(outcomes_max=outcomes_max, deviations=deviations)
    chosen = explored(medium, bounds)
    for outcome in (keep, lose):
        cut = SimulatedDisk(medium)
        cut.power_cut(outcome)
        assert cut.contents(PATH) in chosen
    if unsynced(medium) <= 4:
        assert all(image in explored(medium, ALL) for image in chosen)


def test_bounded_deviations_give_few_outcomes() -> None:
    """The number of outcomes grows with the number of unsynced changes, not exponentially."""
    steps: list[tuple[object, ...]] = [("write", "a", 3 * at, 3) for at in range(12)]
    counts = [len(explored(run(steps).snapshot(), Bounds(deviations=n))) for n in (1, 2)]
    assert counts[0] == counts[1] < 256 < len(explored(run(steps[:4]).snapshot(), ALL))
    wide = Bounds(outcomes_max=10**4, deviations=2)
    assert 256 < len(explored(run(steps).snapshot(), wide)) <= 10**4


def test_content_that_is_never_read_adds_no_outcomes() -> None:
    """A `*.tmp` file keeps all of its content or none. Of LOCK, only the name counts."""
    disk = SimulatedDisk()
    directory = disk.open_directory(PATH, write=True)
    for name in ("LOCK", "a.tmp"):
        file = directory.open(name, "create")
        for at in range(5):
            file.write(b"xyz", 3 * at)
    images = explored(disk.snapshot(), ALL)
    tmp_images: list[dict[str, bytes]] = [{}, {"a.tmp": b""}, {"a.tmp": b"xyz" * 5}]
    expected = [{**lock, **rest} for lock, rest in product(({}, {"LOCK": b""}), tmp_images)]
    assert sorted(map(repr, images)) == sorted(map(repr, expected))


def test_equal_images_have_equal_keys() -> None:
    """Images with the same names and bytes have the same key, and other images have others."""
    steps: list[tuple[object, ...]] = [("write", "a", 0, 5), ("write", "b", 0, 5)]
    images = list(images_of(run(steps).snapshot(), ALL))
    keys = {repr(sorted(i.medium.contents(PATH).items())): i.key for i in images}
    assert len(set(keys.values())) == len(keys) == len(images)
    synced_images = images_of(run([*steps, ("sync", "a")]).snapshot(), ALL)
    for image in synced_images:
        assert keys[repr(sorted(image.medium.contents(PATH).items()))] == image.key


@pytest.mark.parametrize(
    ("steps", "same"),
    [
        ([], True),
        ([("sync", "missing")], True),
        ([("write", "a", 0, 5)], False),
        ([("sync", "a")], False),
        ([("rename", "a", "b")], False),
        ([("sync_directory",)], False),
    ],
)
def test_fingerprints_differ_if_crashes_leave_different_files(
    steps: list[tuple[object, ...]], same: bool
) -> None:
    """Two moments have the same fingerprint only if a crash leaves the same files after both."""
    begin: list[tuple[object, ...]] = [("write", "a", 0, 5)]
    before, after = run(begin).snapshot(), run([*begin, *steps]).snapshot()
    assert (fingerprint(before._folders[PATH]) == fingerprint(after._folders[PATH])) == same
    assert fingerprint(before.copy()._folders[PATH]) == fingerprint(before._folders[PATH])
