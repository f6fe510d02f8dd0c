"""Runs of whole frames, compared with a scan of single frames: both find the same frames."""

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
    """Return a disk with a log of one frame per size, in one segment that was closed."""
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
    """Return the begin, end and first LSN of each frame up to the first that is not whole."""
    directory = disk.open_directory(PATH, write=False)
    frames = []
    with Segment(directory, segment_names(directory.names())[0]) as segment:
        for scanned in segment.scan():
            if scanned.state is not FrameState.RECORDS:
                break
            if scanned.header.first_lsn > limit_lsn:
                break
            frames.append((scanned.offset, scanned.end, scanned.header.first_lsn))
    return frames


@given(sizes=SIZES, broken=st.integers(0, 3000), limit_lsn=st.integers(0, 13))
def test_runs_end_with_the_last_whole_frame(sizes: list[int], broken: int, limit_lsn: int) -> None:
    """A frame larger than a run is a run of its own, and smaller frames after it are still grouped.
    Damage, the mark and the limit end the runs."""
    disk = log_of(sizes)
    (name,) = names(disk, ".seg")
    if SEGMENT_HEADER_BYTES <= broken < end_of(disk, name):
        byte = disk.contents(PATH)[name][broken]
        write_at(disk, name, broken, bytes([byte ^ 0x10]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("journal._format.segment._RUN_BYTES", A_RUN_BYTES)
        found_runs = runs(disk, limit_lsn)
    spans = [
        (run.offset + start - FRAME_HEADER_BYTES, run.offset + end)
        for run in found_runs
        for start, end, _ in run.spans
    ]
    expected = whole(disk, limit_lsn)
    assert spans == [(begin, end) for begin, end, _ in expected]
    assert [run.first_lsn for run in found_runs[:1]] == [lsn for _, _, lsn in expected[:1]]
    assert all(one.next_lsn == next.first_lsn for one, next in pairwise(found_runs))
    for run in found_runs:
        assert len(run.data) <= A_RUN_BYTES or len(run.spans) == 1


@pytest.mark.parametrize("size", [SEGMENT_HEADER_BYTES, 700])
def test_a_file_truncated_while_it_is_read_ends_the_run(size: int) -> None:
    """A live writer trims preallocated space, so a file may be shorter than when it was opened."""
    disk = log_of([1000, 3])
    directory = disk.open_directory(PATH, write=True)
    name = segment_names(directory.names())[0]
    with pytest.MonkeyPatch.context() as patch, Segment(directory, name) as segment:
        patch.setattr("journal._format.segment._RUN_BYTES", A_RUN_BYTES)
        directory.open(str(name), "update").truncate(size)
        assert list(segment.runs(SEGMENT_HEADER_BYTES, 1, LSN_MAX)) == []


def test_a_frame_longer_than_its_file_ends_the_run() -> None:
    """A header can't make a run read more than the file contains."""
    disk = log_of([1000, 3])
    (name,) = names(disk, ".seg")
    directory = disk.open_directory(PATH, write=True)
    directory.open(name, "update").truncate(700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("journal._format.segment._RUN_BYTES", A_RUN_BYTES)
        assert runs(disk) == []


def test_a_large_frame_past_the_limit_is_not_read() -> None:
    """A reader that follows a log skips records up to its LSN, and does not read the frame after
    the limit."""
    disk = log_of([3, 1000])
    directory = disk.open_directory(PATH, write=False)
    read_sizes: list[int] = []
    with (
        pytest.MonkeyPatch.context() as patch,
        Segment(directory, segment_names(directory.names())[0]) as segment,
    ):
        read = segment.file.read

        def counted(size: int, offset: int) -> bytes:
            read_sizes.append(size)
            return read(size, offset)

        patch.setattr("journal._format.segment._RUN_BYTES", A_RUN_BYTES)
        patch.setattr(segment.file, "read", counted)
        assert [run.next_lsn for run in segment.runs(SEGMENT_HEADER_BYTES, 1, 1)] == [2]
        assert max(read_sizes) == A_RUN_BYTES


def test_the_records_of_a_large_frame_are_listed_once() -> None:
    """P9: A record can be a single byte, whose reference in a list takes eight, so the records of a
    large frame are listed only once."""
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
