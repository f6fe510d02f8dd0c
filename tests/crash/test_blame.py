"""The file that an error names, and the bytes that count as evidence, if files or records hold
copies."""

from __future__ import annotations

import pytest
from msgpack import packb

from journal import CorruptionError, Journal, JournalReader
from journal.testing import ManualOptions, SimulatedDisk
from tests.crash.crash_support import image
from tests.crash.damage_judge import read
from tests.crash.damaged_journal import (
    NEWER,
    OLDER,
    SEGMENTS,
    Files,
    findings,
    journal,
    opened,
    places,
)
from tests.independent_reader import FRAME_HEADER, Frame, decode_segment
from tests.support import FIRST, PATH, crash, put, reopened, write_at


def ending_with(header: bytes, size: int) -> bytes:
    """Return a record that packs to `size` bytes, of which the last ones are `header`."""
    record = bytes(size - 2 - len(header)) + header
    assert packb(record) == packb(bytes(size - 2))[: -len(header)] + header
    return record


@pytest.mark.parametrize("damaged", [True, False])
def test_a_copied_frame_header_does_not_hide_evidence(disk: SimulatedDisk, damaged: bool) -> None:
    """P4: A copy of an earlier frame header in a record is not followed.

    A search that followed it would jump over the header with the evidence, and take a damaged
    record for a torn tail.
    """
    journal = Journal.open(PATH, options=ManualOptions(), disk=disk)
    size = 200
    put(journal, bytes(size - 2))
    copy = places(disk.contents(PATH)[FIRST])[0]
    header = disk.contents(PATH)[FIRST][copy.start : copy.start + FRAME_HEADER.size]
    # If it is followed, the copy in record 2 leads past the header of record 3, to the copy in
    # record 3.
    put(journal, ending_with(header, size), ending_with(header, size))
    crash(journal, disk)
    second, third = places(disk.contents(PATH)[FIRST])[1:]
    assert second.end + size == third.end - FRAME_HEADER.size == third.start + size
    if not damaged:
        assert len(reopened(disk)) == 3
        return
    write_at(disk, FIRST, second.start, b"damaged")
    with pytest.raises(CorruptionError) as caught:
        reopened(disk)
    assert (caught.value.offset, caught.value.lsn) == (second.start, 2)


@pytest.mark.parametrize("checkpoints", [[OLDER, NEWER], [OLDER], [NEWER], []])
def test_a_foreign_segment_is_blamed_whatever_checkpoints_there_are(checkpoints: list[str]) -> None:
    """P4: If the segments do not agree, the checkpoints decide which are foreign, and without a
    checkpoint, most of the segments do. No checkpoint is blamed."""
    contents, foreign = {**journal(closed=True)}, journal(closed=True, journal_id=2)
    first = SEGMENTS[2]
    names = [*SEGMENTS, *checkpoints]
    damaged = {name: contents[name] for name in names} | {first: foreign[first]}
    assert opened(damaged) == ((f"{PATH}/{first}", 16, 0), 0)


def with_frame_after_the_cut(frame: Frame) -> Files:
    """Return a journal's files with `frame` instead of the torn tail of its first segment."""
    contents, name = {**journal(closed=True)}, SEGMENTS[0]
    segment = decode_segment(contents[name])
    end = len(contents[name]) - len(segment.rest)
    return {**contents, name: contents[name][:end] + frame.encode(segment.header.seed)}


@pytest.mark.parametrize(
    ("frame", "is_dead"),
    [
        pytest.param(Frame(7, 6, 0), False, id="the segment's own mark"),
        pytest.param(Frame(8, 6, 0), True, id="a mark of another LSN"),
        pytest.param(Frame(7, 7, 0), True, id="a mark with a durable LSN that is too high"),
        pytest.param(Frame(9, 6, 0, (["a", 0, "torn"],)), True, id="a frame of another LSN"),
    ],
)
def test_bytes_after_a_cut_are_not_corruption(frame: Frame, is_dead: bool) -> None:
    """P5: The next segment's first LSN ends this one. Other bytes after it are not corruption.

    The journal opens without the newer checkpoint, and `verify` reports a torn tail.
    """
    contents = with_frame_after_the_cut(frame)
    offset = len(contents[SEGMENTS[0]]) - len(frame.encode(0))
    torn_tails = {each for name, each in findings(contents) if name == SEGMENTS[0]}
    assert torn_tails == ({("torn_tail", offset)} if is_dead else set())
    del contents[NEWER]
    assert opened(contents) == (None, 13)


@pytest.mark.parametrize(
    ("is_whole", "evidence_lsn"),
    [pytest.param(True, 10, id="misnamed"), pytest.param(False, 99, id="damaged")],
)
def test_only_a_damaged_checkpoint_is_evidence_by_its_name(
    is_whole: bool, evidence_lsn: int
) -> None:
    """P4: A damaged checkpoint's name is evidence of how far the log went.

    An intact checkpoint under a newer name is only a copy. It is no evidence that records are lost,
    and an open, a reader and `verify` blame it, not the last segment.
    """
    contents = {**journal(closed=True)}
    copy, culprit = contents[NEWER], f"checkpoint-{99:020d}.json"
    contents[culprit] = copy if is_whole else copy[:-9]
    outcome = (f"{PATH}/{culprit}", 0, 0) if is_whole else (f"{PATH}/{SEGMENTS[-1]}", 162, 14)
    assert opened(contents) == (outcome, 0)
    assert read(image(contents), 10)[0] == (outcome, 0)
    assert ((culprit, ("corruption", 0)) in findings(contents)) is is_whole
    assert (SEGMENTS[-1] in {name for name, _ in findings(contents)}) is not is_whole
    with JournalReader.open(PATH, disk=image(contents)) as reader:
        preview = reader.preview_recovery()
    assert (preview.evidence_lsn, preview.last_lsn) == (evidence_lsn, 13)
    assert preview.problem is not None
