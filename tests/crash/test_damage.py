"""Flipped bits that open can't report: those without later evidence, and no others.

The tests flip each bit in the last segment of a small journal, which has four segments, three
epochs, two checkpoints and a torn tail, and open it. `damage_oracle` predicts the outcome.
"""

from __future__ import annotations

from proof.ledger import Ledger

from journal.testing import ManualOptions, Owner
from tests.crash.crash_support import files
from tests.crash.damage_oracle import Evidence, verdict
from tests.crash.damaged_journal import (
    NAMES,
    RECORDS,
    SEGMENTS,
    Files,
    findings,
    flip,
    is_segment,
    journal,
    marks,
    opened,
    places,
    recovered,
)


def undetected_bytes(contents: Files, name: str, last_lsn: int) -> set[int]:
    """Return the offsets at which a flipped bit loses records and open reports nothing."""
    evidence, offsets = Evidence.of(contents), set()
    for offset, bit, damaged in flip(contents, name):
        outcome = recovered(damaged)
        assert outcome == verdict(damaged, evidence), (offset, bit)
        if not outcome[0] and outcome[1] < last_lsn:
            offsets.add(offset)
    return offsets


def test_the_journal_contains_everything_that_can_be_damaged() -> None:
    """The journal has covered, needed and full segments, a torn tail, marks and checkpoints.

    Without one of them, damage to it would go untested.
    """
    for closed in (True, False):
        contents = journal(closed=closed)
        assert sorted(contents) == sorted(NAMES)
        assert opened(contents) == (None, len(RECORDS))
        torn = places(contents[SEGMENTS[0]])[-1].end
        assert findings(contents) == {(SEGMENTS[0], ("torn_tail", torn))}
        assert [len(marks(contents[name])) for name in SEGMENTS] == [0, 0, 1, int(closed)]


def test_only_the_last_commit_of_a_killed_journal_is_undecidable() -> None:
    """P4: Only a flipped bit in the last frame of a killed journal passes for a torn tail.

    No later evidence covers that frame. A flipped bit elsewhere in the last segment loses nothing
    in silence.
    """
    contents, name = journal(closed=False), SEGMENTS[-1]
    *_, last = places(contents[name])
    assert undetected_bytes(contents, name, len(RECORDS)) == set(range(last.start, last.end))


def test_with_os_durability_all_commits_since_the_last_sync_are_undecidable() -> None:
    """P4: Frames state the synced LSN, so no evidence covers the frames after the last sync."""
    with Owner(Ledger, options=ManualOptions(durability="os", segment_bytes=320)) as owner:
        for record in RECORDS[:5]:
            owner.append(record)
            owner.wait()
            if record is RECORDS[1]:
                owner.compact()
        contents = files(owner.disk)
    [name] = filter(is_segment, contents)
    frames = places(contents[name])
    assert [frame.durable_lsn for frame in frames] == [0, 0, 2, 2, 2]
    assert undetected_bytes(contents, name, 5) == set(range(frames[2].start, frames[-1].end))
