"""One damaged journal, looked at by everybody who can look; and the name of what became of it."""

from __future__ import annotations

import re
from itertools import chain

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
from tests.crash.damage_kinds import Journal
from tests.crash.damage_oracle import (
    Evidence,
    base_lsn,
    checkpoints,
    foreseen,
    leftovers,
    meaning,
    misplaced,
    needed_after,
    pairs,
    stray_segment,
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
)
from tests.independent_reader import CHECKPOINT_NAME, SEGMENT_NAME

FOREIGN_OFFSET = 16  # of the id in a segment's header
NAME = re.compile(f"{SEGMENT_NAME.pattern}|{CHECKPOINT_NAME.pattern}")

REFUSED, VERIFIED = "refused by open", "found by verify"
LAST_COMMIT = "The last commit, with nothing after it"
UNSYNCED = "Commits that durability `os` had not synced"
END = "The end of the log, together with its evidence"
OLDER_DIRECTORY = "The whole directory, replaced by an older copy"
FORK = "Files of a copy that was written to separately"
NOTHING_LOST = "Damage that loses nothing"
# As journal/docs/RELIABILITY.md names them.
UNDECIDABLE = (LAST_COMMIT, UNSYNCED, END, OLDER_DIRECTORY, FORK, NOTHING_LOST)


