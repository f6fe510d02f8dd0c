"""The owner of a state machine and its journal on a simulated disk, which checks the promises."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import ClassVar, Generic, Self, TypeVar, cast

from journal._disk.disk import LOCK
from journal._format.record import Record, bare
from journal._log import settle
from journal._names import is_journal
from journal._offline.reader import JournalReader
from journal._state.durable_state import DurableState
from journal._state.state_machine import StateMachine
from journal._waits import refuse
from journal.errors import FailedError, JournalError
from journal.options import Options, check_options
from journal.testing.arguments import check_kind, check_outcome, journal_path
from journal.testing.disk import SimulatedDisk
from journal.testing.history import BrokenPromiseError, HeldItems, History, expect
from journal.testing.outcome import Change, Outcome, lose

M = TypeVar("M", bound=StateMachine)
T = TypeVar("T")
_NEVER_S = 3600.0
_SETTLE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ManualOptions(Options):
    """Options with which the engine starts nothing by time or by size, even on a slow machine.

    It commits only when a caller waits, and compacts only when a caller asks for it. So the same
    calls give the same operations on the disk.
    """

    flush_interval_s: float = _NEVER_S
    """An hour, in seconds, so that no commit is started by time."""

    flush_bytes: int = 1 << 40
    """A size in bytes that no test reaches, so that no commit is started by size."""

    segment_bytes: int = 4096
    """The size of a segment in bytes. It may be so small that one record fills a segment."""

    checkpoint_min_bytes: int = 1 << 40
    """A size in bytes that no test reaches, so that no compaction is due by size."""

    _ranges: ClassVar[dict[str, tuple[float, float]]] = {
        **Options._ranges,
        "segment_bytes": (1, 1 << 40),
    }

    @property
    def idle_s(self) -> float:
        """An hour, in seconds. `Owner.idle` declares the log idle instead."""
        return _NEVER_S


class NotingState(DurableState[M]):
    """A DurableState that adds each record to `history` just before it is appended.

    Each update also takes the items of `freeze` before it, and reads them after its records have
    been applied, as a compaction in another thread does. If they have changed, it raises
    BrokenPromiseError (P6).
    """

    history: History[M]

    def update(self, decide: Callable[[M], Record | None], *, urgent: bool = False) -> int | None:
        return self._noted(
            super().update, decide, lambda change: [] if change is None else [bare(change)], urgent
        )

    def update_batch(
        self, decide: Callable[[M], list[Record]], *, urgent: bool = False
    ) -> int | None:
        return self._noted(
            super().update_batch,
            lambda machine: list(decide(machine) or ()),
            lambda records: list(map(bare, records)),
            urgent,
        )

    def _append_filler(self, after_lsn: int) -> int | None:
        lsn = super()._append_filler(after_lsn)
        if lsn is not None:
            self.history.add_filler()
        return lsn

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

    `state` is an ordinary DurableState. Its records are noted in `history`, whether they are
    appended through the owner or through `state`. Each open is checked (P1, P2, P3, P5, P6): the
    recovered records are a prefix of that history, with whole batches and no fewer records than
    were promised, and their state is the one that a replay gives. Each update is checked, too (P6):
    the items that `freeze` gave before it must not change. At a close, a kill, a power cut and the
    end of the `with` block, the live state must be the one that a replay gives (P6).

        with Owner(Jobs) as owner:
            owner.append(["queued", "a"])
            owner.wait()
            owner.append(["done", "a"])
            owner.power_cut()  # the second record is lost: nothing waited for it
            owner.reopen()
            assert owner.state.machine.table["a"]["state"] == "queued"

    One thread at a time may use it. Leaving the `with` block ends the engine's threads.
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
        """Open the journal at `path`, and create it if it does not exist.

        machine: makes a new state machine. options: the options of the journal. disk: the disk to
        use (None: a new one). path: the directory of the journal on that disk. history: the records
        that were appended to an existing journal (None: none). Raises BrokenPromiseError if the
        recovery breaks a promise, and what the engine raises if the disk crashes or fails.
        """
        check_options(options)
        check_kind("disk", disk, SimulatedDisk)
        check_kind("history", history, History)
        self.disk = disk or SimulatedDisk()
        self.options = options
        self.path = journal_path(path)
        self.history = history or History(machine)
        self.safe_lsn = self.alive_lsn = 0
        self._state: NotingState[M] | None = None
        self._rotten = set[str]()
        self.reopen()

    @property
    def state(self) -> DurableState[M]:
        """The DurableState that is open. After a crash, call `reopen` before using it."""
        assert self._state is not None, "reopen() first"
        return self._state

    @property
    def is_open(self) -> bool:
        """True while the journal is usable: not after a crash, a close or a failure."""
        try:
            if self._state is not None:
                self._state.journal.check()
        except JournalError:
            return False
        return self._state is not None

    @property
    def last_lsn(self) -> int:
        """The LSN of the last record that was appended and not lost."""
        return self.history.last_lsn

    def append(self, record: Record) -> int:
        """Append a record and return its LSN, without waiting for it.

        Raises BrokenPromiseError (P6) if the items of `freeze` change, TypeError for None, and what
        the engine raises.
        """
        if record is None:
            refuse(TypeError, "record must be a record", record)
        lsn = self.state.update(lambda _: record)
        assert lsn is not None
        return lsn

    def append_batch(self, records: list[Record]) -> int:
        """Append the records as one batch and return the last LSN, without waiting for it.

        A crash leaves all of them or none. Raises what `append` raises, and ValueError if there are
        none.
        """
        if not records:
            refuse(ValueError, "records must be a list with at least one record", records)
        lsn = self.state.update_batch(lambda _: records)
        assert lsn is not None
        return lsn

    def wait(self, lsn: int | None = None) -> None:
        """Wait until `lsn` is durable, or (None) the last LSN. From then on it is promised.

        Raises FailedError if the journal fails meanwhile.
        """
        lsn = self.last_lsn if lsn is None else lsn
        self.state.wait_durable(lsn)
        self.promised()
        self._promise(lsn, safe=self._syncs_each)

    def idle(self) -> None:
        """Let the engine write the mark that it writes when the log goes idle.

        No commit may be in progress.
        """
        self.state.journal._core.committer.mark()

    def compact(self) -> None:
        """Publish a checkpoint now, after which every appended record is durable.

        Raises what `DurableState.compact` raises.
        """
        lsn = self.last_lsn
        self.state.compact().close()
        self.promised()
        self._promise(lsn, safe=True)

    def close(self) -> None:
        """Close the state. From then on, every appended record is promised.

        Raises BrokenPromiseError (P6) if the live state is not the one that a replay gives, and
        FailedError if the journal fails.
        """
        self._check_live()
        self.state.close()
        self._promise(self.last_lsn, safe=True)

    def give_up(self) -> None:
        """Close a journal that has failed. Nothing more is promised. Call `reopen` afterwards."""
        state, self._state = self._state, None
        if state is not None:
            with suppress(FailedError):
                state.close()

    def kill(self) -> None:
        """Kill the process. Its writes stay in the page cache. Call `reopen` afterwards.

        Raises BrokenPromiseError (P6) if the live state is not the one that a replay gives.
        """
        self._check_live()
        self.promised()
        with quiet():
            self.disk.kill()
            self.give_up()

    def power_cut(self, outcome: Outcome = lose) -> None:
        """Cut the power. `outcome` decides the fate of each unsynced change.

        LOCK keeps its contents, which are for people. Call `reopen` afterwards. Raises
        BrokenPromiseError (P6) if the live state is not the one that a replay gives.
        """
        check_outcome(outcome)
        self._check_live()
        self.promised()
        with quiet():
            self.disk.power_cut(for_engine(outcome))
            self.alive_lsn = self.safe_lsn
            self.give_up()

    def reopen(self) -> None:
        """Close the state if it is open, and recover.

        The records that recovery yields are promised from then on. Raises BrokenPromiseError, and
        what the engine raises if the disk crashes or fails.
        """
        if self._state is not None and not self._state.journal.closed:
            self.close()
        self._state = None
        self._state = state = open_checked(self.history, self.path, self.options, self.disk)
        lsn = state.journal.last_lsn
        self.history.cut(lsn)
        expect(lsn >= self.alive_lsn, "P2", f"LSN {self.alive_lsn} was durable, {lsn} is recovered")
        self.safe_lsn = self.alive_lsn = lsn

    def rot(self, name: str, offset: int, mask: int = 1) -> None:
        """Damage the checkpoint `name` by inverting the bits of `mask` in its byte at `offset`.

        `read` then accepts that this checkpoint is reported as damaged.
        """
        file = self.disk.open_directory(self.path, write=True).open(name, "update")
        [byte] = file.read(1, offset)
        file.write(bytes([byte ^ mask]), offset)
        file.sync()
        self._rotten.add(f"{self.path}/{name}")

    def read(self) -> int | None:
        """Read and verify the journal with a JournalReader, and return the last LSN it yields.

        Return None if there is no journal or no record in the log. Raises BrokenPromiseError if a
        record was not appended (P1), or if a crash is reported as damage (P4).
        """
        return read_checked(self.history, self.path, self.disk, rotten=self._rotten)

    def promised(self) -> tuple[int, int]:
        """Bring `safe_lsn` and `alive_lsn` up to date, and return them."""
        if self._state is not None:
            journal = self._state.journal
            self._promise(journal.durable_lsn, safe=self._syncs_each)
            if not self._syncs_each:
                self._promise(journal._core.committer.synced_lsn, safe=True)
        return self.safe_lsn, self.alive_lsn

    def end(self) -> None:
        """End the engine's threads without writing anything. The disk stays readable."""
        with quiet():
            self.disk.kill()
            self.give_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if error is None:
                self._check_live()
        finally:
            self.end()

    def _check_live(self) -> None:
        """Check the state in memory, unless an `apply` that raised has left it half-way."""
        state = self._state
        if state is not None and state._progress.broken is None:
            state.read(self.history.check_live)

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
    """Open a journal to which `history` was appended, and check the recovery.

    Raises BrokenPromiseError (P1, P2, P3, P5, P6), and what the engine raises if the disk crashes
    or fails meanwhile.
    """
    machine, faults = history.machine(), disk.faults
    try:
        # The caller deals with its mirror, if it has one.
        opened = NotingState.open(path, machine, options=options, disk=disk, mirror=False)
    except Exception as error:
        if disk.crashed or disk.faults > faults:
            raise
        raise BrokenPromiseError(f"P5: the journal does not open: {error!r}") from error
    state = cast("NotingState[M]", opened)
    state.history = history
    try:
        journal, lsn = state.journal, state.journal.last_lsn
        after = journal.checkpoint.lsn if journal.checkpoint else 0
        tail = [(entry.lsn, entry.record) for entry in journal.replay()]
        history.check(lsn, machine, after, tail)
        durable_lsn = journal.durable_lsn
        expect(durable_lsn == lsn, "P2", f"LSN {lsn} is recovered, but {durable_lsn} is durable")
    except BaseException:
        with suppress(FailedError):
            state.close()
        raise
    return state


