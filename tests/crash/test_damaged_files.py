"""Expected outcomes of damage, case by case: missing, misnamed, foreign and older files, and forged
bytes.

The sweeps of the other modules compare with an oracle. Here each outcome is written down, and the
oracle has to predict it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import msgpack
import pytest

from tests.crash.crash_support import PATH, image
from tests.crash.damage_judge import read, without
from tests.crash.damage_oracle import Evidence, verdict
from tests.crash.damaged_journal import (
    NEWER,
    OLDER,
    RECORDS,
    SEGMENTS,
    Files,
    Opened,
    findings,
    journal,
    opened,
    places,
    record,
)
from tests.independent_reader import (
    FRAME_HEADER,
    crc32c,
    decode_checkpoint,
    decode_segment,
    encode_checkpoint,
)

END = len(RECORDS)
UNDAMAGED: Opened = None, END
ONE, TWO, THREE, LAST = SEGMENTS  # a checkpoint covers the first two
COVERED = "00000000000000000008-0000000003.seg"
WITHIN = "00000000000000000011-0000000003.seg"
AFTER_THE_LOG = "00000000000000000014-0000000004.seg"
AHEAD = f"checkpoint-{99:020d}.json"
PlacedFinding = tuple[str, tuple[str, int]]


def at(name: str, offset: int, lsn: int) -> Opened:
    return (f"{PATH}/{name}", offset, lsn), 0


def corruption(name: str, offset: int) -> PlacedFinding:
    return name, ("corruption", offset)


def check(damaged: Files, outcome: Opened, finding: PlacedFinding | None = None) -> None:
    """Check that the journal opens as `outcome` and as the oracle predicts.

    If open refuses, `verify` must name the same place. Otherwise `finding` is its one new finding,
    if any.
    """
    assert opened(damaged) == verdict(damaged, Evidence.of(journal(closed=True))) == outcome
    if outcome[0]:
        path, offset, _ = outcome[0]
        finding = corruption(path.rpartition("/")[2], offset)
    known_findings = findings(journal(closed=True))
    assert finding in findings(damaged) if finding else findings(damaged) == known_findings


# --- files that are missing ---


class Missing(NamedTuple):
    names: list[str]
    outcome: Opened
    finding: PlacedFinding | None = None


MISSING = {
    "the first segment that a checkpoint covers": Missing([ONE], UNDAMAGED, corruption(TWO, 0)),
    "the second segment that a checkpoint covers": Missing([TWO], UNDAMAGED, corruption(ONE, 167)),
    "all segments that a checkpoint covers": Missing([ONE, TWO], UNDAMAGED, corruption(THREE, 0)),
    "the older checkpoint": Missing([OLDER], UNDAMAGED),
    "the newer checkpoint": Missing([NEWER], UNDAMAGED),
    "the last segment: undecidable": Missing([LAST], (None, 11)),
    "a needed segment": Missing([THREE], at(TWO, 167, 10)),
    "a segment that the older checkpoint needs": Missing([NEWER, TWO], at(ONE, 167, 7)),
    "records that the newer checkpoint proves durable": Missing([THREE, LAST], at(TWO, 167, 10)),
    "both checkpoints": Missing([OLDER, NEWER], at(ONE, 0, 1)),
    "the whole log": Missing(SEGMENTS, ((PATH, 0, 1), 0)),
}


@pytest.mark.parametrize("case", MISSING.values(), ids=MISSING.keys())
def test_open_needs_only_the_files_after_the_newer_checkpoint(case: Missing) -> None:
    """P4, P5: Open does not need the files that the newer checkpoint covers.

    `verify` reports that the older checkpoint would need them. The report names the segment before
    the gap and the first lost LSN.
    """
    check(without(journal(closed=True), *case.names), case.outcome, case.finding)


# --- files that are not what they were ---


def spliced(files: Files, source: str, start: int, end: int) -> Files:
    """Replace the last frame by a frame of `source`."""
    data = files[LAST]
    return {LAST: data[:113] + files[source][start:end] + data[162:]}


def ahead(files: Files, lsn: int) -> Files:
    return {AHEAD: encode_checkpoint(replace(decode_checkpoint(files[NEWER]), lsn=lsn))}


def foreign(name: str) -> Callable[[Files], Files]:
    return lambda _: {name: journal(closed=True, journal_id=2)[name]}


class Others(NamedTuple):
    files: Callable[[Files], Files]
    outcome: Opened
    finding: PlacedFinding | None = None


OTHERS = {
    "a copy after the log": Others(lambda f: {AFTER_THE_LOG: f[THREE]}, at(AFTER_THE_LOG, 0, 14)),
    "a copy in the log": Others(lambda f: {WITHIN: f[THREE]}, at(WITHIN, 0, 11)),
    "a copy in what a checkpoint covers": Others(
        lambda f: {COVERED: f[THREE]}, UNDAMAGED, corruption(COVERED, 0)
    ),
    "two swapped segments": Others(lambda f: {THREE: f[LAST], LAST: f[THREE]}, at(THREE, 0, 10)),
    "a segment of another journal": Others(foreign(LAST), at(LAST, 16, 0)),
    "the older checkpoint of another journal": Others(foreign(OLDER), at(OLDER, 0, 4)),
    "the newer checkpoint of another journal": Others(foreign(NEWER), at(NEWER, 0, 10)),
    "an older copy of a segment": Others(lambda f: {THREE: f[THREE][:133]}, at(THREE, 133, 11)),
    "an older copy of the last segment: undecidable": Others(
        lambda f: {LAST: f[LAST][:113]}, (None, 12)
    ),
    "an older checkpoint under a newer name": Others(
        lambda f: {NEWER: f[OLDER]}, UNDAMAGED, (NEWER, ("bad_checkpoint", 0))
    ),
    "a checkpoint past the end of the log": Others(lambda f: ahead(f, 99), at(LAST, 162, 14)),
    "a damaged checkpoint past the end of the log": Others(
        lambda f: ahead(f, 98), at(LAST, 162, 14)
    ),
    "a frame of another segment": Others(lambda f: spliced(f, THREE, 133, 182), at(LAST, 113, 13)),
    "a copy of the frame before": Others(lambda f: spliced(f, LAST, 64, 113), at(LAST, 113, 13)),
    "a frame after a mark: torn": Others(
        lambda f: {LAST: f[LAST] + forged(seed_of(f[LAST]))}, UNDAMAGED, (LAST, ("torn_tail", 206))
    ),
}


@pytest.mark.parametrize("case", OTHERS.values(), ids=OTHERS.keys())
def test_replaced_files_are_refused_or_reported(case: Others) -> None:
    """P1, P4, P10: A header must agree with the name, the journal and the segments before it.

    Everything that a checkpoint's name or a later header proves durable must be there. A frame is
    valid only in its place, and never after a mark.
    """
    files = journal(closed=True)
    check({**files, **case.files(files)}, case.outcome, case.finding)


def test_the_name_of_a_rolled_back_checkpoint_is_evidence() -> None:
    """P4, P10: The name of a checkpoint with older contents shows how far the log went. The
    checkpoint is blamed, because it may as well be a copy, and the log be whole."""
    files = without(journal(closed=True), THREE, LAST)
    check({**files, NEWER: files[OLDER]}, at(NEWER, 0, 0))


def test_a_renamed_checkpoint_proves_what_it_states() -> None:
    """P4: A checkpoint under an older name proves that the log once reached the LSN in it."""
    files = without(journal(closed=True), THREE, LAST)
    renamed = {**without(files, NEWER), f"checkpoint-{1:020d}.json": files[NEWER]}
    check(renamed, at(TWO, 167, 10))


def test_a_misnamed_checkpoint_of_another_journal_proves_nothing() -> None:
    """P4: A file with another journal's id is no evidence, so a checkpoint of another journal under
    an older name is skipped, whatever LSN it states."""
    files = journal(closed=True)
    stated = replace(decode_checkpoint(files[NEWER]), lsn=99, journal_id=bytes(16))
    damaged = {**files, OLDER: encode_checkpoint(stated)}
    check(damaged, UNDAMAGED, (OLDER, ("bad_checkpoint", 0)))


def test_an_older_epoch_after_a_newer_one_is_corruption() -> None:
    """P1, P10: Epochs never decrease along the log.

    A segment of an earlier opening belongs to a past that was cut off, even if its LSNs fit. A
    reader yields nothing from it.
    """
    files = journal(closed=True)
    segment = decode_segment(files[LAST])
    header = replace(segment.header, epoch=2)
    past = header.encode() + b"".join(frame.encode(header.seed) for frame in segment.frames)
    damaged = {**without(files, LAST), header.name: past}
    check(damaged, at(header.name, 12, 12))
    assert read(image(damaged), 10)[0] == at(header.name, 12, 12)


# --- frames that no writer makes ---


def seed_of(data: bytes) -> int:
    return decode_segment(data).header.seed


def forged(
    seed: int,
    *,
    lsn: int = END + 1,
    durable_lsn: int = END,
    records: int = 1,
    count: int = 1,
    kind: int = 1,
    zero: bytes = bytes(3),
) -> bytes:
    """Return the next frame with correct CRCs and these header fields, which may be impossible."""
    payload: bytes = msgpack.packb(record(END + 1)) * records
    fields = (lsn, durable_lsn, 0, len(payload), count, kind, zero)
    body = FRAME_HEADER.pack(0, crc32c(payload), *fields)[4:]
    return crc32c(body, seed).to_bytes(4, "little") + body + payload


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "a repeated LSN": {"lsn": END},
    "a skipped LSN": {"lsn": END + 2},
    "durable before it was written": {"durable_lsn": END + 1},
    "an unknown kind": {"kind": 3},
    "a flag": {"zero": b"\0\1\0"},
    "no record": {"count": 0},
    "an empty payload": {"records": 0},
    "a count that is one too high": {"count": 2},
    "a count that is one too low": {"records": 2},
    "a mark with a record": {"kind": 2},
}


@pytest.mark.parametrize("changed", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_a_frame_with_an_impossible_header_is_corruption(changed: dict[str, Any]) -> None:
    """P4: A frame with correct CRCs was not torn, so an impossible header is corruption.

    It does not matter where the frame is.
    """
    contents, last = journal(closed=False), SEGMENTS[-1]
    seed, end = seed_of(contents[last]), places(contents[last])[-1].end
    data = contents[last][:end]
    assert places(data + forged(seed))[-1].last_lsn == END + 1
    check({**contents, last: data + forged(seed, **changed)}, at(last, end, END + 1))
