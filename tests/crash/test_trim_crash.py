"""Crashes of a journal that is trimmed: it always opens, and nothing that stays is lost."""

from __future__ import annotations

from contextlib import suppress
from itertools import product
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from journal import (
    FailedError,
    Journal,
    JournalError,
    JournalReader,
    NotAJournalError,
    Options,
)
from journal._format.checkpoint import checkpoint_lsns
from journal.testing import Bounds, ManualOptions, SimulatedDisk
from journal.testing.disk import Mutation
from journal.testing.medium import Medium
from journal.testing.owner import for_engine, quiet
from tests.crash.crash_support import Durability, drawn_by, images_of
from tests.support import PATH
from tests.tiers import examples, slow_unless

RECORD = "x" * 1500  # two of this size take a segment


def opened(disk: SimulatedDisk, durability: Durability, **more: Any) -> Journal:
    return Journal.open(PATH, options=ManualOptions(durability=durability, **more), disk=disk)


def check(disk: SimulatedDisk, options: Options, kept_lsn: int, safe_lsn: int, last: int) -> int:
    """Read, open and extend the journal. Everything from `kept_lsn` to `safe_lsn` must be there.

    The record with LSN n is `[n, RECORD]`, up to LSN `last`. Return the last LSN recovered.
    """
    lost = () if safe_lsn else (NotAJournalError,)  # a power cut may undo the whole first open
    with suppress(*lost), JournalReader.open(PATH, disk=disk) as reader:
        kinds = {finding.kind for finding in reader.verify()}
        assert kinds <= {"torn_tail", "stray", "bad_checkpoint"}, kinds
    with Journal.open(PATH, options=options, disk=disk) as journal:
        recovered = journal.last_lsn
        assert safe_lsn <= recovered <= last
        first = journal.first_lsn
        assert first <= max(kept_lsn, 1)
        entries = [(entry.lsn, entry.record) for entry in journal.replay(first - 1)]
        assert entries == [(lsn, [lsn, RECORD]) for lsn in range(first, recovered + 1)]
        replayed = [entry.lsn for entry in journal.replay()]
        assert replayed == [*range(recovered + 1 - len(replayed), recovered + 1)]
        assert recovered + 1 - len(replayed) <= max(kept_lsn, 1)
        if recovered:
            assert journal.trim(recovered + 1) <= recovered
        assert journal.append("more") == recovered + 1
    return recovered


@pytest.mark.parametrize(
    ("durability", "kept"),
    slow_unless(
        lambda durability, kept: durability == "disk" and kept == 2,
        product(["disk", "os"], [2, 3]),
    ),
)
def test_no_crash_during_trims_loses_what_stays(durability: Durability, kept: int) -> None:
    """P1, P2, P5: After each crash at each disk operation of several trims, with each outcome
    within bounds, the journal opens with every record from `before_lsn` on."""
    disk = SimulatedDisk()
    steps: list[tuple[str, Medium, int, int]] = []
    kept_lsn, last = 1, 0
    with quiet(), opened(disk, durability, checkpoints_kept=kept) as journal:

        def watch(operation: Mutation, path: str) -> None:
            safe_lsn = journal._core.committer.synced_lsn
            steps.append((f"{operation} {path}", disk.snapshot(), kept_lsn, safe_lsn))

        def put(count: int) -> None:
            nonlocal last
            for _ in range(count):
                last += 2
                journal.append_batch([[last - 1, RECORD], [last, RECORD]])
                journal.wait_durable()

        put(4)
        disk.watch = watch
        for before_lsn, more in ((6, 1), (10, 0), (11, 2), (15, 1)):
            kept_lsn = before_lsn
            journal.trim(before_lsn)
            put(more)
        disk.watch = None
    options = ManualOptions(durability=durability, checkpoints_kept=kept)
    bounds = Bounds(outcomes_max=24)
    checked = set()
    with quiet():
        for _, medium, kept_lsn, safe_lsn in steps:
            check(SimulatedDisk(medium.copy()), options, kept_lsn, safe_lsn, last)
            for image in images_of(medium, bounds):
                if (image.key, kept_lsn, safe_lsn) not in checked:
                    checked.add((image.key, kept_lsn, safe_lsn))
                    copy = SimulatedDisk(image.medium.copy())
                    check(copy, options, kept_lsn, safe_lsn, last)
    assert len(steps) > 40
    assert len(checked) > 100


