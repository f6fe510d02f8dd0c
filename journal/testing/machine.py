"""A Hypothesis machine that crashes your own state machine. It needs the package `hypothesis`.

    from hypothesis import strategies as st
    from journal.testing.machine import CrashMachine

    class CrashJobs(CrashMachine[Jobs]):
        machine = Jobs
        records = st.tuples(st.sampled_from(["queued", "done"]), st.sampled_from("ab")).map(list)

    TestJobs = CrashJobs.TestCase

No other code is needed: pytest finds `TestJobs`. Hypothesis searches for a sequence of appends,
batches, waits, compactions, kills, power cuts and reopenings after which a promised record is
missing, a batch is incomplete, or the state differs from a replay of the records. Crashes strike
between calls, during calls, and during recoveries. Disk operations fail with an I/O error during a
step. Records are committed while a checkpoint is written, and one checkpoint is damaged. The fate
of each unsynced write and name is drawn, so that a failure shrinks to the losses that matter.
"""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from typing import Any, Generic, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from journal._format.checkpoint import checkpoint_lsns
from journal._format.record import Record, bare, pack
from journal._state.state_machine import StateMachine
from journal.errors import FailedError, JournalError
from journal.options import Options
from journal.testing.disk import Operation
from journal.testing.history import expect
from journal.testing.outcome import drawn
from journal.testing.owner import ManualOptions, Owner, quiet

__all__ = ["CrashMachine", "Draw", "Step"]

M = TypeVar("M", bound=StateMachine)
Draw = Callable[[st.SearchStrategy[Any]], Any]
"""A function that draws a value from a strategy."""

Step = Callable[[], object]
"""A call that a crash or a fault may interrupt."""

_AFTER = st.integers(0, 20)  # the number of operations of a step before the crash
_IN_RECOVERY = st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=2)
BESIDE = st.sets(st.integers(0, 12), max_size=2)  # the numbers of operations to commit before
_FAULTS: tuple[Operation, ...] = (  # a failed sync can lose the most, so it is the most frequent
    "sync", "sync", "sync", "sync_directory", "write", "create", "rename", "remove", "allocate",
    "truncate", "open", "names", "read",
)  # fmt: skip