def read_checked(
    history: History[M], path: str, disk: SimulatedDisk, *, rotten: Collection[str]
) -> int | None:
    """Read and verify a journal, and return the last LSN that the reader yields, or None.

    `rotten` are the paths of checkpoints that may be damaged. Raises BrokenPromiseError if a record
    was not appended (P1), or if the effect of a crash is reported as damage (P4).
    """
    if not is_journal(list(disk.contents(path))):
        return None
    lsn = None
    try:
        with JournalReader.open(path, disk=disk) as reader:
            for finding in reader.verify():
                known = finding.kind == "bad_checkpoint" and finding.path in rotten
                harmless = known or finding.kind in ("torn_tail", "stray")
                expect(harmless, "P4", f"a crash is reported as damage: {finding}")
            for entry in reader.entries():
                lsn = entry.lsn
                same = history.holds(lsn, entry.record, is_filler=entry.is_filler)
                expect(same, "P1", f"a reader yields {entry}, which was not appended")
    except (JournalError, OSError) as error:
        raise BrokenPromiseError(f"P4: a reader can't read the journal: {error!r}") from error
    return lsn


def for_engine(outcome: Outcome) -> Outcome:
    """Return `outcome`, except that all changes to LOCK after its creation are kept.

    The contents of LOCK are for people, so crashes need not vary them.
    """

    def decide(change: Change) -> bytes | None:
        if change.path.endswith(f"/{LOCK}") and change.operation != "create":
            return change.data
        return outcome(change)

    return decide


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the logger `journal`, because a test causes thousands of torn tails and stops.

    On leaving, wait at most a second for the messages that the engine's threads have posted: the
    level at the time when they are logged decides whether they appear.
    """
    log = logging.getLogger("journal")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        settle(_SETTLE_S)
        log.setLevel(level)
