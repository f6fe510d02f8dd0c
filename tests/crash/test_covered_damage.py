"""Damage that a checkpoint covers: an open reads on after it, and loses nothing.

Source: journal/docs/FORMAT.md, "Damage that a checkpoint covers".
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import CorruptionError, Journal, JournalReader, repair
from journal.testing import SimulatedDisk
from tests.crash.repair_support import offset_of
from tests.independent_damage import decode_damaged
from tests.independent_reader import FRAME_HEADER, Frame, decode_segment_header
from tests.support import (
    FIRST,
    PATH,
    findings,
    frozen,
    logged,
    open_on,
    options,
    put,
    until,
    write_at,
)

FRAMES = 8  # each of two records
CHECKPOINT = 10  # the last LSN of the fifth frame


def make(disk: SimulatedDisk, *, compact_at: int = CHECKPOINT, **others: Any) -> None:
    """Make a journal of one segment, whose frames hold two records each, and a checkpoint."""
    with open_on(disk, segment_bytes=1 << 20, **others) as journal:
        for first_lsn in range(1, 2 * FRAMES, 2):
            journal.wait_durable(journal.append_batch([[first_lsn], [first_lsn + 1]]))
            if journal.last_lsn - 1 <= compact_at <= journal.last_lsn:
                journal.compact(lambda: (compact_at, [f"as of {compact_at}"])).close()


def strike(disk: SimulatedDisk, lsn: int, where: str) -> None:
    """Damage the frame that holds `lsn`: in its header, its payload, or both."""
    name, offset = offset_of(disk, lsn)
    if where in ("header", "both"):
        write_at(disk, name, offset + 9, b"\xa5")
    if where in ("payload", "both"):
        write_at(disk, name, offset + FRAME_HEADER.size, b"\xa5\xa5")


def after_checkpoint(disk: SimulatedDisk) -> list[Any]:
    with open_on(disk) as journal:
        return logged(journal, None)


KEPT = [[lsn] for lsn in range(CHECKPOINT + 1, 2 * FRAMES + 1)]


@pytest.mark.parametrize("where", ["header", "payload", "both"])
@pytest.mark.parametrize("lsns", [(1,), (5,), (9,), (1, 3), (5, 7, 9)])
def test_an_open_passes_over_covered_damage(
    disk: SimulatedDisk, lsns: tuple[int, ...], where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """P5: Damage to frames that the checkpoint covers keeps no journal from opening, and costs no
    record after the checkpoint. The log and `stats` name what can't be read."""
    make(disk)
    for lsn in reversed(lsns):
        strike(disk, lsn, where)
    before = disk.contents(PATH)
    assert repair(PATH, disk=disk).problem is None
    with caplog.at_level(logging.WARNING, "journal"), open_on(disk) as journal:
        assert logged(journal, None) == KEPT
        assert journal.stats().unreadable_records == 2 * len(lsns)
    [message] = [record.getMessage() for record in caplog.records]
    first, last = lsns[0], lsns[-1] + 1
    unreadable = f"LSN {first} to {last} ({last - first + 1} records) can't be read"
    assert f"{PATH}/{FIRST}: {unreadable}" in message
    assert "no state is lost" in message
    assert disk.contents(PATH)[FIRST][: len(before[FIRST])] == before[FIRST]
    assert after_checkpoint(disk) == KEPT  # and again, in the epoch after it


@pytest.mark.parametrize("where", ["header", "payload"])
def test_a_mark_ends_covered_damage(disk: SimulatedDisk, where: str) -> None:
    """P5: If the last frame before the checkpoint is damaged, the mark after it shows where the log
    continues."""
    make(disk, compact_at=2 * FRAMES)
    strike(disk, 2 * FRAMES, where)
    with open_on(disk) as journal:
        assert journal.last_lsn == 2 * FRAMES
        put(journal, "next")
    assert after_checkpoint(disk) == ["next"]


@pytest.mark.parametrize("where", ["header", "payload", "both"])
@pytest.mark.parametrize("lsn", [9, 11])
def test_damage_to_a_frame_that_is_needed_is_refused(
    disk: SimulatedDisk, lsn: int, where: str
) -> None:
    """P4: A frame that the checkpoint covers only in part, or not at all, is not passed over.

    The error names the LSNs that can't be read. A repair keeps the checkpoint.
    """
    make(disk, compact_at=lsn if lsn == 9 else CHECKPOINT)
    strike(disk, lsn, where)
    with pytest.raises(CorruptionError, match=rf"LSN {lsn} to {lsn + 1} \(2 records\)") as error:
        open_on(disk)
    assert (error.value.lsn, error.value.last_lsn) == (lsn, lsn + 1)
    report = repair(PATH, disk=disk)
    assert report.last_lsn == (9 if lsn == 9 else CHECKPOINT)


