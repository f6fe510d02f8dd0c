"""Judge one damaged journal with open, a reader, verify and repair, and classify the result."""

from __future__ import annotations

import re

from journal import (
    CompactedError,
    CorruptionError,
    Finding,
    JournalError,
    JournalReader,
    RepairReport,
    repair,
)
from journal._disk.disk import LOCK
from journal.testing import SimulatedDisk
from tests.crash.crash_support import PATH, image
from tests.crash.damage_fixes import fixed_by_repair
from tests.crash.damage_kinds import Journal
from tests.crash.damage_oracle import (
    Evidence,
    base_lsn,
    checkpoints,
    expected_findings,
    foreign_segments,
    leftovers,
    meaning,
    misnamed_first_kept,
    needed_after,
    pairs,
    stray_segments,
    verdict,
    whole_frames,
)
from tests.crash.damaged_journal import (
    Files,
    Opened,
    appended,
    is_segment,
    lsn_of,
    places,
    recovered,
    stated_lsn,
)
from tests.independent_reader import CHECKPOINT_NAME, SEGMENT_NAME
from tests.support import findings as findings_on

FOREIGN_OFFSET = 16  # offset of the journal id in a segment header
NAME = re.compile(f"{SEGMENT_NAME.pattern}|{CHECKPOINT_NAME.pattern}")

REFUSED, VERIFIED = "refused by open", "found by verify"
LAST_COMMIT = "The last commit, or those in flight with it"
UNSYNCED = "Commits that durability `os` had not synced"
END = "The end of the log, together with its evidence"
OLDER_DIRECTORY = "The whole directory, replaced by an older copy"
FORK = "Files of a copy that was written to separately"
NOTHING_LOST = "Damage that loses nothing"
# The cases that journal/docs/RELIABILITY.md names.
UNDECIDABLE = (LAST_COMMIT, UNSYNCED, END, OLDER_DIRECTORY, FORK, NOTHING_LOST)


