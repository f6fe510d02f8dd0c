"""Damage to what was durable: every bit, every truncation, every file.

A small journal of five segments, four epochs, two checkpoints and a torn tail is damaged in one
place, and opened. What must come of it is foretold from the places of its frames, which an
independent reader finds, and from the format's rule: all that is provably durable, or a
CorruptionError that names file, offset and LSN, and nothing on disk changed.

Undecidable, and the tests hold the list to be complete, is damage that no later witness speaks
against:

- a bit of the last commit's frame, if the journal died before a mark (or anything else) said that
  this commit was durable; after a clean close: no bit at all;
- the last segment truncated: what is gone takes its witnesses with it, except for what a
  checkpoint testifies; the same for the last segment missing.

Bits that mean nothing any more (a torn tail behind its cut, zeros, a mark, LOCK) change nothing
that is yielded. `verify` tells each flip apart from a journal that is well, needed for recovery or
not, but for those of a torn tail, which it reports as what it is, and of LOCK, which nobody reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, zip_longest
from typing import NamedTuple

import pytest

from journal import Checkpoint, CorruptionError, JournalReader
from journal.recovery import Batch, recover
from journal.testing import SimulatedDisk
from tests.crash_support import (
    PATH,
    Ledger,
    by_hand,
    commit,
    discard,
    files,
    image,
    manual_options,
    open_ledger,
    replayed,
)
from tests.damaged_journal import (
    NAMES,
    NEWER,
    OLDER,
    RECORDS,
    SEGMENTS,
    Files,
    Place,
    is_segment,
    journal,
    lsn_of,
    marks,
    open_small,
    places,
)
from tests.independent_reader import (
    FRAME_HEADER,
    SEGMENT_HEADER,
    decode_checkpoint,
    encode_checkpoint,
)


@pytest.fixture(autouse=True, scope="module")
def _by_hand() -> Iterator[None]:
    with by_hand():
        yield


# --- what must come of damage ---


class Foretold(NamedTuple):
    """Of open: where and at which LSN it refuses, or up to which LSN it yields. Of verify: the one
    finding about the damaged file."""

    refusal: tuple[str, int, int] | None
    last_lsn: int
    finding: tuple[str, int] | None


class Damage:
    """Bytes `start` to `end` of the file `name` are not what they were."""

    def __init__(self, undamaged: Files, name: str, start: int, end: int) -> None:
        self.undamaged, self.name, self.start, self.end = undamaged, name, start, end
        self.segments = sorted(filter(is_segment, undamaged))
        self.checkpoints = sorted(set(undamaged) - set(self.segments))

    def hits(self, name: str, start: int, end: int) -> bool:
        return name == self.name and start < self.end and self.start < end

    def foretold(self) -> Foretold:
        """The rule of the format, told from places instead of bytes."""
        good = [lsn_of(name) for name in self.checkpoints if name != self.name]
        base_lsn = max(good, default=0)
        pairs = list(zip_longest(self.segments, self.segments[1:]))
        needed = [(n, after) for n, after in pairs if not after or lsn_of(after) - 1 > base_lsn]
        finding = self._finding()
        lsn = 0
        for name, after in needed:
            refusal, lsn = self._read(name, after)
            if refusal is not None:
                return Foretold((f"{PATH}/{name}", refusal, lsn), 0, finding)
        return Foretold(None, lsn - 1, finding)

    def _read(self, name: str, after: str | None) -> tuple[int | None, int]:
        """Where it is refused, if it is; the next LSN."""
        lsn = lsn_of(name)
        if self.hits(name, 0, SEGMENT_HEADER.size):
            return 0, lsn
        bad: int | None = None
        # Checkpoints testify, by their names; and each header, before the damage and after it.
        evidence = max(map(lsn_of, self.checkpoints))
        for place in self._live(name, after):
            if not self.hits(name, place.start, place.start + FRAME_HEADER.size):
                evidence = max(evidence, place.durable_lsn)
            if bad is None and self.hits(name, place.start, place.end):
                bad = place.start
            if bad is None:
                lsn = place.last_lsn + 1
        must_reach_lsn = lsn_of(after) - 1 if after else evidence
        return (bad if lsn <= must_reach_lsn else None), lsn

    def _live(self, name: str, after: str | None) -> list[Place]:
        """Those in front of the cut that the next segment is."""
        found = places(self.undamaged[name])
        return [place for place in found if not after or place.last_lsn < lsn_of(after)]

    def _finding(self) -> tuple[str, int]:
        if not is_segment(self.name):
            return "bad_checkpoint", 0
        after = dict(pairwise(self.segments)).get(self.name)
        refusal, _ = self._read(self.name, after)
        if refusal is not None:
            return "corruption", refusal
        live = self._live(self.name, after)
        hit = [place.start for place in live if self.hits(self.name, place.start, place.end)]
        return "torn_tail", hit[0] if hit else live[-1].end


Opened = tuple[tuple[str, int, int] | None, int]


def opened(contents: Files) -> Opened:
    """How it is refused, if it is; the last LSN. P1, P4, P6 on the way."""
    disk = image(contents)
    try:
        state = open_small(disk)
    except CorruptionError as error:
        assert disk.contents(PATH) == contents, "a refusal changes nothing"
        return (error.path, error.offset, error.lsn), 0
    assert state.machine.summary == replayed(RECORDS[: state.journal.last_lsn])
    state.close()
    keeps_what_it_read(contents, files(disk))
    return None, state.journal.last_lsn


def recovered(contents: Files) -> Opened:
    """`opened`, without the threads of an open journal, for there are ten thousand flips."""
    disk, machine = image(contents), Ledger()

    def begin(checkpoint: Checkpoint | None) -> None:
        for item in checkpoint.items() if checkpoint else ():
            machine.load(item)

    def receive(batch: Batch) -> None:
        for lsn, each in enumerate(batch.records, batch.first_lsn):
            machine.apply(lsn, each)

    directory = disk.open_directory(PATH, write=True)
    try:
        found = recover(directory, kept=2, begin=begin, receive=receive)
    except CorruptionError as error:
        assert disk.contents(PATH) == contents, "a refusal changes nothing"
        return (error.path, error.offset, error.lsn), 0
    assert machine.summary == replayed(RECORDS[: found.last_lsn])
    keeps_what_it_read(contents, files(disk))
    return None, found.last_lsn


def keeps_what_it_read(before: Files, after: Files) -> None:
    """Nothing is cut or rewritten, torn tails neither; only zeros are trimmed."""
    kept = {name: data.rstrip(b"\0") for name, data in before.items()}
    assert {name: data.rstrip(b"\0") for name, data in after.items()} == kept


def findings(contents: Files) -> set[tuple[str, tuple[str, int]]]:
    """File, kind and offset of all that `verify` finds."""
    with JournalReader.open(PATH, disk=image(contents)) as reader:
        return {(f.path.rpartition("/")[2], (f.kind, f.offset)) for f in reader.verify()}


def flip(contents: Files, name: str) -> Iterator[tuple[int, int, Files]]:
    """Each bit of a file: its byte, its place there, and all files with that bit flipped."""
    for offset in range(len(contents[name])):
        for bit in range(8):
            data = bytearray(contents[name])
            data[offset] ^= 1 << bit
            yield offset, bit, {**contents, name: bytes(data)}


# --- bits ---


def test_the_journal_has_what_damage_may_hit() -> None:
    """Covered segments and needed ones, a roll, a torn tail, marks, two checkpoints: without any
    of them its damage would go untested."""
    for closed in (True, False):
        contents = journal(closed=closed)
        assert sorted(contents) == sorted(NAMES)
        assert opened(contents) == (None, len(RECORDS))
        torn = places(contents[SEGMENTS[0]])[-1].end
        assert findings(contents) == {(SEGMENTS[0], ("torn_tail", torn))}
        assert [len(marks(contents[name])) for name in SEGMENTS] == [0, 0, 1, int(closed)]


@pytest.mark.parametrize("name", NAMES)
def test_every_flip_is_foretold(name: str) -> None:
    """P4: each single bit of a journal that was closed well, needed for recovery or not. None of
    them loses anything in silence, and `verify` finds each."""
    contents = journal(closed=True)
    others = {(other, finding) for other, finding in findings(contents) if other != name}
    for offset, bit, damaged in flip(contents, name):
        foretold = Damage(contents, name, offset, offset + 1).foretold()
        outcome = (opened if bit == offset % 8 else recovered)(damaged)
        assert outcome == (foretold.refusal, foretold.last_lsn), (offset, bit)
        assert outcome[0] or outcome[1] == len(RECORDS)
        assert findings(damaged) == others | {(name, foretold.finding)}, (offset, bit)


def test_only_the_last_commit_of_a_killed_journal_is_undecidable() -> None:
    """P4: a bit of the frame that nothing later testifies for is taken for a torn tail. No other
    bit of the last segment loses anything in silence."""
    contents, name = journal(closed=False), SEGMENTS[-1]
    *_, last = places(contents[name])
    silent = set()
    for offset, bit, damaged in flip(contents, name):
        foretold = Damage(contents, name, offset, offset + 1).foretold()
        outcome = recovered(damaged)
        assert outcome == (foretold.refusal, foretold.last_lsn), (offset, bit)
        if not outcome[0] and outcome[1] < len(RECORDS):
            assert outcome[1] == last.first_lsn - 1
            silent.add(offset)
    assert silent == set(range(last.start, last.end))


def test_with_os_durability_all_commits_since_the_last_sync_are_undecidable() -> None:
    """P4: frames say what was synced, so those since the log was synced last have no witness."""
    disk = SimulatedDisk()
    state = open_ledger(disk, manual_options("os", segment_bytes=320))
    commit(state, RECORDS[0])
    commit(state, RECORDS[1])
    state.compact().close()
    for each in RECORDS[2:5]:
        commit(state, each)
    contents = files(disk)
    [name] = filter(is_segment, contents)
    disk.kill()
    discard(state)
    silent = set()
    for offset, _, damaged in flip(contents, name):
        refusal, last_lsn = recovered(damaged)
        if not refusal and last_lsn < 5:
            silent.add(offset)
    frames = places(contents[name])
    assert [frame.durable_lsn for frame in frames] == [0, 0, 2, 2, 2]
    assert silent == set(range(frames[2].start, frames[-1].end))


# --- truncations ---


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation_is_foretold(name: str) -> None:
    """P1, P4: each file cut at each byte. Only the last segment may lose in silence, and only what
    neither a checkpoint nor what is left of it testifies to."""
    contents = journal(closed=True)
    for size in range(len(contents[name])):
        foretold = Damage(contents, name, size, len(contents[name])).foretold()
        outcome = recovered({**contents, name: contents[name][:size]})
        assert outcome == (foretold.refusal, foretold.last_lsn), size
        if not outcome[0] and outcome[1] < len(RECORDS):
            assert name == SEGMENTS[-1]
            kept = [place for place in places(contents[name]) if place.end <= size]
            assert outcome[1] == max([p.last_lsn for p in kept], default=lsn_of(name) - 1)


# --- files ---

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
    ("names", "last_lsn"),
    [
        pytest.param([SEGMENTS[0]], END, id="covered by the newer checkpoint"),
        pytest.param(SEGMENTS[:2], END, id="all that it covers"),
        pytest.param([OLDER], END, id="the older checkpoint"),
        pytest.param([NEWER], END, id="the newer checkpoint"),
        pytest.param([SEGMENTS[3]], 11, id="the last segment: undecidable"),
    ],
)
def test_missing_files_that_open_does_without(names: list[str], last_lsn: int) -> None:
    """P5: what the checkpoint covers isn't needed, nor is one of two checkpoints. That a last
    segment is missing, nobody can tell."""
    check(without(*names), (None, last_lsn))


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