class CrashMachine(RuleBasedStateMachine, Generic[M]):
    """A Hypothesis machine that crashes a state machine of your own. Derive from it.

    Set `machine`, and either set `records` or override `draw_record`. Your own rules and invariants
    may append through `owner`, or through `owner.state` as your program does. Crashes and faults
    strike within the `steps`, to which you can add. A broken promise raises BrokenPromiseError.
    """

    machine: type[M]
    """The class of the state machine."""

    records: st.SearchStrategy[Record]
    """The strategy that draws the records to append."""

    options: Options = ManualOptions()
    """The options of the owner. Their durability is ignored: it is drawn for each run."""

    owner: Owner[M]
    """The owner of the state machine and its journal."""

    def __init__(self) -> None:
        super().__init__()
        self._undo = ExitStack()
        self._undo.enter_context(quiet())
        self._has_rotted = False
        # True after a failed sync of a segment: its pages are marked clean, and may not be on disk.
        self._in_doubt = False

    def new_machine(self) -> M:
        """Return a new state machine. Override it if the constructor of `machine` has arguments."""
        return self.machine()

    def draw_record(self, draw: Draw, machine: M) -> Record | None:
        """Return a record that may be appended when `machine` is the state, or None if none may.

        `draw(strategy)` returns a value of a Hypothesis strategy. The default draws from `records`.
        """
        return draw(self.records)

    def steps(self, data: st.DataObject) -> dict[str, Step]:
        """Return the steps in which a crash or a fault may strike, by name.

        An override adds its steps to these. A fault or crash raises OSError or FailedError in a
        step. Let these errors propagate.
        """
        return {
            "commit": self.owner.wait,
            "idle": lambda: self._idle(data),
            "compact": lambda: self._compact(data, data.draw(BESIDE)),
            "reopen": self.owner.reopen,
        }

    # --- rules ---

    @initialize(durability=st.sampled_from(["disk", "os"]))
    def begin(self, durability: Any) -> None:
        options = replace(self.options, durability=durability)
        self.owner = Owner(self.new_machine, options=options)

    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        self._append(data)

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        self._append(data)
        durable_lsn, last_lsn = self.owner.state.journal.durable_lsn, self.owner.last_lsn
        if durable_lsn < last_lsn:
            self.owner.wait(data.draw(st.integers(durable_lsn + 1, last_lsn)))

    @rule(data=st.data())
    def idle(self, data: st.DataObject) -> None:
        self._idle(data)

    @rule(data=st.data(), beside=BESIDE)
    def compact(self, data: st.DataObject, beside: set[int]) -> None:
        self._compact(data, beside)

    @rule(data=st.data())
    def close_and_reopen(self, data: st.DataObject) -> None:
        self.owner.close()
        self._recover(data)

    @rule(data=st.data(), power=st.booleans())
    def crash(self, data: st.DataObject, power: bool) -> None:
        self._crash(data, power)
        self._recover(data)

    @rule(data=st.data(), after=_AFTER, power=st.booleans())
    def crash_within(self, data: st.DataObject, after: int, power: bool) -> None:
        """Crash after some of the disk operations of a step."""
        step = self._draw_step(data)
        self._append(data)
        self._until_crash(after, step)
        self._crash(data, power)
        self._recover(data)

    @rule(data=st.data(), fault=st.sampled_from(_FAULTS), after=st.integers(0, 3))
    def fault_within(self, data: st.DataObject, fault: str, after: int) -> None:
        """Let one disk operation of a step fail. If the journal stops, close and reopen it."""
        step = self._draw_step(data)
        self._append(data)
        disk, faults = self.owner.disk, self.owner.disk.faults
        with self._fault(data, fault, after), self._stops_if(lambda: disk.faults > faults):
            step()
        if not self.owner.is_open:
            self.owner.give_up()
            self._recover(data)

    @precondition(lambda self: not self._has_rotted)
    @rule(data=st.data())
    def a_checkpoint_rots(self, data: st.DataObject) -> None:
        """Damage one checkpoint, once. The journal keeps two so that it survives that."""
        contents = self.owner.disk.contents(self.owner.path)
        names = sorted(name for name in contents if checkpoint_lsns([name]))
        if names:
            name = data.draw(st.sampled_from(names))
            offset = data.draw(st.integers(0, len(contents[name]) - 1))
            self.owner.rot(name, offset, data.draw(st.sampled_from([1, 32, 128])))
            self._has_rotted = True

    def teardown(self) -> None:
        """End the owner, and check its live state unless the run has failed.

        Hypothesis calls this at the end of a run; an override calls `super()`.
        """
        with self._undo:
            if hasattr(self, "owner"):
                self.owner.__exit__(*sys.exc_info())

    # --- steps ---

    def _draw_step(self, data: st.DataObject) -> Step:
        steps = self.steps(data)
        return steps[data.draw(st.sampled_from(list(steps)))]

    def _append(self, data: st.DataObject) -> None:
        """Append a record, or a batch of up to three, as far as `draw_record` allows."""
        size = data.draw(st.integers(1, 3))
        if size == 1:
            record = self.draw_record(data.draw, self.owner.state.machine)
            if record is not None:
                self.owner.append(record)
            return
        machine, records = self.owner.history.replayed(), list[Record]()
        while len(records) < size:
            record = self.draw_record(data.draw, machine)
            if record is None:
                break
            records.append(record)
            # As in an update, `apply` may change its record, which is decoded from the packed one.
            machine.apply(self.owner.last_lsn + len(records), bare(pack(record)))
        if records:
            self.owner.append_batch(records)

    def _idle(self, data: st.DataObject) -> None:
        """Commit, go idle, commit over the mark that this leaves, and go idle again."""
        for _ in range(2):
            self._append(data)
            self.owner.wait()
            self.owner.idle()

    def _compact(self, data: st.DataObject, beside: Collection[int]) -> None:
        with self._commits(data, beside):
            self.owner.compact()

    @contextmanager
    def _commits(
        self, data: st.DataObject, beside: Collection[int], then: Step = lambda: None
    ) -> Iterator[None]:
        """Commit, and call `then`, before each disk operation of this thread listed in `beside`."""
        disk, thread, calls = self.owner.disk, threading.get_ident(), count()
        before, is_busy = disk.before, False

        def commit(operation: Operation, path: str) -> None:
            nonlocal is_busy
            if threading.get_ident() == thread and not is_busy and next(calls) in beside:
                is_busy = True
                self._append(data)
                self.owner.wait()
                then()
                is_busy = False
            if before is not None:
                before(operation, path)

        disk.before = commit
        try:
            yield
        finally:
            disk.before = before

    # --- crashes and faults ---

    @contextmanager
    def _stops_if(self, may_stop: Callable[[], bool]) -> Iterator[None]:
        """Suppress the errors of the disk and of a failed journal, if `may_stop()` is true."""
        try:
            yield
        except (OSError, JournalError) as error:
            # LockedError and UnsafePathError are OSErrors too, but no disk raises them.
            is_of_disk = type(error) in (FailedError, JournalError)
            is_of_disk = is_of_disk or not isinstance(error, JournalError)
            if not (is_of_disk and may_stop()):
                raise

    def _until_crash(self, after: int, step: Step) -> None:
        self.owner.disk.crash_after(after)
        with self._stops_if(lambda: self.owner.disk.crashed):
            step()

    @contextmanager
    def _fault(self, data: st.DataObject, fault: str, after: int) -> Iterator[None]:
        """Let one operation called `fault` raise EIO, after `after` of them have succeeded."""
        # Draw in advance, because the operation may fail in another thread.
        draws = iter(data.draw(st.lists(st.integers(0, 4), max_size=8)) if fault == "sync" else ())
        disk, calls = self.owner.disk, count()
        disk.failed_sync = drawn(lambda most: min(next(draws, 1), most), damage=True)

        def fail(operation: Operation, path: str) -> None:
            if operation == fault and next(calls) == after:
                if fault == "sync" and path.startswith(f"{self.owner.path}/") and ".seg" in path:
                    self._in_doubt, self.owner.alive_lsn = True, self.owner.safe_lsn
                raise OSError(errno.EIO, "a fault", path)

        disk.before = fail
        try:
            yield
        finally:
            disk.before = None

    def _crash(self, data: st.DataObject, power: bool) -> None:
        if power:
            self.owner.power_cut(drawn(lambda most: data.draw(st.integers(0, most)), damage=True))
            self._in_doubt = False
        else:
            self.owner.kill()

    def _recover(self, data: st.DataObject) -> None:
        """Crash in up to two recoveries, then check that reading and recovery succeed."""
        for after, power in data.draw(_IN_RECOVERY):
            self._until_crash(after, self.owner.reopen)
            self._crash(data, power)
        shown_lsn = self.owner.read()
        self.owner.reopen()
        same = self._in_doubt or shown_lsn in (None, self.owner.last_lsn)
        recovered_lsn = self.owner.last_lsn
        expect(same, "P1", f"a reader ends at LSN {shown_lsn}, recovery at LSN {recovered_lsn}")