class Judge:
    """Of the damages of one journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.log = appended(journal.size)
        self.evidence = Evidence.of(journal.files)
        self.known = set(findings(journal.files))

    def judge(self, damaged: Files) -> str:
        """What became of it. It is the same for everybody, and nobody changes anything."""
        expected = verdict(damaged, self.evidence)
        disk = image(damaged)
        found = list(findings_on(disk))
        base = base_lsn(damaged)
        seen, log = read(disk, base)
        assert log == self.log.records(base, base + len(log)), (
            "P1: a reader yields what was appended"
        )
        report = dry(disk)
        assert disk.contents(PATH) == damaged, "who looks changes nothing"
        outcome = recovered(damaged, size=self.journal.size, leftovers=leftovers(damaged))
        assert outcome == expected, "P4: open, against the rule"
        assert seen in self._seen_by_a_reader(damaged, expected), "P4: a reader sees the same"
        self._check_verify(found, damaged)
        self._check_repair(damaged, report, expected)
        if expected[0]:
            return REFUSED
        if expected[1] < self.log.last_lsn:
            return self._class_of_loss(damaged, expected[1])
        if set(found) - self.known:
            return VERIFIED
        self._check_nothing_lost(damaged)
        return NOTHING_LOST

    def _seen_by_a_reader(self, damaged: Files, expected: Opened) -> list[Opened]:
        """The same; but it reads the log alone, and of that what follows the checkpoint and holds
        a record. So what is in the way of an opening only is not in its way; and a segment of
        another journal it may know by the next one."""
        if not expected[0]:
            return [expected]
        path, offset, lsn = expected[0]
        name = path[len(PATH) + 1 :]
        if is_aside(damaged, name) or (name, lsn) in pairs(damaged):
            return [verdict(without(damaged, name), self.evidence)]
        behind = [n for n, _ in pairs(damaged) if lsn_of(n) > lsn][:1]
        is_foreign = offset == FOREIGN_OFFSET
        return [expected, *(((f"{PATH}/{n}", offset, lsn_of(n)), 0) for n in behind if is_foreign)]

    def _check_verify(self, found: list[Finding], damaged: Files) -> None:
        """It finds all that is damaged, needed for recovery or not, and nothing else. It names the
        segments that are in the way, with which none is lost. Of the rest it names the same place
        and LSN as open; where a gap follows the newest checkpoint, it may begin in what the older
        one needs."""
        lsns: dict[tuple[str, str, int], set[int]] = {}
        for each in found:
            lsns.setdefault((each.kind, each.path, each.offset), set()).add(each.lsn)
        wrong = misplaced(damaged, self.journal.files)
        for name in wrong:
            assert lsns["corruption", f"{PATH}/{name}", 0] == {0}, "P4: verify"
        rest = without(damaged, *wrong)
        expected = foreseen(rest, self.evidence)
        if expected is not None:
            expected |= {(name, "corruption", 0) for name in wrong}
            expected |= {(n, "stray", 0) for n in damaged if n != LOCK and not NAME.fullmatch(n)}
            seen = {(each.path.rpartition("/")[2], each.kind, each.offset) for each in found}
            assert seen == expected, "P4: verify"
        refusal, _ = verdict(rest, self.evidence)
        if refusal:
            path, offset, lsn = refusal
            if path.endswith(".json"):
                lsn = 0  # of another journal: none is lost
            there = lsns["corruption", path, offset]
            is_due = lsn == base_lsn(rest) + 1
            assert lsn in there or (is_due and min(there) < lsn), "P4: verify"

    def _check_repair(self, damaged: Files, report: RepairReport | None, expected: Opened) -> None:
        """What it would keep, remove and salvage, to the LSN."""
        refusal, _ = expected
        if report is None:  # there is nothing to begin with
            assert refusal
            assert refusal[2] == 1
            return
        assert (report.problem is None) == (refusal is None)
        last_lsn, removed = self._kept_by_repair(damaged, expected)
        assert (report.last_lsn, set(report.removed)) == (last_lsn, removed)
        sources = self.journal.files, self.journal.foreign
        places = chain.from_iterable(whole_frames(damaged, files) for files in sources)
        whole = {(place.first_lsn, place.last_lsn) for place in places}
        assert set(report.salvaged) <= whole
        assert {lsns for lsns in whole if lsns[0] > last_lsn} <= set(report.salvaged)

    def _kept_by_repair(self, damaged: Files, expected: Opened) -> tuple[int, set[str]]:
        """The last LSN, and what it removes."""
        refusal, last_lsn = expected
        if refusal is None:
            return last_lsn, set()
        name = refusal[0].rpartition("/")[2]
        wrong = misplaced(damaged, self.journal.files)
        if wrong or is_aside(damaged, name):
            wrong = wrong or {name}
            rest = without(damaged, *wrong)
            last_lsn, removed = self._kept_by_repair(rest, verdict(rest, self.evidence))
            return last_lsn, wrong | removed
        last_lsn = max(base_lsn(damaged), refusal[2] - 1)
        names = [name for name in damaged if NAME.fullmatch(name)]
        removed = {name for name in names if lsn_of(name) > last_lsn}
        # Of what is left, one may be in the way that a checkpoint covers.
        cut = f"{last_lsn + 1:020d}-{99:010d}.seg"
        left = {**without(damaged, *removed), cut: b""}
        while (stray := stray_segment(left)) and stray != cut and is_aside(left, stray):
            removed.add(stray)
            left = without(left, stray)
        return last_lsn, removed

    def _class_of_loss(self, damaged: Files, last_lsn: int) -> str:
        """Nothing on the disk says that LSN `last_lsn + 1` was durable. Did anything ever?"""
        undamaged = self.journal.files
        if damaged in self.journal.past:
            return OLDER_DIRECTORY
        last = max(filter(is_segment, undamaged))
        if self.evidence.left_in(undamaged, last) > last_lsn:
            return END
        frames = places(undamaged[last])
        if len({frame.durable_lsn for frame in frames}) == len(frames):
            assert last_lsn == frames[-1].first_lsn - 1, "no more than the last commit"
            return LAST_COMMIT
        return UNSYNCED

    def _check_nothing_lost(self, damaged: Files) -> None:
        """All is there that means anything, but for what one good checkpoint makes useless."""
        before, now = meaning(self.journal.files), meaning(damaged)
        assert {name: before[name] for name in now} == now
        ends = dict(pairs(self.journal.files))
        gone = set(before) - set(now)
        assert not gone or checkpoints(damaged)
        for name in filter(is_segment, gone):
            assert (ends[name] or 0) - 1 <= base_lsn(damaged)


def is_aside(contents: Files, name: str) -> bool:
    """Whether the log that follows the checkpoint goes on without it."""
    needed = {segment for segment, _ in needed_after(contents, base_lsn(contents))}
    return bool(NAME.fullmatch(name)) and name not in needed


def without(contents: Files, *names: str) -> Files:
    return {name: data for name, data in contents.items() if name not in names}


def findings(contents: Files) -> list[Finding]:
    return findings_on(image(contents))


def findings_on(disk: SimulatedDisk) -> list[Finding]:
    with JournalReader.open(PATH, disk=disk) as reader:
        return list(reader.verify())


def read(disk: SimulatedDisk, base: int) -> tuple[Opened, list[object]]:
    """How a reader sees what follows the checkpoint at `base`; the records that it yields."""
    found = []
    with JournalReader.open(PATH, disk=disk) as reader:
        try:
            for entry in reader.entries(base):
                found.append(entry.record)
                assert entry.lsn == base + len(found)
        except CorruptionError as error:
            return ((error.path, error.offset, error.lsn), 0), found
        except CompactedError as error:  # of which `open` says that it is missing
            first = next(n for n, _ in pairs(disk.contents(PATH)) if lsn_of(n) == error.first_lsn)
            return ((f"{PATH}/{first}", 0, base + 1), 0), found
    return (None, base + len(found)), found


def dry(disk: SimulatedDisk) -> RepairReport | None:
    try:
        return repair(PATH, disk=disk)
    except JournalError:
        return None
