"""The real engine, threads and all, on a disk that crashes where Hypothesis says.

Drawn are the steps; where a crash strikes in the middle of one, and in the recovery that follows;
what it leaves of each unsynced write and name; which call of the disk fails, and what a failed sync
wrote all the same; which commits go on beside a compaction. So all of it shrinks. Draws are made in
the test's thread, while the engine's sleep.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from journal import DurableState, FailedError, JournalError, JournalReader, Options
from journal.testing import Change, ManualOptions, SimulatedDisk, drawn
from tests.crash.crash_support import (
    PATH,
    Durability,
    Ledger,
    Record,
    append,
    discard,
    files,
    first_lsns,
    mark,
    open_ledger,
    overwrite,
    recover,
    replayed,
)


def record(key: str, value: int | None, size: int) -> Record:
    return [key, value, "f" * size]


# Three of the largest fill a segment; with a fourth, a commit is more than one frame.
RECORDS = st.builds(
    record, st.sampled_from("abc"), st.sampled_from([0, 1, None]), st.sampled_from([0, 40, 1300])
)
BATCHES = st.lists(RECORDS, min_size=1, max_size=3)
BESIDE = st.dictionaries(st.integers(0, 12), BATCHES, max_size=2)
CHANGES = ("sync", "sync_directory", "write", "create", "rename", "remove", "allocate", "truncate")
FAULTS = st.sampled_from((*CHANGES, "open", "names", "read"))


class CrashMachine(RuleBasedStateMachine):
    """Knows what was appended, and up to which LSN it was told that no power cut (`safe`) and no
    death of the process (`alive`) can take it back. Each reopen is checked against that."""

    state: DurableState[Ledger]
    options: Options

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk()
        self.batches: list[list[Record]] = []
        self.safe = self.alive = 0
        self.fault_struck = False
        self.in_doubt = False  # a sync failed: pages are clean that may not be on the disk
        self.rotten: str | None = None
        self.backups: dict[str, dict[str, bytes]] = {}

    @initialize(
        durability=st.sampled_from(["disk", "os"]), write_bytes_max=st.sampled_from([None, 900])
    )
    def begin(self, durability: Durability, write_bytes_max: int | None) -> None:
        self.options = ManualOptions(durability=durability, frame_bytes_max=4096)
        self.disk.write_bytes_max = write_bytes_max
        self.state = open_ledger(self.disk, self.options)

    def teardown(self) -> None:
        if hasattr(self, "state"):
            self.disk.kill()
            discard(self.state)

    # --- rules ---

    @rule(records=BATCHES)
    def append(self, records: list[Record]) -> None:
        self._append(records)

    @rule(records=BATCHES, data=st.data())
    def commit(self, records: list[Record], data: st.DataObject) -> None:
        self._append(records)
        self._wait(data.draw(st.integers(self.state.journal.durable_lsn + 1, self.last_lsn)))

    @rule()
    def idle(self) -> None:
        self._idle()

    @rule(beside=BESIDE)
    def compact(self, beside: dict[int, list[Record]]) -> None:
        self._compact(beside)

    @rule(beside=BESIDE, compacting=st.booleans())
    def backup(self, beside: dict[int, list[Record]], compacting: bool) -> None:
        self._backup(beside, compacting)

    @rule(data=st.data())
    def close_and_reopen(self, data: st.DataObject) -> None:
        self._close()
        self._recover(data)

    @rule(data=st.data(), power=st.booleans())
    def crash(self, data: st.DataObject, power: bool) -> None:
        self._crash(data, power)
        self._recover(data)

    @rule(data=st.data(), records=BATCHES, after=st.integers(0, 20), power=st.booleans())
    def crash_within(
        self, data: st.DataObject, records: list[Record], after: int, power: bool
    ) -> None:
        """A crash after some of a step's operations on the disk."""
        step = self._draw_step(data)
        self._append(records)
        self.disk.crash_after(after)
        with self._stopped_only_by(lambda: self.disk.crashed):
            step()
        self._crash(data, power)
        self._recover(data)

    @rule(data=st.data(), records=BATCHES, fault=FAULTS, after=st.integers(0, 6))
    def fault_within(
        self, data: st.DataObject, records: list[Record], fault: str, after: int
    ) -> None:
        """One call fails in a step. If that stops the journal, it is reopened in the same boot."""
        step = self._draw_step(data)
        self._append(records)
        with self._fault(data, fault, after), self._stopped_only_by(lambda: self.fault_struck):
            step()
        if not self._is_open:
            discard(self.state)
            self._recover(data)

    @precondition(lambda self: self.rotten is None)
    @rule(data=st.data())
    def a_checkpoint_rots(self, data: st.DataObject) -> None:
        """One, once: that is what the other is kept for."""
        found = {name: text for name, text in files(self.disk).items() if name.endswith(".json")}
        if found:
            self.rotten = data.draw(st.sampled_from(sorted(found)))
            offset = data.draw(st.integers(0, len(found[self.rotten]) - 1))
            byte = found[self.rotten][offset] ^ data.draw(st.sampled_from([1, 32, 128]))
            overwrite(self.disk, self.rotten, offset, bytes([byte]))

    # --- steps ---

    @property
    def records(self) -> list[Record]:
        return [record for batch in self.batches for record in batch]

    @property
    def last_lsn(self) -> int:
        return sum(map(len, self.batches))

    def _draw_step(self, data: st.DataObject) -> Callable[[], None]:
        beside, compacting = data.draw(BESIDE), data.draw(st.booleans())
        steps: dict[str, Callable[[], None]] = {
            "idle": self._idle,
            "compact": lambda: self._compact(beside),
            "backup": lambda: self._backup(beside, compacting),
            "reopen": self._close_and_open,
        }
        return steps[data.draw(st.sampled_from(list(steps)))]

    def _append(self, records: list[Record]) -> None:
        lsn = append(self.state, *records)
        self.batches.append(records)
        assert lsn == self.last_lsn

    def _wait(self, lsn: int) -> None:
        self.state.wait_durable(lsn)
        durable_lsn = self.state.journal.durable_lsn
        assert durable_lsn >= lsn
        self._told(durable_lsn, safe=self.options.durability == "disk")

    def _idle(self) -> None:
        """A commit, a mark, a commit over the mark, a mark."""
        for record in (["a", 1, ""], ["b", 0, "f" * 40]):
            self._append([record])
            self._wait(self.last_lsn)
            mark(self.state)

    def _compact(self, beside: dict[int, list[Record]]) -> None:
        lsn = self.last_lsn
        with self._commits(beside):
            checkpoint = self.state.compact()
        checkpoint.close()
        assert checkpoint.lsn == lsn
        self._told(lsn, safe=True)

    def _backup(self, beside: dict[int, list[Record]], compacting: bool) -> None:
        """P1, P2, P6 hold of a copy too: it has all that was durable when it was begun."""
        durable_lsn = self.state.journal.durable_lsn
        path = f"/backup-{len(self.backups)}"
        self.backups[path] = {}
        with self._commits(beside, compacting):
            report = self.state.journal.backup(path)
        self.backups[path] = files(self.disk, path)
        with open_ledger(self.disk, self.options, path=path) as copy:
            lsn = copy.journal.last_lsn
            assert durable_lsn <= lsn == report.lsn
            assert copy.machine.summary == replayed(self.records[:lsn])

    def _close(self) -> None:
        self.state.close()
        self._told(self.last_lsn, safe=True)

    def _close_and_open(self) -> None:
        self._close()
        self.state = open_ledger(self.disk, self.options)

    @property
    def _is_open(self) -> bool:
        try:
            self.state.journal.check()
        except JournalError:
            return False
        return True

    def _told(self, lsn: int, *, safe: bool) -> None:
        self.alive = max(self.alive, lsn)
        if safe:
            self.safe = max(self.safe, lsn)
        # A segment is born after all that is in front of it is synced.
        self.safe = max([self.safe, *(lsn - 1 for lsn in first_lsns(self.disk))])

    @contextmanager
    def _commits(self, beside: dict[int, list[Record]], compacting: bool = False) -> Iterator[None]:
        """Commit in front of some of the operations that the test's own thread does."""
        thread, before, calls = threading.get_ident(), self.disk.before, count()
        busy = False

        def hook(operation: Any, path: str) -> None:
            nonlocal busy
            if threading.get_ident() == thread and not busy:
                records = beside.get(next(calls))
                if records is not None:
                    busy = True
                    self._append(records)
                    self._wait(self.last_lsn)
                    if compacting:
                        self._compact({})
                    busy = False
            if before is not None:
                before(operation, path)

        self.disk.before = hook
        try:
            yield
        finally:
            self.disk.before = before

    # --- crashes and faults ---

    @contextmanager
    def _stopped_only_by(self, struck: Callable[[], bool]) -> Iterator[None]:
        """A crash or a fault may stop a step, and nothing else may; as an error of the disk."""
        try:
            yield
        except (OSError, JournalError) as error:
            # Never CorruptionError, UnsafePathError or FormatVersionError.
            of_disk = type(error) in (FailedError, JournalError) or not isinstance(
                error, JournalError
            )
            if not of_disk or not struck():
                raise

    @contextmanager
    def _fault(self, data: st.DataObject, fault: str, after: int) -> Iterator[None]:
        # Drawn before: a sync may fail in another thread than this.
        draws = iter(data.draw(st.lists(st.integers(0, 4), max_size=8)) if fault == "sync" else ())
        self.disk.failed_sync = drawn(lambda most: min(next(draws, 1), most), damage=True)
        self.fault_struck = False
        calls = count()

        def hook(operation: Any, path: str) -> None:
            if operation == fault and next(calls) == after:
                self.fault_struck = True
                if fault == "sync" and ".seg" in path:
                    self.in_doubt, self.alive = True, self.safe
                raise OSError(errno.EIO, "a fault", path)

        self.disk.before = hook
        try:
            yield
        finally:
            self.disk.before = None

    def _crash(self, data: st.DataObject, power: bool) -> None:
        if power:
            self._cut_power(data)
        else:
            self.disk.kill()
        discard(self.state)

    def _cut_power(self, data: st.DataObject) -> None:
        decide = drawn(lambda most: data.draw(st.integers(0, most)), damage=True)

        def outcome(change: Change) -> bytes | None:
            if not change.path.startswith(f"{PATH}/"):
                return None
            if change.path == f"{PATH}/LOCK" and change.operation != "create":
                return change.data  # for people
            return decide(change)

        self.disk.power_cut(outcome)
        self.in_doubt, self.alive = False, self.safe
        for path, content in self.backups.items():
            assert not content or files(self.disk, path) == content, "a backup is durable"

    # --- recovery ---

    def _recover(self, data: st.DataObject) -> None:
        """Crash in it a few times, if so drawn; then it has to succeed."""
        attempts = st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=2)
        for after, power in data.draw(attempts):
            self.disk.crash_after(after)
            with self._stopped_only_by(lambda: self.disk.crashed):
                self.state = open_ledger(self.disk, self.options)
            self._crash(data, power)
        shown_lsn = self._read()
        self._open()
        if shown_lsn is not None and not self.in_doubt:
            assert shown_lsn == self.last_lsn, "a reader is shown what recovery keeps"
        if data.draw(st.booleans()):
            lsn = self.last_lsn
            self._crash(data, power=data.draw(st.booleans()))
            self._open()
            assert self.last_lsn == lsn, "recovery is idempotent"

    def _open(self) -> None:
        self.state = recover(self.disk, self.options, self.batches, at_least=self.alive)
        self.safe = self.alive = self.last_lsn  # what was shown stays
        shown_lsn = self._read()
        assert shown_lsn is None or shown_lsn <= self.last_lsn

    def _read(self) -> int | None:
        """The last LSN that a reader is shown, if any. P4: what a crash left is no damage."""
        if not first_lsns(self.disk):
            return None
        with JournalReader.open(PATH, disk=self.disk) as reader:
            entries = list(reader.entries())
            findings = list(reader.verify())
        for lsn, entry in enumerate(entries, entries[0].lsn if entries else 0):
            assert (entry.lsn, entry.record) == (lsn, self.records[lsn - 1]), "P1"
        for finding in findings:
            rotten = finding.path == f"{PATH}/{self.rotten}" and finding.kind == "bad_checkpoint"
            assert rotten or finding.kind in ("torn_tail", "stray"), finding
        return entries[-1].lsn if entries else None


@pytest.mark.slow
def test_any_crash_is_recovered(caplog: pytest.LogCaptureFixture) -> None:
    """P1, P2, P3, P5, P6: whatever happens, and wherever a crash or a fault strikes."""
    caplog.set_level(logging.CRITICAL, "journal")
    examples = 4 * settings().max_examples
    run_state_machine_as_test(
        CrashMachine, settings=settings(max_examples=examples, stateful_step_count=30)
    )
