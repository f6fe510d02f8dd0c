"""The Hypothesis machine for users: it passes a correct state machine and catches wrong ones."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from io import StringIO
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from journal import DurableState, FailedError
from journal._format.record import Record
from journal.testing import BrokenPromiseError, Owner, SimulatedDirectory, SimulatedFile
from journal.testing.machine import CrashMachine, Draw
from tests.support import Table
from tests.tiers import examples

# Hypothesis itself is tested elsewhere, so failures are not shrunk.
NO_SHRINKING = settings(
    max_examples=500, phases=[Phase.generate], report_multiple_bugs=False, database=None
)


class CrashTable(CrashMachine[Table]):
    machine = Table
    records = st.tuples(st.sampled_from("ab"), st.none() | st.integers(0, 2)).map(list)


TestTable = CrashTable.TestCase
TestTable.settings = settings(stateful_step_count=20)


class Turns(Table):
    """A table in which each key's value must grow by one, so that not every record may come
    next."""

    application = "turns/1"

    def next_of(self, key: str) -> list[Any]:
        return [key, self.rows.get(key, [key, 0])[1] + 1]

    def apply(self, lsn: int, record: Any) -> None:
        assert record == self.next_of(record[0]), "this record may not come next"
        super().apply(lsn, record)


class CrashTurns(CrashMachine[Turns]):
    """A crash machine that draws records for the current state, with rules that use the owner."""

    def new_machine(self) -> Turns:
        return Turns()

    def draw_record(self, draw: Draw, machine: Turns) -> Record | None:
        key = draw(st.sampled_from("ab"))
        record = machine.next_of(key)
        return None if record[1] > 9 else record

    @rule(key=st.sampled_from("ab"))
    def take_a_turn(self, key: str) -> None:
        lsn = self.owner.state.update(lambda turns: turns.next_of(key))
        assert lsn == self.owner.last_lsn

    @rule()
    def read_from_outside(self) -> None:
        assert (self.owner.read() or 0) <= self.owner.last_lsn


TestTurns = CrashTurns.TestCase
TestTurns.settings = settings(stateful_step_count=20, max_examples=examples(30))


class Consuming(Table):
    """A table whose `apply` takes its record apart, which was decoded for it alone."""

    def apply(self, lsn: int, record: Any) -> None:
        super().apply(lsn, [record.pop(0), record.pop()])


def test_apply_may_change_its_own_record() -> None:
    """The crash machine gives `apply` a decoded record for each call, as the engine does."""
    few = settings(max_examples=10, deadline=None)
    run_state_machine_as_test(machine_of(Consuming), settings=few)


# --- wrong state machines and engines ---


class HalfLoaded(Table):
    def load(self, item: Any) -> None:
        if item[0] == "a":
            super().load(item)


class Counting(Table):
    """A table whose state depends on how many records it applied itself."""

    def freeze(self) -> Any:
        return [*super().freeze(), ["applied", len(self.applied)]]


def machine_of(table: type[Table]) -> type[RuleBasedStateMachine]:
    class CrashIt(CrashTable):
        machine = table

    return CrashIt


@pytest.mark.parametrize("table", [HalfLoaded, Counting])
def test_a_state_machine_that_loads_another_state_is_caught(table: type[Table]) -> None:
    """P6: A checkpoint and the records after it give the same state as all records."""
    with pytest.raises(BrokenPromiseError, match="P6"):
        run_state_machine_as_test(machine_of(table), settings=NO_SHRINKING)


def files_not_synced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SimulatedFile, "sync", lambda file: None)


def names_not_synced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SimulatedDirectory, "sync", lambda directory: None)


def recovery_not_synced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("journal._recovery.recovery.sync_before_trust", lambda directory, segments: None)


def failed_syncs_ignored(patch: pytest.MonkeyPatch) -> None:
    """Ignore a failed sync, unless the disk has crashed."""
    sync = SimulatedFile.sync

    def sync_anyhow(file: SimulatedFile) -> None:
        with suppress(OSError):
            sync(file)
        if file._disk.crashed:
            raise OSError(errno.EIO, "crashed")

    patch.setattr(SimulatedFile, "sync", sync_anyhow)


def older_checkpoint_ignored(patch: pytest.MonkeyPatch) -> None:
    """Give up at a damaged checkpoint, although there is an older one."""
    patch.setattr("journal._recovery.checkpoints.BadCheckpointError", KeyError)


def snapshot_taken_late(patch: pytest.MonkeyPatch) -> None:
    """Take a checkpoint's snapshot when its first item is read, after later records."""
    freeze = DurableState._freeze

    def freeze_late(state: DurableState[Any]) -> tuple[int, Any]:
        return freeze(state)[0], (item for _ in "1" for item in state.machine.freeze())

    patch.setattr(DurableState, "_freeze", freeze_late)