class TrimmedLog(RuleBasedStateMachine):
    """A journal that is trimmed, crashed at any moment, and reopened."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk()
        self.kept_lsn = self.safe_lsn = self.alive_lsn = self.last = 0
        self.has_rotted = False

    @initialize(durability=st.sampled_from(["disk", "os"]), kept=st.integers(2, 3))
    def begin(self, durability: Durability, kept: int) -> None:
        self.options = ManualOptions(durability=durability, checkpoints_kept=kept)
        self.journal = Journal.open(PATH, options=self.options, disk=self.disk)

    @rule(sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4), waits=st.booleans())
    def append(self, sizes: list[int], waits: bool) -> None:
        for size in sizes:
            lsns = range(self.last + 1, self.last + size + 1)
            self.journal.append_batch([[lsn, RECORD] for lsn in lsns])
            self.last += size
            if waits:
                self.journal.wait_durable()

    @rule(data=st.data())
    def trim(self, data: st.DataObject) -> None:
        self._trim(data)

    @rule(data=st.data(), after=st.integers(0, 24), power=st.booleans())
    def crash_in_a_trim(self, data: st.DataObject, after: int, power: bool) -> None:
        self.disk.crash_after(after)
        with suppress(OSError, JournalError):
            self._trim(data)
        self._crash(data, power)

    @rule(data=st.data(), power=st.booleans())
    def crash(self, data: st.DataObject, power: bool) -> None:
        self._crash(data, power)

    @rule()
    def reopen(self) -> None:
        self.journal.close()
        self.safe_lsn = self.last
        self._reopen()

    @precondition(lambda self: not self.has_rotted)
    @rule(data=st.data())
    def a_checkpoint_rots(self, data: st.DataObject) -> None:
        """Damage one checkpoint, once. A trim relies on two so that the journal survives that."""
        names = sorted(n for n in self.disk.contents(PATH) if checkpoint_lsns([n]))
        if names:
            file = self.disk.open_directory(PATH, write=True).open(
                data.draw(st.sampled_from(names)), "update"
            )
            file.write(b"\xff", data.draw(st.integers(0, file.size() - 1)))
            file.sync()
            self.has_rotted = True

    def teardown(self) -> None:
        with quiet(), suppress(FailedError):
            self.disk.kill()
            self.journal.close()

    def _trim(self, data: st.DataObject) -> None:
        before_lsn = data.draw(st.integers(1, self.last + 1))
        self.kept_lsn = max(self.kept_lsn, before_lsn)
        first = self.journal.trim(before_lsn)
        assert 1 <= first <= max(self.kept_lsn, 1)

    def _crash(self, data: st.DataObject, power: bool) -> None:
        safe, alive = self.journal._core.committer.synced_lsn, self.journal.durable_lsn
        with quiet():
            self.disk.kill()
            with suppress(FailedError):
                self.journal.close()
            if power:
                self.disk.power_cut(for_engine(drawn_by(data, damage=True)))
        self.safe_lsn = max(self.safe_lsn, safe if power else alive)
        self._reopen()

    def _reopen(self) -> None:
        with quiet():
            medium = self.disk.snapshot()
            recovered = check(
                SimulatedDisk(medium), self.options, self.kept_lsn, self.safe_lsn, self.last
            )
            self.journal = Journal.open(PATH, options=self.options, disk=self.disk)
        assert self.journal.last_lsn == recovered
        self.last = self.safe_lsn = recovered


TestATrimmedLog = TrimmedLog.TestCase
TestATrimmedLog.settings = settings(max_examples=examples(20), stateful_step_count=15)
