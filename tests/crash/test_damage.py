"""Which bits are undecidable: those that nothing later speaks for, and no others.

A small journal of four segments, three epochs, two checkpoints and a torn tail is damaged in one
bit of its last segment, and opened. What must come of that, `damage_oracle` foretells.
"""

from __future__ import annotations

from journal.testing import ManualOptions, Owner
from journal.testing.ledger import Ledger
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


def silent(contents: Files, name: str, last_lsn: int) -> set[int]:
    """Return the bytes of which a flipped bit loses records, and nobody can know that."""
    evidence, found = Evidence.of(contents), set()
    for offset, bit, damaged in flip(contents, name):
        outcome = recovered(damaged)
        assert outcome == verdict(damaged, evidence), (offset, bit)
        if not outcome[0] and outcome[1] < last_lsn:
            found.add(offset)
    return found


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


def test_only_the_last_commit_of_a_killed_journal_is_undecidable() -> None:
    """P4: a bit of the frame that nothing later testifies for is taken for a torn tail. No other
    bit of the last segment loses anything in silence."""
    contents, name = journal(closed=False), SEGMENTS[-1]
    *_, last = places(contents[name])
    assert silent(contents, name, len(RECORDS)) == set(range(last.start, last.end))


def test_with_os_durability_all_commits_since_the_last_sync_are_undecidable() -> None:
    """P4: frames say what was synced, so those since the log was synced last have no witness."""
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
    assert silent(contents, name, 5) == set(range(frames[2].start, frames[-1].end))
