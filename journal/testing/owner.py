"""Who keeps a state machine in a journal on a disk that crashes, and knows what is promised."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import ClassVar, Generic, Self, TypeVar

from journal._disk.disk import LOCK
from journal._format.record import Record, bare
from journal._log import settle
from journal._names import is_journal
from journal._offline.reader import JournalReader
from journal._state.durable_state import DurableState, StateMachine
from journal.errors import FailedError, JournalError
from journal.options import Options
from journal.testing.disk import SimulatedDisk
from journal.testing.history import BrokenPromiseError, HeldItems, History, expect
from journal.testing.outcome import Change, Outcome, lose

M = TypeVar("M", bound=StateMachine)
T = TypeVar("T")
_NEVER_S = 3600.0
_SETTLE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ManualOptions(Options):
    """Options with which nothing happens by time or by size, however slow the machine.

    Records are committed only when a caller waits for them, and compacted only when a caller asks
    for it. So the same calls give the same operations on the disk.
    """

    flush_interval_s: float = _NEVER_S
    """An hour, in seconds: no commit is started by time."""

    flush_bytes: int = 1 << 40
    """A size in bytes that no test reaches: no commit is started by size."""

    segment_bytes: int = 4096
    """The size of a segment in bytes. It may be so small that one record fills a segment."""

    checkpoint_min_bytes: int = 1 << 40
    """A size in bytes that no test reaches: no compaction is due by size."""

    _ranges: ClassVar[dict[str, tuple[float, float]]] = {
        **Options._ranges,
        "segment_bytes": (1, 1 << 40),
    }

    @property
    def idle_s(self) -> float:
        """Never: `Owner.idle` says when the log is idle."""
        return _NEVER_S


class NotingState(DurableState[M]):
    """A DurableState that notes in `history` what is appended to it, as it is appended.

    Each update also reads, after its records have been applied, the items that `freeze` gave
    before, as a compaction in another thread does. Raises BrokenPromiseError (P6) if they changed.
    """

    history: History[M]

    def update(self, decide: Callable[[M], Record | None], *, urgent: bool = False) -> int | None:
        def records(change: Record | None) -> list[Record]:
            return [] if change is None else [bare(change)]

        return self._noted(super().update, decide, records, urgent)

    def update_batch(
        self, decide: Callable[[M], list[Record]], *, urgent: bool = False
    ) -> int | None:
        def some(machine: M) -> list[Record]:
            return list(decide(machine) or ())

        def records(change: list[Record]) -> list[Record]:
            return list(map(bare, change))

        return self._noted(super().update_batch, some, records, urgent)

    def _noted(
        self,
        update: Callable[..., int | None],
        decide: Callable[[M], T],
        records_of: Callable[[T], list[Record]],
        urgent: bool,
    ) -> int | None:
        held: HeldItems | None = None

        def noting(machine: M) -> T:
            nonlocal held
            held = HeldItems(machine, self.journal.last_lsn)
            change = decide(machine)
            if records := records_of(change):
                self.history.add(records)
            return change

        try:
            lsn = update(noting, urgent=urgent)
        except BaseException:
            self.history.cut(self.journal.last_lsn)
            raise
        if lsn is not None and held is not None:
            held.check(lsn)
        return lsn


class Owner(Generic[M]):
    """A state machine and its journal on a simulated disk, open from the start.

    `state` is an ordinary DurableState. Whatever is done with it, and by whatever program, is noted
    in `history`. Each open is checked (P1, P2, P3, P5, P6): the recovered records are a prefix of
    that history, with whole batches and no fewer records than were promised, and they make the
    state that a replay makes. Each update is checked, too (P6): the items that `freeze` gave before
    it stay as they were.

        with Owner(Jobs) as owner:
            owner.append(["queued", "a"])
            owner.wait()
            owner.append(["done", "a"])
            owner.power_cut()  # what was not waited for is lost
            owner.reopen()
            assert owner.state.machine.table["a"]["state"] == "queued"

    One thread at a time may use it. Leaving the `with` ends its threads.
    """

    disk: SimulatedDisk
    """The disk that holds the journal."""

    options: Options
    """The options with which the journal is opened."""

    path: str
    """The directory of the journal on that disk."""

    history: History[M]
    """The records that were appended and not lost."""

    safe_lsn: int
    """The LSN up to which no power cut can lose a record."""

    alive_lsn: int
    """The LSN up to which no kill can lose a record."""

    def __init__(
        self,
        machine: Callable[[], M],
        *,
        options: Options = ManualOptions(),
        disk: SimulatedDisk | None = None,
        path: str = "/journal",
        history: History[M] | None = None,
    ) -> None:
        """`history`: what was appended to the journal at `path`, if there is one. `disk` None: a
        new one. Raises BrokenPromiseError."""
        self.disk = disk or SimulatedDisk()
        self.options = options
        self.path = path
        self.history = history or History(machine)
        self.safe_lsn = self.alive_lsn = 0
        self._state: NotingState[M] | None = None
        self._rotten = set[str]()
        self.reopen()

    @property
    def state(self) -> DurableState[M]:
        """The DurableState that is open now; after a crash, not before `reopen`."""
        assert self._state is not None, "reopen() first"
        return self._state

    @property
    def is_open(self) -> bool:
        """Return False after a crash or a close, and once the journal has failed."""
        try:
            if self._state is not None:
                self._state.journal.check()
        except JournalError:
            return False
        return self._state is not None

    @property
    def last_lsn(self) -> int:
        """Of what was appended."""
        return self.history.last_lsn

    def append(self, record: Record) -> int:
        """Append a record; its LSN."""
        lsn = self.state.update(lambda _: record)
        assert lsn is not None
        return lsn

    def append_batch(self, records: list[Record]) -> int:
        """Append all of them, of which a crash leaves all or none; the last LSN."""
        lsn = self.state.update_batch(lambda _: records)
        assert lsn is not None
        return lsn

    def wait(self, lsn: int | None = None) -> None:
        """Until `lsn` (None: all) is durable."""
        lsn = self.last_lsn if lsn is None else lsn
        self.state.wait_durable(lsn)
        self.promised()
        self._promise(lsn, safe=self._syncs_each)

    def idle(self) -> None:
        """The log falls idle: the engine writes a mark behind it. Nothing may be under way."""
        self.state.journal._core.committer.mark()

    def compact(self) -> None:
        """Publish a checkpoint now, which makes all that was appended durable."""
        lsn = self.last_lsn
        self.state.compact().close()
        self.promised()
        self._promise(lsn, safe=True)

    def close(self) -> None:
        """Close the state: all that was appended is promised from now on."""
        self.state.close()
        self._promise(self.last_lsn, safe=True)

    def give_up(self) -> None:
        """Close a journal that has failed: nothing more is promised. Then `reopen`."""
        state, self._state = self._state, None
        if state is not None:
            with suppress(FailedError):
                state.close()

    def kill(self) -> None:
        """The process dies; what it wrote is in the page cache."""
        self.promised()
        with quiet():
            self.disk.kill()
            self.give_up()

    def power_cut(self, outcome: Outcome = lose) -> None:
        """The machine dies; `outcome` says what became of what was not synced."""
        self.promised()
        with quiet():
            self.disk.power_cut(for_engine(outcome))
            self.alive_lsn = self.safe_lsn
            self.give_up()

    def reopen(self) -> None:
        """Close what is open, and recover. What that shows, stays. Raises BrokenPromiseError."""
        if self._state is not None and not self._state.journal.closed:
            self.close()
        self._state = None
        self._state = state = open_checked(self.history, self.path, self.options, self.disk)
        lsn = state.journal.last_lsn
        expect(lsn >= self.alive_lsn, "P2", f"{self.alive_lsn} was durable, recovery ends at {lsn}")
        self.history.cut(lsn)
        self.safe_lsn = self.alive_lsn = lsn

    def rot(self, name: str, offset: int, mask: int = 1) -> None:
        """Damage the checkpoint `name`: invert the bits of `mask` in its byte at `offset`."""
        file = self.disk.open_directory(self.path, write=True).open(name, "update")
        [byte] = file.read(1, offset)
        file.write(bytes([byte ^ mask]), offset)
        file.sync()
        self._rotten.add(f"{self.path}/{name}")

    def read(self) -> int | None:
        """The last LSN that a reader is shown now, if any. P1, P4: BrokenPromiseError."""
        return read_checked(self.history, self.path, self.disk, rotten=self._rotten)

    def promised(self) -> tuple[int, int]:
        """`safe_lsn` and `alive_lsn`, as of now."""
        if self._state is not None:
            journal = self._state.journal
            self._promise(journal.durable_lsn, safe=self._syncs_each)
            if not self._syncs_each:
                self._promise(journal._core.committer.synced_lsn, safe=True)
        return self.safe_lsn, self.alive_lsn

    def end(self) -> None:
        """End the threads of a process that needs them no more. Nothing is written."""
        with quiet():
            self.disk.kill()
            self.give_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def _syncs_each(self) -> bool:
        return self.options.durability == "disk"

    def _promise(self, lsn: int, *, safe: bool) -> None:
        self.alive_lsn = max(self.alive_lsn, lsn)
        if safe:
            self.safe_lsn = max(self.safe_lsn, lsn)


def open_checked(
    history: History[M], path: str, options: Options, disk: SimulatedDisk
) -> NotingState[M]:
    """Open a journal to which `history` was appended. P1, P3, P5, P6: BrokenPromiseError.

    If the disk crashes or fails meanwhile, raise what the engine raises.
    """
    machine, faults = history.machine(), disk.faults
    try:
        state = NotingState.open(path, machine, options=options, disk=disk)
    except Exception as error:
        if disk.crashed or disk.faults > faults:
            raise
        raise BrokenPromiseError(f"P5: it does not open: {error!r}") from error
    state.history = history
    try:
        journal, lsn = state.journal, state.journal.last_lsn
        after = journal.checkpoint.lsn if journal.checkpoint else 0
        tail = [(entry.lsn, entry.record) for entry in journal.replay()]
        history.check(lsn, machine, after, tail)
        expect(journal.durable_lsn == lsn, "P2", f"only {journal.durable_lsn} of {lsn} is durable")
    except BaseException:
        with suppress(FailedError):
            state.close()
        raise
    return state


def read_checked(
    history: History[M], path: str, disk: SimulatedDisk, *, rotten: Collection[str] = ()
) -> int | None:
    """The last LSN that a reader is shown, if any. P1, and P4: what a crash left is no damage.

    `rotten` are the paths of damaged checkpoints. Raises BrokenPromiseError.
    """
    if not is_journal(list(disk.contents(path))):
        return None
    lsn = None
    try:
        with JournalReader.open(path, disk=disk) as reader:
            for finding in reader.verify():
                known = finding.kind == "bad_checkpoint" and finding.path in rotten
                harmless = known or finding.kind in ("torn_tail", "stray")
                expect(harmless, "P4", f"a crash is called damage: {finding}")
            for entry in reader.entries():
                lsn = entry.lsn
                same = history.holds(lsn, entry.record)
                expect(same, "P1", f"a reader is shown {entry}, which was not appended")
    except (JournalError, OSError) as error:
        raise BrokenPromiseError(f"P4: a reader is refused: {error!r}") from error
    return lsn


def for_engine(outcome: Outcome) -> Outcome:
    """`outcome`, but what stands in LOCK is kept: it is for people, and only its name counts."""

    def decide(change: Change) -> bytes | None:
        if change.path.endswith(f"/{LOCK}") and change.operation != "create":
            return change.data
        return outcome(change)

    return decide


@contextmanager
def quiet() -> Iterator[None]:
    """Log nothing: there are thousands of torn tails and stops. Wait for messages that were posted,
    since the level at which they are reported decides.
    """
    log = logging.getLogger("journal")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        settle(_SETTLE_S)
        log.setLevel(level)
