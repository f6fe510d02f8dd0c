"""Damage to what was durable, a file at a time: missing, misnamed, foreign, older, spliced."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest

from tests.crash.crash_support import PATH
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
    Frame,
    crc32c,
    decode_checkpoint,
    decode_segment,
    encode_checkpoint,
)

END = len(RECORDS)


def without(*names: str) -> Files:
    return {name: data for name, data in journal(closed=True).items() if name not in names}


def at(name: str, offset: int, lsn: int) -> Opened:
    return (f"{PATH}/{name}", offset, lsn), 0


def end_of(name: str) -> int:
    """Behind the last frame, where a mark may stand."""
    return [p for p in places(journal(closed=True)[name]) if p.last_lsn >= p.first_lsn][-1].end


def check(contents: Files, outcome: Opened) -> None:
    """It opens like that; and if it doesn't open, `verify` tells of the same place."""
    assert opened(contents) == outcome
    if outcome[0]:
        path, offset, _ = outcome[0]
        assert (path.rpartition("/")[2], ("corruption", offset)) in findings(contents)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        pytest.param([SEGMENTS[0]], (SEGMENTS[1], 0), id="the first of two"),
        pytest.param([SEGMENTS[1]], (SEGMENTS[0], None), id="the second of two"),
        pytest.param(SEGMENTS[:2], (SEGMENTS[2], 0), id="both"),
    ],
)
def test_a_missing_segment_that_a_checkpoint_covers(
    names: list[str], told: tuple[str, int | None]
) -> None:
    """P4, P5: open can do without what the newer checkpoint covers. `verify` tells that the older
    one could not."""
    check(without(*names), (None, END))
    name, offset = told
    offset = end_of(name) if offset is None else offset
    assert (name, ("corruption", offset)) in findings(without(*names))


@pytest.mark.parametrize(
    ("name", "last_lsn"),
    [
        pytest.param(OLDER, END, id="the older checkpoint"),
        pytest.param(NEWER, END, id="the newer checkpoint"),
        pytest.param(SEGMENTS[3], 11, id="the last segment: undecidable"),
    ],
)
def test_a_missing_file_that_nobody_misses(name: str, last_lsn: int) -> None:
    """P5: one of two checkpoints is enough. That a last segment is missing, nobody can tell."""
    check(without(name), (None, last_lsn))
    assert findings(without(name)) == findings(journal(closed=True))


@pytest.mark.parametrize(
    ("names", "refusal"),
    [
        pytest.param([SEGMENTS[2]], (SEGMENTS[1], 10), id="a needed segment"),
        pytest.param([NEWER, SEGMENTS[1]], (SEGMENTS[0], 7), id="needed by the older checkpoint"),
        pytest.param(SEGMENTS[2:], (SEGMENTS[1], 10), id="what the newer checkpoint testifies to"),
    ],
)
def test_missing_segments_are_missed(names: list[str], refusal: tuple[str, int]) -> None:
    """P4: the segment in front of the gap is named, and the first LSN that is lost."""
    name, lsn = refusal
    check(without(*names), at(name, end_of(name), lsn))


def test_both_checkpoints_are_missed() -> None:
    """P4: without a checkpoint the log has to reach back to LSN 1."""
    check(without(OLDER, NEWER), at(SEGMENTS[0], 0, 1))


def test_the_whole_log_is_missed() -> None:
    """P4: a checkpoint alone is no journal: the last segment is never removed."""
    damaged = without(*SEGMENTS)
    assert opened(damaged) == ((PATH, 0, 1), 0)
    assert findings(damaged) == {("journal", ("corruption", 0))}


def test_a_segment_under_another_name_is_refused() -> None:
    """P4: a name that its header contradicts: a second copy, or two that were swapped."""
    contents = journal(closed=True)
    for copy, lsn in (
        ("00000000000000000014-0000000004.seg", 14),
        ("00000000000000000011-0000000003.seg", 11),
    ):
        check({**contents, copy: contents[SEGMENTS[2]]}, at(copy, 0, lsn))
    one, other = SEGMENTS[2:]
    check({**contents, one: contents[other], other: contents[one]}, at(one, 0, 10))


def test_a_covered_segment_under_another_name_is_found_by_verify() -> None:
    """P4: open needs no segment that a checkpoint covers; `verify` looks all the same."""
    contents = journal(closed=True)
    copy = "00000000000000000008-0000000003.seg"
    damaged = {**contents, copy: contents[SEGMENTS[2]]}
    check(damaged, (None, END))
    assert (copy, ("corruption", 0)) in findings(damaged)


