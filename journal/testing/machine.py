"""A Hypothesis machine that crashes your own state machine. Needs `hypothesis`.

    from hypothesis import strategies as st
    from journal.testing.machine import CrashMachine

    class CrashJobs(CrashMachine[Jobs]):
        machine = Jobs
        records = st.tuples(st.sampled_from(["queued", "done"]), st.sampled_from("ab")).map(list)

    TestJobs = CrashJobs.TestCase

That is all: pytest finds `TestJobs`, and Hypothesis looks for a row of appends, batches, waits,
compactions, kills, power cuts and reopens after which a record is missing that was promised, a
batch is there in part, or the state is not what replaying the records gives. Crashes strike
between calls and in the midst of them, and in recoveries; what is left of each unsynced write and
name is drawn, so that a failure shrinks to the losses that matter.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Generic, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from journal._format.record import Record, bare
from journal._state.durable_state import StateMachine
from journal.errors import FailedError, JournalError
from journal.options import Options
from journal.testing.history import expect
from journal.testing.outcome import drawn
from journal.testing.owner import ManualOptions, Owner, quiet

M = TypeVar("M", bound=StateMachine)
Draw = Callable[[st.SearchStrategy[Any]], Any]

_STEPS = st.sampled_from(["commit", "idle", "compact", "reopen"])
_AFTER = st.integers(0, 20)  # operations of a step, in front of the crash
_IN_RECOVERY = st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=2)


class CrashMachine(RuleBasedStateMachine, Generic[M]):
    """To be derived from: `machine`, and `records` or `draw_record`, say what is crashed.

    `options`: the owner's, but for their durability, which is drawn. `owner` is an `Owner`: rules
    and invariants of your own may use it, and `owner.state`. They append by `owner`, or by
    `owner.state` as your program does.
    """

    machine: type[M]
    records: st.SearchStrategy[Record]
    options: Options = ManualOptions()
    owner: Owner[M]

    def __init__(self) -> None:
        super().__init__()
        self._undo = ExitStack()
        self._undo.enter_context(quiet())

    def new_machine(self) -> M:
        """A new state machine, `machine()` unless it takes more than that to make one."""
        return self.machine()

    def draw_record(self, draw: Draw, machine: M) -> Record | None:
        """A record that may come next where `machine` is the state; None if none may.

        `draw(strategy)` gives a value of a Hypothesis strategy. By default any of `records` may.
        """
        return draw(self.records)

    # --- rules ---

    @initialize(durability=st.sampled_from(["disk", "os"]))
    def begin(self, durability: Any) -> None:
        options = replace(self.options, durability=durability)
        self.owner = Owner(self.new_machine, options=options)

    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        self._append(data)

    @rule(data=st.data(), size=st.integers(2, 3))
    def append_batch(self, data: st.DataObject, size: int) -> None:
        machine, records = self.owner.history.replayed(), list[Record]()
        while len(records) < size:
            record = self.draw_record(data.draw, machine)
            if record is None:
                break
            records.append(record)
            machine.apply(self.owner.last_lsn + len(records), bare(record))
        if records:
            self.owner.append_batch(records)

    @precondition(lambda self: self.owner.state.journal.durable_lsn < self.owner.last_lsn)
    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        durable_lsn = self.owner.state.journal.durable_lsn
        self.owner.wait(data.draw(st.integers(durable_lsn + 1, self.owner.last_lsn)))

    @rule()
    def idle(self) -> None:
        self.owner.idle()

    @rule()
    def compact(self) -> None:
        self.owner.compact()

    @rule(data=st.data())
    def close_and_reopen(self, data: st.DataObject) -> None:
        self.owner.close()
        self._recover(data)

    @rule(data=st.data(), power=st.booleans())
    def crash(self, data: st.DataObject, power: bool) -> None:
        self._crash(data, power)
        self._recover(data)

    @rule(data=st.data(), step=_STEPS, after=_AFTER, power=st.booleans())
    def crash_within(self, data: st.DataObject, step: str, after: int, power: bool) -> None:
        """A crash after some of a step's operations on the disk."""
        self._append(data)
        steps: dict[str, Callable[[], None]] = {
            "commit": self.owner.wait,
            "idle": self._commit_and_idle,
            "compact": self.owner.compact,
            "reopen": self.owner.reopen,
        }
        self._until_crash(after, steps[step])
        self._crash(data, power)
        self._recover(data)

    def teardown(self) -> None:
        """Hypothesis calls it at the end; one of your own calls this one too."""
        with self._undo:
            if hasattr(self, "owner"):
                self.owner.end()

    # --- inside ---

    def _append(self, data: st.DataObject) -> None:
        record = self.draw_record(data.draw, self.owner.state.machine)
        if record is not None:
            self.owner.append(record)

    def _commit_and_idle(self) -> None:
        self.owner.wait()
        self.owner.idle()

    def _until_crash(self, after: int, step: Callable[[], None]) -> None:
        self.owner.disk.crash_after(after)
        try:
            step()
        except (OSError, FailedError) as error:
            # Never a lock or a path that is refused, which are OSErrors too.
            of_disk = isinstance(error, FailedError) or not isinstance(error, JournalError)
            if not (of_disk and self.owner.disk.crashed):
                raise

    def _crash(self, data: st.DataObject, power: bool) -> None:
        if power:
            self.owner.power_cut(drawn(lambda most: data.draw(st.integers(0, most)), damage=True))
        else:
            self.owner.kill()

    def _recover(self, data: st.DataObject) -> None:
        """Crash in it a few times, if so drawn; then it has to succeed."""
        for after, power in data.draw(_IN_RECOVERY):
            self._until_crash(after, self.owner.reopen)
            self._crash(data, power)
        shown_lsn = self.owner.read()
        self.owner.reopen()
        same = shown_lsn in (None, self.owner.last_lsn)
        expect(same, "P1", f"a reader was shown LSN {shown_lsn}, not {self.owner.last_lsn}")
