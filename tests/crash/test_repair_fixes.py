"""Repair of wrong names and of damaged segment headers, which loses nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import CorruptionError, DamageReason
from journal.testing import SimulatedDisk
from tests.crash.crash_support import image
from tests.crash.repair_support import fixed, repaired_again
from tests.support import FIRST, PATH, frozen, logged, names, open_on, put, reopened, write_at

SEGMENTS, RECORDS = 4, 3  # in each of them


def make(disk: SimulatedDisk) -> list[str]:
    for epoch in range(SEGMENTS):
        with open_on(disk) as journal:
            put(journal, *([epoch, at] for at in range(RECORDS)))
            if epoch == 0:
                journal.compact(frozen(journal, "as of 3")).close()
    return names(disk, ".seg")


def check_whole(disk: SimulatedDisk) -> None:
    """Check that the journal opens with every record, and that more can be appended."""
    with open_on(disk) as journal:
        everything = [[epoch, at] for epoch in range(SEGMENTS) for at in range(RECORDS)]
        assert logged(journal, 0) == everything
        put(journal, "more")
    with open_on(disk) as journal:
        assert logged(journal, 0) == [*everything, "more"]


def check_refused(disk: SimulatedDisk) -> None:
    before = disk.contents(PATH)
    with pytest.raises(CorruptionError):
        open_on(disk)
    assert disk.contents(PATH) == before


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 8), (8, 10), (10, 12), (12, 16), (16, 32), (32, 40), (40, 48), (60, 64), (0, 64)],
)
@pytest.mark.parametrize("index", [1, 3])
def test_a_damaged_header_is_rebuilt(disk: SimulatedDisk, index: int, start: int, end: int) -> None:
    """P4: Whatever is damaged in a segment's header, a repair rebuilds it from the name, the other
    files and the frames, keeps every record, and keeps the damaged file in a copy."""
    name = make(disk)[index]
    whole = disk.contents(PATH)[name]
    write_at(disk, name, start, bytes(byte ^ 0xA5 for byte in whole[start:end]))
    damaged = disk.contents(PATH)[name]
    check_refused(disk)
    report = fixed(disk)
    assert (report.rebuilt, report.renamed, report.removed) == ((name,), (), ())
    assert report.last_lsn == SEGMENTS * RECORDS
    assert report.saved_to
    assert disk.contents(report.saved_to) == {name: damaged}
    rebuilt = disk.contents(PATH)[name]
    assert rebuilt[64 : len(whole)] == whole[64:]
    if (start, end) not in ((40, 48), (0, 64)):  # only the time can't be known
        assert rebuilt[:64] == whole[:64]
    check_whole(disk)


@given(st.integers(0, 63), st.integers(1, 255), st.integers(0, SEGMENTS - 1))
def test_a_damaged_byte_of_a_header_costs_nothing(at: int, flipped: int, index: int) -> None:
    """P4: A repair of any damaged byte of any header keeps every record."""
    disk = SimulatedDisk()
    name = make(disk)[index]
    write_at(disk, name, at, bytes([disk.contents(PATH)[name][at] ^ flipped]))
    if index:
        check_refused(disk)
        assert fixed(disk).rebuilt == (name,)
        check_whole(disk)


def test_headers_of_several_segments_are_rebuilt(disk: SimulatedDisk) -> None:
    """P4: A journal whose headers are all damaged but one is rebuilt as a whole."""
    _, *segments = make(disk)
    for name in segments:
        write_at(disk, name, 0, bytes(64))
    assert fixed(disk).rebuilt == tuple(segments)
    check_whole(disk)


def test_a_header_that_no_frame_confirms_is_not_rebuilt(disk: SimulatedDisk) -> None:
    """P1, P4: If the frames do not verify with any seed, the log is cut before the segment."""
    name = make(disk)[2]
    write_at(disk, name, 0, bytes(64 + 44 + 2))
    report = fixed(disk)
    assert (report.rebuilt, report.last_lsn) == ((), 2 * RECORDS)


@pytest.mark.parametrize(
    ("at", "size"),
    [
        pytest.param(64 + 44, 1, id="the first payload"),
        pytest.param(64 + 46 + 8, 40, id="the next header"),
    ],
)
def test_a_computed_seed_needs_two_whole_frames(disk: SimulatedDisk, at: int, size: int) -> None:
    """P1, P4: If the CRC of a header is lost, too, the header of the first frame alone proves
    nothing: its payload and the next header have to verify."""
    name = make(disk)[2]
    write_at(disk, name, 0, bytes(64))
    write_at(disk, name, at, b"\xa5" * size)
    report = fixed(disk)
    assert (report.rebuilt, report.last_lsn) == ((), 2 * RECORDS)


def test_frames_of_another_place_confirm_no_header(disk: SimulatedDisk) -> None:
    """P1: A segment with a damaged header and another one's frames is not rebuilt."""
    segments = make(disk)
    contents = disk.contents(PATH)
    write_at(disk, segments[2], 0, bytes(64) + contents[segments[1]][64:])
    report = fixed(disk)
    assert (report.rebuilt, report.last_lsn) == ((), 2 * RECORDS)


