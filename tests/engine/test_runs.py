"""Runs of whole frames, against a scan of each: both go over the same frames, of any size."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal._format.layout import FRAME_HEADER_BYTES, LSN_MAX, SEGMENT_HEADER_BYTES
from journal._format.record import unpack_spans
from journal._format.segment import FrameRun, FrameState, Segment, segment_names
from journal._recovery.walk import ReplayBatch
from journal.testing import SimulatedDisk
from tests.support import PATH, end_of, names, open_on, sized, write_at

A_RUN_BYTES = 256
SIZES = st.lists(st.sampled_from([3, 60, 150, 200, 256, 300, 1000]), min_size=1, max_size=12)


def log_of(sizes: list[int]) -> SimulatedDisk:
    """A frame for each size, in one segment, and the mark of a clean close."""
    disk = SimulatedDisk()
    with open_on(disk, segment_bytes=1 << 20, frame_bytes_max=1 << 16) as journal:
        for size in sizes:
            journal.wait_durable(journal.append(sized(size)))
    return disk


def runs(disk: SimulatedDisk, limit_lsn: int = LSN_MAX) -> list[FrameRun]:
    directory = disk.open_directory(PATH, write=False)
    with Segment(directory, segment_names(directory.names())[0]) as segment:
        return list(segment.runs(SEGMENT_HEADER_BYTES, 1, limit_lsn))


def whole(disk: SimulatedDisk, limit_lsn: int) -> list[tuple[int, int, int]]:
    """Where each frame begins and ends, and its LSN, up to the first that is not whole."""
    directory = disk.open_directory(PATH, write=False)
    found = []
    with Segment(directory, segment_names(directory.names())[0]) as segment:
        for it in segment.scan():
            if it.state is not FrameState.RECORDS:
                break
            if it.header.first_lsn > limit_lsn:
                break
            found.append((it.offset, it.end, it.header.first_lsn))
    return found


@given(sizes=SIZES, broken=st.integers(0, 3000), limit_lsn=st.integers(0, 13))
def test_runs_end_with_the_last_whole_frame(sizes: list[int], broken: int, limit_lsn: int) -> None:
    """A frame that is larger than a run is one by itself, the small ones after it are not looked
    at one by one; damage, the mark and the limit end the runs."""
    disk = log_of(sizes)
    (name,) = names(disk, ".seg")
    if SEGMENT_HEADER_BYTES <= broken < end_of(disk, name):
        byte = disk.contents(PATH)[name][broken]
        write_at(disk, name, broken, bytes([byte ^ 0x10]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("journal._format.segment._RUN_BYTES", A_RUN_BYTES)
        found = runs(disk, limit_lsn)
    spans = [
        (run.offset + start - FRAME_HEADER_BYTES, run.offset + end)
        for run in found
        for start, end, _ in run.spans
    ]
    expected = whole(disk, limit_lsn)
    assert spans == [(begin, end) for begin, end, _ in expected]
    assert [run.first_lsn for run in found[:1]] == [lsn for _, _, lsn in expected[:1]]
    assert all(one.next_lsn == next.first_lsn for one, next in pairwise(found))
    for run in found:
        assert len(run.data) <= A_RUN_BYTES or len(run.spans) == 1


@pytest.mark.parametrize("size", [SEGMENT_HEADER_BYTES, 700])
def test_a_file_truncated_while_it_is_read_ends_the_run(size: int) -> None:
    """A live writer trims what it had allocated: a file may be shorter than when it was opened."""
    disk = log_of([1000, 3])
    directory = disk.open_directory(PATH, write=True)
    name = segment_names(directory.names())[0]
    with pytest.MonkeyPatch.context() as patch, Segment(directory, name) as segment:
        patch.setattr("journal._format.segment._RUN_BYTES", A_RUN_BYTES)
        directory.open(str(name), "update").truncate(size)
        assert list(segment.runs(SEGMENT_HEADER_BYTES, 1, LSN_MAX)) == []


def test_a_frame_that_claims_more_than_there_is_ends_it() -> None:
    """No header can make a run read more than the file holds."""
    disk = log_of([1000, 3])
    (name,) = names(disk, ".seg")
    directory = disk.open_directory(PATH, write=True)
    directory.open(name, "update").truncate(700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("journal._format.segment._RUN_BYTES", A_RUN_BYTES)
        assert runs(disk) == []


def test_a_large_frame_that_goes_past_the_limit_is_not_read() -> None:
    """A reader that follows a log passes over it up to where it stands, and reads nothing after."""
    disk = log_of([3, 1000])
    directory = disk.open_directory(PATH, write=False)
    asked: list[int] = []
    with (
        pytest.MonkeyPatch.context() as patch,
        Segment(directory, segment_names(directory.names())[0]) as segment,
    ):
        read = segment.file.read

        def counted(size: int, offset: int) -> bytes:
            asked.append(size)
            return read(size, offset)

        patch.setattr("journal._format.segment._RUN_BYTES", A_RUN_BYTES)
        patch.setattr(segment.file, "read", counted)
        assert [run.next_lsn for run in segment.runs(SEGMENT_HEADER_BYTES, 1, 1)] == [2]
        assert max(asked) == A_RUN_BYTES


def test_the_records_of_a_large_frame_are_listed_once() -> None:
    """P9: a byte can be a record, whose place in a list takes eight: there are not two of them."""
    count = 100_000
    span = 44, 44 + count, count
    run = FrameRun(SEGMENT_HEADER_BYTES, 0, 1, 1 + count, 0, bytes(44) + b"\xc0" * count, [span])
    tracemalloc.start()
    try:
        batch = ReplayBatch(PATH, 1, run, unpack_spans(run.data, run.spans))
        assert [len(records) for *_, records in batch.frames()] == [count]
        assert tracemalloc.get_traced_memory()[1] < 12 * count
    finally:
        tracemalloc.stop()