@pytest.mark.parametrize("bad", ["payload", "both"])
def test_a_header_alone_does_not_end_covered_damage(disk: SimulatedDisk, bad: str) -> None:
    """P4: Of two damaged neighbors, the second one is needed, so its valid header is no place to
    resume at."""
    make(disk)
    for lsn in (11, 9):
        strike(disk, lsn, bad)
    with pytest.raises(CorruptionError):
        open_on(disk)
    assert repair(PATH, disk=disk).last_lsn == CHECKPOINT


# --- frames that are quoted in a record ---


def quote(
    disk: SimulatedDisk, frames: list[bytes], *, quoting_lsn: int = 4, damage: str = "header"
) -> None:
    """Make a journal with a checkpoint at LSN 5, and damage the frame `quoting_lsn`, whose record
    contains `frames`."""
    with open_on(disk, segment_bytes=1 << 20) as journal:
        for lsn in range(1, 8):
            put(journal, ["quote", b"".join(frames)] if lsn == quoting_lsn else [lsn])
            if lsn == 5:
                journal.compact(frozen(journal, "as of 5")).close()
    if damage == "payload":
        strike(disk, 5, "header")  # first, because a reader has to find the frame
    strike(disk, quoting_lsn, damage)


def forged(disk: SimulatedDisk, lsn: int) -> bytes:
    """Return a frame that verifies in the first segment of a journal on this disk."""
    seed = decode_segment_header(disk.contents(PATH)[FIRST]).seed
    return Frame(lsn, lsn - 1, 0, (["forged", lsn],)).encode(seed)


@pytest.mark.parametrize("lsns", [(5,), (6,), (5, 6), (6, 7), (5, 6, 7)])
@pytest.mark.parametrize("quoting_lsn", [4, 5])
def test_a_quoted_frame_never_becomes_a_record(lsns: tuple[int, ...], quoting_lsn: int) -> None:
    """P1: A frame that a record quotes is not read as part of the log, even if the header of the
    quoting frame is damaged, so that its bytes are searched."""
    template = SimulatedDisk()
    quote(template, [])
    frames = [forged(template, lsn) for lsn in lsns]
    disk = SimulatedDisk()
    quote(disk, frames, quoting_lsn=quoting_lsn)
    assert disk.contents(PATH)[FIRST][:64] == template.contents(PATH)[FIRST][:64]
    assert b"".join(frames) in disk.contents(PATH)[FIRST]
    assert after_checkpoint(disk) == [[6], [7]]
    segment = decode_damaged(disk.contents(PATH)[FIRST], 5)
    assert segment.holes == ((quoting_lsn, quoting_lsn),)


@pytest.mark.parametrize("lsns", [(6,), (6, 7)])
def test_a_frame_in_a_damaged_payload_never_becomes_a_record(lsns: tuple[int, ...]) -> None:
    """P1: The bytes of a frame with a valid header and a damaged payload belong to that frame, also
    if they are searched because the next frame's header is damaged, too."""
    template, disk = SimulatedDisk(), SimulatedDisk()
    quote(template, [])
    quote(disk, [forged(template, lsn) for lsn in lsns], damage="payload")
    assert after_checkpoint(disk) == [[6], [7]]


@pytest.mark.parametrize("lsns", [(5,), (6,), (6, 7)])
@pytest.mark.parametrize("lsn_before", [2, 3])
def test_a_frame_quoted_after_a_damaged_payload_never_becomes_a_record(
    lsn_before: int, lsns: tuple[int, ...]
) -> None:
    """P1: A quoting frame whose header is damaged follows a frame with a damaged payload. Its
    payload begins where the valid header before it says."""
    template, disk = SimulatedDisk(), SimulatedDisk()
    quote(template, [])
    quote(disk, [forged(template, lsn) for lsn in lsns])
    strike(disk, 3, "payload")
    if lsn_before == 2:
        strike(disk, 2, "header")
    assert after_checkpoint(disk) == [[6], [7]]
    segment = decode_damaged(disk.contents(PATH)[FIRST], 5)
    assert segment.holes == ((lsn_before, 4),)


def test_a_quoted_frame_in_the_last_record_is_no_end(disk: SimulatedDisk) -> None:
    """P1, P4: If nothing but a quote follows the damage, the open refuses."""
    template = SimulatedDisk()
    quote(template, [])
    with open_on(disk) as journal:
        put(journal, "a", "b")
        put(journal, ["quote", forged(template, 4)])
        journal.compact(frozen(journal, "as of 3")).close()
    strike(disk, 3, "header")
    data = disk.contents(PATH)[FIRST]
    mark = data.rfind(forged(template, 4)) + len(forged(template, 4))
    write_at(disk, FIRST, mark, bytes(len(data) - mark))
    with pytest.raises(CorruptionError):
        open_on(disk)