@pytest.mark.parametrize("indexes", [(1, 2), (2, 3), (0, 1), (1, 2, 3), (0, 1, 2, 3)])
def test_swapped_names_are_restored(disk: SimulatedDisk, indexes: tuple[int, ...]) -> None:
    """P4: Segments with each other's names get the ones in their headers, and nothing is lost."""
    segments = make(disk)
    before = disk.contents(PATH)
    chosen = [segments[index] for index in indexes]
    swap(disk, chosen)
    damaged = disk.contents(PATH)
    check_refused(disk)
    report = fixed(disk)
    assert {new for _, new in report.renamed} == set(chosen)
    assert (report.rebuilt, report.removed, report.last_lsn) == ((), (), SEGMENTS * RECORDS)
    assert report.saved_to
    assert disk.contents(report.saved_to) == {name: damaged[name] for name in chosen}
    assert disk.contents(PATH) == {**before, "LOCK": b""}
    check_whole(disk)


def test_the_only_segment_gets_its_name_back(disk: SimulatedDisk) -> None:
    """P4: If no other file states the journal's id, a segment under a wrong name is not taken for
    one of another journal, and a repair keeps all of its records."""
    with open_on(disk) as journal:
        put(journal, "a", "b")
    contents = disk.contents(PATH)
    wrong = FIRST.replace("1-", "2-")
    contents[wrong] = contents.pop(FIRST)
    misnamed = image(contents)
    with pytest.raises(CorruptionError) as error:
        open_on(misnamed)
    assert error.value.reason is DamageReason.MISNAMED
    report = fixed(misnamed, salvage=True)
    assert (report.renamed, report.removed, report.last_lsn) == (((wrong, FIRST),), (), 2)
    assert reopened(misnamed) == ["a", "b"]


def test_a_cut_removes_a_checkpoint_that_states_a_later_lsn(disk: SimulatedDisk) -> None:
    """P4: A whole checkpoint under an older name proves that the log reached the LSN in it. If it
    can't get its name back, a cut removes it, because the journal would not open beside it."""
    *kept, _, _ = make(disk)
    before = disk.contents(PATH)
    with open_on(disk) as journal:
        journal.compact(frozen(journal, "as of 12")).close()
    older, newer = names(disk, ".json")
    files = disk.contents(PATH)
    swapped = {older: files[newer], newer: files[older][:-1]}
    cut = image({name: before[name] for name in kept} | swapped)
    check_refused(cut)
    report = fixed(cut)
    assert (report.last_lsn, set(report.removed)) == (6, {older, newer})
    with open_on(cut) as journal:
        assert journal.last_lsn == 6


def swap(disk: SimulatedDisk, chosen: list[str]) -> None:
    """Give each of these files the name of the next one."""
    directory = disk.open_directory(PATH, write=True)
    for name in chosen:
        directory.rename(name, f"{name}.moved")
    for name, new in zip(chosen, [*chosen[1:], chosen[0]], strict=True):
        directory.rename(f"{name}.moved", new)
    directory.close(unlock=False)


def test_an_interrupted_fix_can_be_repeated(disk: SimulatedDisk) -> None:
    """P4, P5: If a call to the disk fails while files are renamed or rebuilt, a second repair
    completes it, and nothing is lost."""
    segments = make(disk)
    swap(disk, segments[2:])
    write_at(disk, segments[1], 0, bytes(64))
    for repaired in repaired_again(disk.contents(PATH)):
        check_whole(repaired)
