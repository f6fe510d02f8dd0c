"""What must come of damage, case by case: files that are missing, misnamed, foreign or older, and
bytes that are forged. The sweeps of the other modules compare with an oracle; here each outcome is
written down, and the oracle has to foretell it."""

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
WELL: Opened = None, END
ONE, TWO, THREE, LAST = SEGMENTS  # a checkpoint covers the first two
COVERED = "00000000000000000008-0000000003.seg"
WITHIN = "00000000000000000011-0000000003.seg"
AFTER_IT = "00000000000000000014-0000000004.seg"
AHEAD = f"checkpoint-{99:020d}.json"
Found = tuple[str, tuple[str, int]]


def at(name: str, offset: int, lsn: int) -> Opened:
    return (f"{PATH}/{name}", offset, lsn), 0


def corruption(name: str, offset: int) -> Found:
    return name, ("corruption", offset)


def check(damaged: Files, outcome: Opened, found: Found | None = None) -> None:
    """It opens like that, as the oracle foretells; if it doesn't, `verify` names the same place."""
    assert opened(damaged) == verdict(damaged, Evidence.of(journal(closed=True))) == outcome
    if outcome[0]:
        path, offset, _ = outcome[0]
        found = corruption(path.rpartition("/")[2], offset)
    known = findings(journal(closed=True))
    assert found in findings(damaged) if found else findings(damaged) == known


# --- files that are missing ---


class Missing(NamedTuple):
    names: list[str]
    outcome: Opened
    found: Found | None = None


MISSING = {
    "the first that a checkpoint covers": Missing([ONE], WELL, corruption(TWO, 0)),
    "the second that a checkpoint covers": Missing([TWO], WELL, corruption(ONE, 167)),
    "all that a checkpoint covers": Missing([ONE, TWO], WELL, corruption(THREE, 0)),
    "the older checkpoint": Missing([OLDER], WELL),
    "the newer checkpoint": Missing([NEWER], WELL),
    "the last segment: undecidable": Missing([LAST], (None, 11)),
    "a needed segment": Missing([THREE], at(TWO, 167, 10)),
    "one that the older checkpoint needs": Missing([NEWER, TWO], at(ONE, 167, 7)),
    "what the newer checkpoint testifies to": Missing([THREE, LAST], at(TWO, 167, 10)),
    "both checkpoints": Missing([OLDER, NEWER], at(ONE, 0, 1)),
    "the whole log": Missing(SEGMENTS, ((PATH, 0, 1), 0)),
}


@pytest.mark.parametrize("case", MISSING.values(), ids=MISSING.keys())
def test_files_that_are_missing(case: Missing) -> None:
    """P4, P5: open does without what the newer checkpoint covers; `verify` reports that the older
    one could not. What is missed is named: the segment before the gap, and the first LSN lost."""
    check(without(journal(closed=True), *case.names), case.outcome, case.found)


# --- files that are not what they were ---


def spliced(files: Files, source: str, start: int, end: int) -> Files:
    """Put a frame of `source` in the place of the last one."""
    data = files[LAST]
    return {LAST: data[:113] + files[source][start:end] + data[162:]}


def ahead(files: Files, lsn: int) -> Files:
    return {AHEAD: encode_checkpoint(replace(decode_checkpoint(files[NEWER]), lsn=lsn))}


def foreign(name: str) -> Callable[[Files], Files]:
    return lambda _: {name: journal(closed=True, journal_id=2)[name]}


class Others(NamedTuple):
    files: Callable[[Files], Files]
    outcome: Opened
    found: Found | None = None


