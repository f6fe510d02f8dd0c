"""Damage to what was durable: every bit, every truncation, every file.

A small journal of four segments, three epochs, two checkpoints and a torn tail is damaged in one
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

from itertools import pairwise, zip_longest
from typing import NamedTuple

import pytest

from journal.testing import ManualOptions, SimulatedDisk
from tests.crash.crash_support import (
    PATH,
    commit,
    discard,
    files,
    open_ledger,
)
from tests.crash.damaged_journal import (
    NAMES,
    RECORDS,
    SEGMENTS,
    Files,
    Place,
    findings,
    flip,
    is_segment,
    journal,
    lsn_of,
    marks,
    opened,
    places,
    recovered,
)
from tests.independent_reader import (
    FRAME_HEADER,
    SEGMENT_HEADER,
)

# --- what must come of damage ---


class Foretold(NamedTuple):
    """Of open: where and at which LSN it refuses, or up to which LSN it yields. Of verify: the one
    finding about the damaged file."""

    refusal: tuple[str, int, int] | None
    last_lsn: int
    finding: tuple[str, int]


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
        outcome = (opened if (8 * offset + bit) % 67 == 0 else recovered)(damaged)
        assert outcome == (foretold.refusal, foretold.last_lsn), (offset, bit)
        assert outcome[0] or outcome[1] == len(RECORDS)
        if not outcome[0] or bit == offset % 8:  # what open names, verify names; of that a part
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
    state = open_ledger(disk, ManualOptions(durability="os", segment_bytes=320))
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
        damaged = {**contents, name: contents[name][:size]}
        outcome = recovered(damaged)
        assert outcome == (foretold.refusal, foretold.last_lsn), size
        if foretold.finding[0] != "torn_tail":
            assert (name, foretold.finding) in findings(damaged), size
        if not outcome[0] and outcome[1] < len(RECORDS):
            assert name == SEGMENTS[-1]
            kept = [place for place in places(contents[name]) if place.end <= size]
            assert outcome[1] == max([p.last_lsn for p in kept], default=lsn_of(name) - 1)