class Judge:
    """A judge of the damaged versions of one journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.log = appended(journal.size)
        self.evidence = Evidence.of(journal.files)
        self.known = set(findings(journal.files))

    def judge(self, damaged: Files) -> str:
        """Return the class of the damage. Check that all readers agree and change nothing."""
        expected = verdict(damaged, self.evidence)
        disk = image(damaged)
        findings_found = list(findings_on(disk))
        base = base_lsn(damaged)
        reader_outcome, log = read(disk, base)
        assert log == self.log.records(base, base + len(log)), (
            "P1: a reader yields what was appended"
        )
        report = dry_repair(disk)
        assert disk.contents(PATH) == damaged, "reading changes nothing"
        outcome = recovered(damaged, size=self.journal.size, leftovers=leftovers(damaged))
        assert outcome == expected, "P4: open, against the rule"
        assert reader_outcome in self._seen_by_a_reader(damaged, expected), (
            "P4: a reader sees the same"
        )
        self._check_verify(findings_found, damaged)
        self._check_repair(damaged, report, expected)
        if expected[0]:
            return REFUSED
        if expected[1] < self.log.last_lsn:
            return self._class_of_loss(damaged, expected[1])
        if set(findings_found) - self.known:
            return VERIFIED
        self._check_nothing_lost(damaged)
        return NOTHING_LOST

    def _seen_by_a_reader(self, damaged: Files, expected: Opened) -> list[Opened]:
        """Return what a reader may report if open reports `expected`.

        A reader looks only at the records after the checkpoint, so stray segments that stop an open
        do not stop a reader.
        """
        if not expected[0]:
            return [expected]
        path, _, lsn = expected[0]
        name = path[len(PATH) + 1 :]
        if name.startswith("checkpoint-") and stated_lsn(name, damaged[name]) != lsn_of(name):
            return [expected]  # the log may have lost its end, which a reader would yield
        if is_aside(damaged, name) or (name, lsn) in pairs(damaged):
            return [verdict(without(damaged, name), self.evidence)]
        return [expected]

    def _check_verify(self, reported: list[Finding], damaged: Files) -> None:
        """Check that verify reports all damage, needed for recovery or not, and nothing else.

        Stray segments are reported without lost records. Apart from them, verify names the same
        place and LSN as open. If a gap follows the newest checkpoint, the reported gap may begin
        earlier, in the records that only the older checkpoint needs.
        """
        lsns: dict[tuple[str, str, int], set[int]] = {}
        for finding in reported:
            lsns.setdefault((finding.kind, finding.path, finding.offset), set()).add(finding.lsn)
        stray = stray_segments(damaged, self.journal.files)
        foreign = foreign_segments(damaged, self.evidence.journal_id)
        offsets = {name: FOREIGN_OFFSET if name in foreign else 0 for name in stray}
        for name in stray:
            assert lsns["corruption", f"{PATH}/{name}", offsets[name]] == {0}, "P4: verify"
        rest = without(damaged, *stray)
        expected = expected_findings(rest, self.evidence)
        if expected is not None:
            expected |= {(name, "corruption", offset) for name, offset in offsets.items()}
            expected |= {(n, "stray", 0) for n in damaged if n != LOCK and not NAME.fullmatch(n)}
            reported_places = {
                (finding.path.rpartition("/")[2], finding.kind, finding.offset)
                for finding in reported
            }
            assert reported_places == expected, "P4: verify"
        refusal, _ = verdict(rest, self.evidence)
        if refusal:
            path, offset, lsn = refusal
            if path.endswith(".json"):
                lsn = 0  # a checkpoint of another journal or name: no record is lost
            lsns_there = lsns["corruption", path, offset]
            is_due = lsn == base_lsn(rest) + 1
            assert lsn in lsns_there or (is_due and min(lsns_there) < lsn), "P4: verify"

    def _check_repair(self, damaged: Files, report: RepairReport | None, expected: Opened) -> None:
        """Check what a repair would keep, remove and salvage, to the LSN."""
        refusal, _ = expected
        if report is None:  # the journal has no first segment to start from
            assert refusal
            assert refusal[2] == 1
            return
        assert (report.problem is None) == (refusal is None)
        if refusal:
            damaged = fixed_by_repair(damaged, self.journal.files)
            expected = verdict(damaged, self.evidence)
        last_lsn, removed = self._kept_by_repair(damaged, expected)
        assert (report.last_lsn, set(report.removed)) == (last_lsn, removed)
        places = whole_frames(damaged, self.journal.files)
        whole = {(place.first_lsn, place.last_lsn) for place in places}
        assert set(report.salvaged) <= whole
        assert {lsns for lsns in whole if lsns[0] > last_lsn} <= set(report.salvaged)

    def _kept_by_repair(self, damaged: Files, expected: Opened) -> tuple[int, set[str]]:
        """Return the last LSN that a repair keeps, and the names that it removes."""
        refusal, last_lsn = expected
        if refusal is None:
            return last_lsn, set()
        name = refusal[0].rpartition("/")[2]
        strays = stray_segments(damaged, self.journal.files)
        if strays or is_aside(damaged, name):
            strays = strays or {name}
            rest = without(damaged, *strays)
            last_lsn, removed = self._kept_by_repair(rest, verdict(rest, self.evidence))
            return last_lsn, strays | removed
        last_lsn = max(base_lsn(damaged), refusal[2] - 1)
        names = [name for name in damaged if NAME.fullmatch(name)]
        removed = {name for name in names if lsn_of(name) > last_lsn}
        # A file that the older checkpoint covers may still be in the way.
        cut = f"{last_lsn + 1:020d}-{99:010d}.seg"
        remaining = {**without(damaged, *removed), cut: b""}
        while (
            (stray := misnamed_first_kept(remaining))
            and stray != cut
            and is_aside(remaining, stray)
        ):
            removed.add(stray)
            remaining = without(remaining, stray)
        return last_lsn, removed

    def _class_of_loss(self, damaged: Files, last_lsn: int) -> str:
        """Return the class of a loss from `last_lsn + 1` on, of which the disk has no evidence."""
        undamaged = self.journal.files
        if damaged in self.journal.past:
            return OLDER_DIRECTORY
        last = max(filter(is_segment, undamaged))
        if self.evidence.left_in(undamaged, last) > last_lsn:
            return END
        frames = places(undamaged[last])
        if len({frame.durable_lsn for frame in frames}) == len(frames):
            assert last_lsn == frames[-1].first_lsn - 1, "only the last commit is lost"
            return LAST_COMMIT
        return UNSYNCED

    def _check_nothing_lost(self, damaged: Files) -> None:
        """Check that only files that a good checkpoint makes useless are missing."""
        before, now = meaning(self.journal.files), meaning(damaged)
        assert {name: before[name] for name in now} == now
        ends = dict(pairs(self.journal.files))
        missing = set(before) - set(now)
        assert not missing or checkpoints(damaged)
        for name in filter(is_segment, missing):
            assert (ends[name] or 0) - 1 <= base_lsn(damaged)


def is_aside(contents: Files, name: str) -> bool:
    """Return whether the log after the checkpoint continues without the file `name`."""
    needed = {segment for segment, _ in needed_after(contents, base_lsn(contents))}
    return bool(NAME.fullmatch(name)) and name not in needed


def without(contents: Files, *names: str) -> Files:
    return {name: data for name, data in contents.items() if name not in names}


def findings(contents: Files) -> list[Finding]:
    return findings_on(image(contents))


def read(disk: SimulatedDisk, base: int) -> tuple[Opened, list[object]]:
    """Return how a reader sees the log after LSN `base`, and the records that it yields."""
    yielded = []
    with JournalReader.open(PATH, disk=disk) as reader:
        try:
            for entry in reader.entries(base):
                yielded.append(entry.record)
                assert entry.lsn == base + len(yielded)
        except CorruptionError as error:
            return ((error.path, error.offset, error.lsn), 0), yielded
        except CompactedError as error:  # `open` reports that the records are missing
            first = next(n for n, _ in pairs(disk.contents(PATH)) if lsn_of(n) == error.first_lsn)
            return ((f"{PATH}/{first}", 0, base + 1), 0), yielded
    return (None, base + len(yielded)), yielded


def dry_repair(disk: SimulatedDisk) -> RepairReport | None:
    try:
        return repair(PATH, disk=disk)
    except JournalError:
        return None