OTHERS = {
    "a copy behind the log": Others(lambda f: {AFTER_IT: f[THREE]}, at(AFTER_IT, 0, 14)),
    "a copy in the log": Others(lambda f: {WITHIN: f[THREE]}, at(WITHIN, 0, 11)),
    "a copy in what a checkpoint covers": Others(
        lambda f: {COVERED: f[THREE]}, WELL, corruption(COVERED, 0)
    ),
    "two swapped": Others(lambda f: {THREE: f[LAST], LAST: f[THREE]}, at(THREE, 0, 10)),
    "a segment of another journal": Others(foreign(LAST), at(LAST, 16, 12)),
    "the older checkpoint of another journal": Others(foreign(OLDER), at(OLDER, 0, 4)),
    "the newer checkpoint of another journal": Others(foreign(NEWER), at(NEWER, 0, 10)),
    "an older copy of a segment": Others(lambda f: {THREE: f[THREE][:133]}, at(THREE, 133, 11)),
    "an older copy of the last one: undecidable": Others(
        lambda f: {LAST: f[LAST][:113]}, (None, 12)
    ),
    "an older checkpoint under a newer name": Others(
        lambda f: {NEWER: f[OLDER]}, WELL, (NEWER, ("bad_checkpoint", 0))
    ),
    "a checkpoint past the end of the log": Others(lambda f: ahead(f, 99), at(LAST, 162, 14)),
    "a damaged one past its end": Others(lambda f: ahead(f, 98), at(LAST, 162, 14)),
    "a frame of another segment": Others(lambda f: spliced(f, THREE, 133, 182), at(LAST, 113, 13)),
    "the frame before it": Others(lambda f: spliced(f, LAST, 64, 113), at(LAST, 113, 13)),
    "a frame behind a mark: torn": Others(
        lambda f: {LAST: f[LAST] + forged(seed_of(f[LAST]))}, WELL, (LAST, ("torn_tail", 206))
    ),
}


@pytest.mark.parametrize("case", OTHERS.values(), ids=OTHERS.keys())
def test_damage_of_file_contents(case: Others) -> None:
    """P1, P4, P10: a header must agree with the name, the journal and the segments before it; what
    a checkpoint's name or a later header testifies to must be there; a frame is valid in its place
    only, and never behind a mark."""
    files = journal(closed=True)
    check({**files, **case.files(files)}, case.outcome, case.found)


def test_the_name_of_a_checkpoint_that_was_rolled_back_testifies() -> None:
    """P4, P10: an older content under a newer name says by the name how far the log went."""
    files = without(journal(closed=True), THREE, LAST)
    check({**files, NEWER: files[OLDER]}, at(TWO, 167, 10))


def test_an_older_epoch_behind_a_newer_one() -> None:
    """P1, P10: epochs only grow along the log: a segment that an earlier opening wrote is of a past
    that was cut off, even where its LSNs fit. A reader yields nothing of it either."""
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
    """The frame that is next, with good CRCs and whatever its header is to say."""
    payload: bytes = msgpack.packb(record(END + 1)) * records
    fields = (lsn, durable_lsn, 0, len(payload), count, kind, zero)
    body = FRAME_HEADER.pack(0, crc32c(payload), *fields)[4:]
    return crc32c(body, seed).to_bytes(4, "little") + body + payload


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "an LSN again": {"lsn": END},
    "an LSN left out": {"lsn": END + 2},
    "durable before it was written": {"durable_lsn": END + 1},
    "an unknown kind": {"kind": 3},
    "a flag": {"zero": b"\0\1\0"},
    "no record": {"count": 0},
    "no payload": {"records": 0},
    "a record too many": {"count": 2},
    "a record too few": {"records": 2},
    "a mark with a record": {"kind": 2},
}


@pytest.mark.parametrize("changed", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_a_frame_that_says_something_impossible(changed: dict[str, Any]) -> None:
    """P4: a frame whose CRCs are good was never torn: what it says was written like that, and is
    corruption, wherever it stands."""
    contents, last = journal(closed=False), SEGMENTS[-1]
    seed, end = seed_of(contents[last]), places(contents[last])[-1].end
    data = contents[last][:end]
    assert places(data + forged(seed))[-1].last_lsn == END + 1
    check({**contents, last: data + forged(seed, **changed)}, at(last, end, END + 1))