# --- what no reader passes over ---


READS: list[Callable[[SimulatedDisk], list[Any]]] = [
    lambda disk: read_entries(disk, 2),
    lambda disk: replayed(disk, 2),
]


def read_entries(disk: SimulatedDisk, after: int) -> list[Any]:
    with JournalReader.open(PATH, disk=disk) as reader:
        return [entry.record for entry in reader.entries(after)]


def replayed(disk: SimulatedDisk, after: int) -> list[Any]:
    with open_on(disk) as journal:
        return logged(journal, after)


@pytest.mark.parametrize("read", READS)
def test_readers_raise_at_damage_among_their_records(
    disk: SimulatedDisk, read: Callable[[SimulatedDisk], list[Any]]
) -> None:
    """P4: A reader of records before and after the damage raises there, and names the LSNs that
    can't be read. It never skips them."""
    make(disk)
    strike(disk, 5, "payload")
    with pytest.raises(CorruptionError, match=r"LSN 5 to 6 \(2 records\) can't be read") as error:
        read(disk)
    assert (error.value.lsn, error.value.last_lsn) == (5, 6)


@pytest.mark.parametrize("read", [read_entries, replayed])
@pytest.mark.parametrize("where", ["header", "payload"])
def test_readers_pass_over_damage_before_their_records(
    disk: SimulatedDisk, read: Callable[[SimulatedDisk, int], list[Any]], where: str
) -> None:
    """P4: Damage before the first record that is wanted stops no reader."""
    make(disk)
    strike(disk, 5, where)
    for after in range(6, 2 * FRAMES):
        assert read(disk, after) == [[lsn] for lsn in range(after + 1, 2 * FRAMES + 1)]
    with pytest.raises(CorruptionError):
        read(disk, 5)


def test_damage_before_a_cut_ends_at_the_cut(disk: SimulatedDisk) -> None:
    """P4: The error of a reader, and `verify`, name no LSN as unreadable that the log has after a
    cut, although a whole frame that was cut off has a later one."""
    make(disk)
    for lsn in (11, 9):
        strike(disk, lsn, "payload")
    assert repair(PATH, apply=True, disk=disk).last_lsn == CHECKPOINT
    with open_on(disk) as journal:
        put(journal, "new")
    with pytest.raises(CorruptionError, match="LSN 9 to 10") as error:
        read_entries(disk, 8)
    assert error.value.last_lsn == CHECKPOINT
    assert read_entries(disk, error.value.last_lsn) == ["new"]
    [finding] = [each for each in findings(disk) if each.kind == "corruption"]
    assert (finding.lsn, finding.last_lsn) == (9, CHECKPOINT)


@given(st.sampled_from(range(1, 2 * FRAMES, 2)), st.integers(0, 2 * FRAMES), st.booleans())
def test_the_independent_reader_agrees(lsn: int, checkpoint_lsn: int, in_header: bool) -> None:
    """P4: The engine opens a damaged journal exactly if the reader that follows the page does, and
    yields the same records."""
    disk = SimulatedDisk()
    make(disk, compact_at=checkpoint_lsn)
    strike(disk, lsn, "header" if in_header else "payload")
    segment = decode_damaged(disk.contents(PATH)[FIRST], checkpoint_lsn)
    expected = [
        record
        for frame in segment.frames
        for at, record in enumerate(frame.records, frame.first_lsn)
        if at > checkpoint_lsn
    ]
    assert segment.is_whole == (lsn + 1 <= checkpoint_lsn)
    if segment.is_whole:
        assert after_checkpoint(disk) == expected
    else:
        with pytest.raises(CorruptionError):
            open_on(disk)


def test_new_checkpoints_are_made_after_covered_damage(disk: SimulatedDisk) -> None:
    """P5: After an open that passed over damage, compactions follow, until all checkpoints that are
    kept lie after the damage. Then the newest one may be damaged in turn."""
    make(disk, compact_at=2)
    with open_on(disk) as journal:
        journal.compact(frozen(journal, "as of 16")).close()
    strike(disk, 5, "payload")
    with Journal.open(PATH, options=options(), disk=disk) as journal:
        journal.start_compaction(lambda: (journal.durable_lsn, [f"as of {journal.durable_lsn}"]))
        until(lambda: journal.stats().compactions == 1, "a compaction at once")
        put(journal, "a")
        until(lambda: journal.stats().compactions == 2, "a compaction with the next record")
    assert checkpoint_lsns(disk) == [16, 17]
    write_at(disk, f"checkpoint-{17:020d}.json", 20, b"?")
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert (journal.checkpoint.lsn, journal.last_lsn) == (16, 17)


def checkpoint_lsns(disk: SimulatedDisk) -> list[int]:
    return [int(name[11:31]) for name in disk.contents(PATH) if name.endswith(".json")]
