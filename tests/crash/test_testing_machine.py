"""The Hypothesis machine for users: it passes a good state machine, and finds what is wrong with a
bad one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from journal._format.record import Record
from journal.testing import BrokenPromiseError, SimulatedDirectory, SimulatedFile
from journal.testing.machine import CrashMachine, Draw
from tests.support import Table

# No shrinking: that is Hypothesis's own affair.
FOUND = settings(
    max_examples=500, phases=[Phase.generate], report_multiple_bugs=False, database=None
)


class CrashTable(CrashMachine[Table]):
    machine = Table
    records = st.tuples(st.sampled_from("ab"), st.none() | st.integers(0, 2)).map(list)


TestTable = CrashTable.TestCase
TestTable.settings = settings(stateful_step_count=20)


class Turns(Table):
    """Of each key the value must grow by one: not every record may come next."""

    application = "turns/1"

    def next_of(self, key: str) -> list[Any]:
        return [key, self.rows.get(key, [key, 0])[1] + 1]

    def apply(self, lsn: int, record: Any) -> None:
        assert record == self.next_of(record[0]), "this record may not come next"
        super().apply(lsn, record)


class CrashTurns(CrashMachine[Turns]):
    """Records are drawn for the state that they meet; and rules of one's own use the owner."""

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
    def a_quick_look(self) -> None:
        assert (self.owner.read() or 0) <= self.owner.last_lsn


TestTurns = CrashTurns.TestCase
TestTurns.settings = settings(stateful_step_count=20, max_examples=30)


# --- what it finds ---


class HalfLoaded(Table):
    def load(self, item: Any) -> None:
        if item[0] == "a":
            super().load(item)


class Counting(Table):
    """Its state hangs on more than its records: on how many of them it saw itself."""

    def freeze(self) -> Any:
        return [*super().freeze(), ["applied", len(self.applied)]]


def machine_of(table: type[Table]) -> type[RuleBasedStateMachine]:
    class CrashIt(CrashTable):
        machine = table

    return CrashIt


@pytest.mark.parametrize("table", [HalfLoaded, Counting])
def test_a_state_machine_that_loads_something_else_is_found_out(table: type[Table]) -> None:
    """P6: a checkpoint and the records after it make the state that all records make."""
    with pytest.raises(BrokenPromiseError, match="P6"):
        run_state_machine_as_test(machine_of(table), settings=FOUND)


def unsynced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SimulatedFile, "sync", lambda file: None)


def nameless(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SimulatedDirectory, "sync", lambda directory: None)


def untrusted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("journal._recovery.recovery.sync_before_trust", lambda directory, segments: None)


@pytest.mark.parametrize("weaken", [unsynced, nameless, untrusted])
def test_a_disk_that_keeps_less_is_found_out(
    weaken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1, P2, P5: a crash between two calls or in the midst of one shows what was not synced."""
    weaken(monkeypatch)
    with pytest.raises(BrokenPromiseError, match=r"P[1245]"):
        run_state_machine_as_test(CrashTable, settings=FOUND)
