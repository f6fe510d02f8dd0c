"""What the explorer takes for the outcomes of a crash: those of the simulated disk, all of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.testing import Bounds, Change, SimulatedDisk, fates, keep, lose
from journal.testing.medium import Medium
from journal.testing.outcomes import fingerprint, outcomes
from tests.crash.crash_support import every_choice

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
    """A disk on which all that was done, as far as it could be."""
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
        for image in outcomes(medium.folders[PATH], PATH, bounds)
    ]


def lasting(medium: Medium) -> list[dict[str, bytes]]:
    """The same by power cuts, one for each way in which an outcome can be chosen."""
    found = []
    for choose in every_choice():
        disk = SimulatedDisk(medium)

        def outcome(change: Change, choose: Callable[[int], int] = choose) -> bytes | None:
            ways = list(fates(change).values())
            return ways[choose(len(ways))]

        disk.power_cut(outcome)
        found.append(disk.contents(PATH))
    return found


def unsynced(medium: Medium) -> int:
    folder = medium.folders[PATH]
    inodes = {id(inode): inode for inode in (*folder.now.values(), *folder.stable.values())}
    return len(folder.unsynced) + sum(len(inode.unsynced) for inode in inodes.values())


@given(steps=STEPS)
def test_the_outcomes_explored_are_those_of_power_cuts(steps: list[tuple[object, ...]]) -> None:
    """No outcome is left out within the bounds, and none is made up."""
    medium = run(steps).snapshot()
    while unsynced(medium) > 4:
        steps = steps[:-1]
        medium = run(steps).snapshot()
    one, other = explored(medium, ALL), lasting(medium)
    assert {repr(image) for image in one} == {repr(image) for image in other}


@given(steps=STEPS, outcomes_max=st.integers(1, 40), deviations=st.integers(1, 2))
def test_bounds_keep_what_is_nearest(
    steps: list[tuple[object, ...]], outcomes_max: int, deviations: int
) -> None:
    """Where there are too many outcomes, all kept and all lost are among those that are taken."""
    disk = run(steps)
    medium = disk.snapshot()
    bounds = Bounds(outcomes_max=outcomes_max, deviations=deviations)
    few = explored(medium, bounds)
    for outcome in (keep, lose):
        cut = SimulatedDisk(medium)
        cut.power_cut(outcome)
        assert cut.contents(PATH) in few
    if unsynced(medium) <= 4:
        assert all(image in explored(medium, ALL) for image in few)


def test_few_deviations_are_few() -> None:
    """The number of outcomes grows with the unsynced changes, not with the power of it."""
    steps: list[tuple[object, ...]] = [("write", "a", 3 * at, 3) for at in range(12)]
    counts = [len(explored(run(steps).snapshot(), Bounds(deviations=n))) for n in (1, 2)]
    assert counts[0] == counts[1] < 256 < len(explored(run(steps[:4]).snapshot(), ALL))
    wide = Bounds(outcomes_max=10**4, deviations=2)
    assert 256 < len(explored(run(steps).snapshot(), wide)) <= 10**4


def test_content_that_is_never_read_adds_no_outcomes() -> None:
    """Of a `*.tmp` all or nothing is there; what stands in LOCK does not count, only its name."""
    disk = SimulatedDisk()
    directory = disk.open_directory(PATH, write=True)
    for name in ("LOCK", "a.tmp"):
        file = directory.open(name, "create")
        for at in range(5):
            file.write(b"xyz", 3 * at)
    images = explored(disk.snapshot(), ALL)
    tmp: list[dict[str, bytes]] = [{}, {"a.tmp": b""}, {"a.tmp": b"xyz" * 5}]
    expected = [{**lock, **rest} for lock, rest in product(({}, {"LOCK": b""}), tmp)]
    assert sorted(map(repr, images)) == sorted(map(repr, expected))


def test_equal_images_have_equal_keys() -> None:
    """The same names and bytes are one image, however they came about; other ones are others."""
    steps: list[tuple[object, ...]] = [("write", "a", 0, 5), ("write", "b", 0, 5)]
    images = list(outcomes(run(steps).snapshot().folders[PATH], PATH, ALL))
    keys = {repr(sorted(i.medium.contents(PATH).items())): i.key for i in images}
    assert len(set(keys.values())) == len(keys) == len(images)
    again = outcomes(run([*steps, ("sync", "a")]).snapshot().folders[PATH], PATH, ALL)
    for image in again:
        assert keys[repr(sorted(image.medium.contents(PATH).items()))] == image.key


@pytest.mark.parametrize(
    ("steps", "same"),
    [
        ([], True),
        ([("sync", "nobody")], True),
        ([("write", "a", 0, 5)], False),
        ([("sync", "a")], False),
        ([("rename", "a", "b")], False),
        ([("sync_directory",)], False),
    ],
)
def test_fingerprints_tell_what_crashes_leave(steps: list[tuple[object, ...]], same: bool) -> None:
    """Two moments are one only if a crash leaves the same of both."""
    begin: list[tuple[object, ...]] = [("write", "a", 0, 5)]
    one, other = run(begin).snapshot(), run([*begin, *steps]).snapshot()
    assert (fingerprint(one.folders[PATH]) == fingerprint(other.folders[PATH])) == same
    assert fingerprint(one.copy().folders[PATH]) == fingerprint(one.folders[PATH])