@pytest.mark.parametrize(
    ("crash_it", "weaken"),
    [
        (CrashTable, files_not_synced),
        (CrashTable, names_not_synced),
        (CrashTable, recovery_not_synced),
        (CrashTable, failed_syncs_ignored),
        (CrashTable, older_checkpoint_ignored),
        pytest.param(CrashTurns, snapshot_taken_late, marks=pytest.mark.slow),
    ],
)
def test_a_weakened_engine_is_caught(
    crash_it: type[RuleBasedStateMachine],
    weaken: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P1 to P6: Crashes in and between calls, disk faults and bad checkpoints catch a weak engine.

    Commits during a compaction do so, too.
    """
    weaken(monkeypatch)
    with pytest.raises(BrokenPromiseError, match=r"P[12456]"):
        run_state_machine_as_test(crash_it, settings=NO_SHRINKING)


# --- the owner that the machine uses ---


def test_a_disk_fault_at_open_breaks_no_promise() -> None:
    """P5: An open that a disk fault stops raises FailedError, and the next one may succeed."""
    with Owner(Table) as owner:
        owner.append(["a", 1])
        owner.close()
        assert not owner.is_open
        owner.disk.fail("open", errno.EIO)
        with pytest.raises(FailedError, match="simulated EIO"):
            owner.reopen()
        owner.reopen()
        assert owner.is_open


def test_a_failed_journal_is_abandoned_and_reopened() -> None:
    """P2: After a failure, unacknowledged records may be lost, and acknowledged ones are there."""
    with Owner(Table) as owner:
        owner.append(["a", 1])
        owner.wait()
        owner.append(["a", 2])
        owner.disk.fail("sync", errno.EIO)
        with pytest.raises(FailedError):
            owner.wait()
        assert not owner.is_open
        owner.give_up()
        owner.reopen()
        assert (owner.last_lsn, owner.disk.faults) == (1, 1)


def test_a_damaged_checkpoint_breaks_no_promise() -> None:
    """P4, P5: A reader continues after a damaged checkpoint, and an open works without it."""
    with Owner(Table) as owner:
        owner.append(["a", 1])
        owner.compact()
        owner.rot("checkpoint-00000000000000000001.json", 40)
        owner.kill()
        assert owner.read() == 1
        owner.reopen()
        assert owner.last_lsn == 1


@pytest.mark.parametrize("call", [Owner.wait, Owner.compact])
def test_a_call_that_returns_is_a_promise(
    call: Callable[[Owner[Table]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: A wait or a compaction that returns is a promise, whatever `durable_lsn` says."""
    with Owner(Table) as owner:
        owner.append(["a", 1])
        with monkeypatch.context() as patch:
            patch.setattr(DurableState, "wait_durable", lambda *_: None)
            patch.setattr(DurableState, "compact", lambda _: StringIO())
            call(owner)
        owner.power_cut()
        with pytest.raises(BrokenPromiseError, match="P2"):
            owner.reopen()