@pytest.mark.parametrize(
    ("name", "offset", "lsn"), [(SEGMENTS[3], 16, 12), (OLDER, 0, 4), (NEWER, 0, 10)]
)
def test_a_file_of_another_journal_is_refused(name: str, offset: int, lsn: int) -> None:
    """P4: each file carries the journal's id, and one that verifies but is foreign is no crash."""
    foreign = journal(closed=True, journal_id=2)[name]
    check({**journal(closed=True), name: foreign}, at(name, offset, lsn))


def test_an_older_copy_of_a_segment() -> None:
    """P4: an older copy lacks LSNs that the next segment proves, or a checkpoint does. Of the last
    segment it is undecidable."""
    contents = journal(closed=True)
    older = {n: contents[n][: places(contents[n])[0].end] for n in SEGMENTS}
    check(
        {**contents, SEGMENTS[2]: older[SEGMENTS[2]]}, at(SEGMENTS[2], len(older[SEGMENTS[2]]), 11)
    )
    check({**contents, SEGMENTS[3]: older[SEGMENTS[3]]}, (None, 12))


def test_a_checkpoint_rolled_back() -> None:
    """P4, P10: an older content under a newer name does not verify, and the name testifies: to
    what the log has, or to what it has lost."""
    contents = journal(closed=True)
    damaged = {**contents, NEWER: contents[OLDER]}
    check(damaged, (None, END))
    assert (NEWER, ("bad_checkpoint", 0)) in findings(damaged)
    damaged = {**without(*SEGMENTS[2:]), NEWER: contents[OLDER]}
    check(damaged, at(SEGMENTS[1], end_of(SEGMENTS[1]), 10))


@pytest.mark.parametrize("verifies", [True, False])
def test_a_checkpoint_past_the_end_of_the_log(verifies: bool) -> None:
    """P4: the log up to a checkpoint was durable before it got its name."""
    contents = journal(closed=True)
    ahead, last = f"checkpoint-{99:020d}.json", SEGMENTS[-1]
    forged = replace(decode_checkpoint(contents[NEWER]), lsn=99 if verifies else 98)
    check({**contents, ahead: encode_checkpoint(forged)}, at(last, end_of(last), 14))


@pytest.mark.parametrize("source", SEGMENTS[2:])
def test_a_frame_spliced_from_elsewhere(source: str) -> None:
    """P1, P4: a frame of another segment doesn't validate; one of the same says another LSN."""
    contents, target = journal(closed=True), SEGMENTS[3]
    frame = places(contents[source])[0 if source == target else 1]
    _, place, _ = places(contents[target])
    spliced = contents[source][frame.start : frame.end]
    assert len(spliced) == place.end - place.start
    data = contents[target]
    damaged = data[: place.start] + spliced + data[place.end :]
    check({**contents, target: damaged}, at(target, place.start, 13))


def test_an_older_epoch_behind_a_newer_one() -> None:
    """P1, P10: epochs only grow along the log, so a segment that an earlier opening wrote is
    refused behind one of a later, even where its LSNs fit."""
    contents, last = journal(closed=True), SEGMENTS[-1]
    segment = decode_segment(contents[last])
    header = replace(segment.header, epoch=2)
    forged = header.encode() + b"".join(frame.encode(header.seed) for frame in segment.frames)
    check({**without(last), header.name: forged}, at(header.name, 12, 12))


def test_no_frame_stands_behind_a_mark() -> None:
    """P1: the next frame is written over a mark, so what stands behind one is of a commit that was
    torn, be it ever so whole."""
    contents, last = journal(closed=True), SEGMENTS[-1]
    seed = decode_segment(contents[last]).header.seed
    behind = Frame(END + 1, END, 0, (["a", 0, "torn"],)).encode(seed)
    damaged = {**contents, last: contents[last] + behind}
    check(damaged, (None, END))
    assert (last, ("torn_tail", len(contents[last]))) in findings(damaged)


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
    seed, end = decode_segment(contents[last]).header.seed, places(contents[last])[-1].end
    data = contents[last][:end]
    assert places(data + forged(seed))[-1].last_lsn == END + 1
    check({**contents, last: data + forged(seed, **changed)}, at(last, end, END + 1))
