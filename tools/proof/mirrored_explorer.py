"""The crash explorer, through a mirror: judges what a crash leaves here and in the mirror.

A workload runs on the real engine over a simulated disk. The real shipper and upkeep copy it to a
store in memory, in steps of the workload, so that each run is the same. A crash may come before
each change of the disk, and before and after each change of the store. Then

- the machine's directory, after a kill or any legal outcome of a power cut, attaches to the mirror
  as it was then. The two have not diverged, and an open finds every record that was promised or
  that the mirror was reported to have;
- the machine is lost: a restore of the mirror has every record that it was reported to have.

Both are checked against the history of the workload: whole batches, in order, and their state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, Generic, NamedTuple, TypeVar
from unittest.mock import patch
from uuid import uuid4

from journal._engine import mirroring
from journal._format.layout import SEGMENT_VERSION
from journal._mirror.attaching import Attached, Attachment
from journal._mirror.entry import Claim
from journal._mirror.holding import Holding
from journal._mirror.marker import read_marker
from journal._mirror.memory_store import MemoryStore
from journal._mirror.permit import Permit
from journal._mirror.restoring import restore_into
from journal._mirror.shipper import Shipper
from journal._mirror.store import StoreError
from journal._mirror.upkeep import Upkeep
from journal._state.state_machine import StateMachine
from journal.errors import FailedError, JournalError
from journal.options import Options
from journal.testing import Bounds, BrokenPromiseError, ExplorationReport, Owner, SimulatedDisk
from journal.testing.explorer import Moment, MomentRecorder, describe_failure
from journal.testing.history import History, expect
from journal.testing.medium import Medium
from journal.testing.outcomes import fingerprint, outcomes
from journal.testing.owner import open_checked, quiet
from proof.ledger import Ledger

M = TypeVar("M", bound=StateMachine)
_PATH = "/journal"
_FOREVER_S = 3600.0


class Stored(NamedTuple):
    """The mirror at a moment: the number of changes so far, its content, and the LSN that it was
    reported to have."""

    changes: int
    entries: dict[int, bytes]
    blobs: dict[str, bytes]
    mirrored_lsn: int

    def store(self) -> MemoryStore:
        store = MemoryStore()
        store._entries, store._blobs = dict(self.entries), dict(self.blobs)
        return store


class WatchedStore(MemoryStore):
    """A store that calls `watch` before and after each change."""

    def __init__(self) -> None:
        super().__init__()
        self.watch: Callable[[], None] = lambda: None
        self.changes = 0

    def append(self, number: int, data: bytes) -> None:
        self._change(lambda: super(WatchedStore, self).append(number, data))

    def trim(self, numbers: Iterable[int]) -> None:
        for number in list(numbers):  # one by one, as some stores do it
            self._change(lambda number=number: super(WatchedStore, self).trim([number]))  # type: ignore[misc]

    def put_blob(self, name: str, pieces: Iterable[bytes]) -> None:
        self._change(lambda: super(WatchedStore, self).put_blob(name, pieces))

    def delete_blobs(self, names: Iterable[str]) -> None:
        for name in list(names):
            self._change(lambda name=name: super(WatchedStore, self).delete_blobs([name]))  # type: ignore[misc]

    def _change(self, act: Callable[[], None]) -> None:
        self.watch()
        act()
        self.changes += 1
        self.watch()


class PromptUpkeep(Upkeep):
    """An upkeep that is done when `run` returns."""

    def run(self, mirrored_lsn: int, *, wait_s: float = 0.0) -> None:
        super().run(mirrored_lsn, wait_s=max(wait_s, _FOREVER_S))


class MirroredOwner(MomentRecorder[M]):
    """An owner whose journal is mirrored, and which notes the mirror at each moment.

    Every other wait ships, and so do idle marks, compactions and closes.
    """

    def __init__(self, machine: Callable[[], M], *, options: Options) -> None:
        self.stored: list[Stored] = []
        self.mirrored_lsn = 0
        self._store = WatchedStore()
        self._store.watch = self.record_moment
        self._waits = 0
        super().__init__(machine, [], options=options, disk=None, path=_PATH, history=None)

    def record_moment(self, operation: Any = None, path: str = "") -> None:
        super().record_moment(operation, path)
        store = self._store
        content = dict(store._entries), dict(store._blobs)
        self.stored.append(Stored(store.changes, *content, self.mirrored_lsn))

    def reopen(self) -> None:
        if self._state is not None and not self._state.journal.closed:
            self.close()
        self._state = None
        attached = attach(self.disk, self._store)
        with patch.object(mirroring, "note_unmirrored"):  # it ships under that claim
            super().reopen()
        journal, holding = self.state.journal, Holding(1 << 40)
        committer = journal._core.committer
        journal._core.compactor.hold_back(holding)

        def synced_end() -> Any:
            if self.is_open:
                committer.sync_log()
            return committer.synced_end

        self._shipper = Shipper(
            lambda: attached,
            self.disk.open_directory(self.path, write=False),
            partial(PromptUpkeep, holding=holding, keep_s=0, now_ms=lambda: 0),
            synced_end,
            epoch=journal.epoch,
            mirrored_lsn=attached.appender.claimed.last_lsn,
            recovered_lsn=journal.last_lsn,
            interval_s=_FOREVER_S,
            events=events(),
            permit=Permit(),
        )
        self._shipper._connect()

    def wait(self, lsn: int | None = None) -> None:
        super().wait(lsn)
        self._waits += 1
        if self._waits % 2:
            self.ship()

    def idle(self) -> None:
        super().idle()
        self.ship()

    def compact(self) -> None:
        super().compact()
        self.ship()

    def close(self) -> None:
        super().close()
        self.ship(is_closed=True)

    def ship(self, *, is_closed: bool = False) -> None:
        """Ship what is synced, as the shipper's thread does."""
        self._shipper._ship(is_closed=is_closed)
        self.mirrored_lsn = self._shipper.mirrored_lsn


def events() -> Any:
    """Return a receiver of the shipper's events, which ignores them."""
    names = ("mirrored", "shipped", "looked", "stalled", "gave_up", "failed", "ended")
    return SimpleNamespace(due_s=lambda: 0, **dict.fromkeys(names, lambda *_: None))


def attach(disk: SimulatedDisk, store: MemoryStore) -> Attached:
    """Attach the journal's directory to the store, as an open does before it recovers."""
    directory = disk.open_directory(_PATH, write=True)
    directory.lock()
    try:
        writer = uuid4().hex  # a disk that continues from a snapshot makes the same ids again
        return Attachment(
            lambda _: store,
            disk,
            directory,
            Claim(writer, Ledger.application, SEGMENT_VERSION, "host", 1, 0, writer),
            lambda: uuid4().bytes,
            url=store.url,
            marker=read_marker(directory),
        ).attach()
    finally:
        directory.close(unlock=True)


class MirroredJudge(Generic[M]):
    """A judge of what a crash leaves in the directory and in the mirror."""

    def __init__(self, options: Options, bounds: Bounds) -> None:
        self.report = ExplorationReport()
        self._options = options
        self._bounds = bounds
        self._seen = set[object]()

    def judge(self, moment: Moment[M], stored: Stored) -> None:
        """Judge each crash at one moment. Raises BrokenPromiseError."""
        history, mirrored_lsn, last_lsn = moment.history, stored.mirrored_lsn, moment.last_lsn
        folder = moment.step.medium._folders.get(_PATH)
        mirror = id(history), stored.changes, mirrored_lsn
        states = images = 0
        if folder is None:
            return
        for image in outcomes(folder, _PATH, self._bounds):
            states += 1
            if self._is_new(image.key, *moment[2:], mirror):
                images += 1
                at_least = max(moment.safe_lsn, mirrored_lsn)
                with noted(f"a power cut {moment.step} leaves this:\n{image}"):
                    self._open(image.medium, stored, history, at_least, last_lsn)
        if self._is_new(fingerprint(folder), *moment[2:], mirror):
            with noted(f"the process was killed {moment.step}"):
                at_least = max(moment.alive_lsn, mirrored_lsn)
                self._open(moment.step.medium, stored, history, at_least, last_lsn)
        if mirrored_lsn and self._is_new(mirror):
            with noted(f"the machine was lost {moment.step}"):
                disk = SimulatedDisk()
                restore_into(stored.store(), _PATH, disk=disk)
                self._recover(disk, history, mirrored_lsn, last_lsn)
        self.report += ExplorationReport(1, states + 2, images)

    def _open(
        self, medium: Medium, stored: Stored, history: History[M], at_least: int, at_most: int
    ) -> None:
        """Open a directory with its mirror."""
        disk = SimulatedDisk(medium)
        disk.kill()
        attach(disk, stored.store())
        asides = [path for path in disk.snapshot()._folders if ".aside-" in path]
        expect(not asides, "P2", "the directory and its mirror have diverged")
        self._recover(disk, history, at_least, at_most)

    def _recover(
        self, disk: SimulatedDisk, history: History[M], at_least: int, at_most: int
    ) -> None:
        state = open_checked(history, _PATH, self._options, disk)
        lsn = state.journal.last_lsn
        disk.kill()
        with suppress(FailedError):
            state.close()
        expect(lsn >= at_least, "P2", f"LSN {at_least} was promised, LSN {lsn} is recovered")
        expect(lsn <= at_most, "P1", f"recovery ends at LSN {lsn}, but must not pass {at_most}")

    def _is_new(self, *key: object) -> bool:
        before = len(self._seen)
        self._seen.add(key)
        return len(self._seen) > before


@contextmanager
def noted(text: str) -> Iterator[None]:
    """Add the crash to the error that it causes."""
    try:
        yield
    except BrokenPromiseError as error:
        error.add_note(text)
        raise
    except (StoreError, JournalError, OSError) as error:
        raise BrokenPromiseError(f"P5: the journal does not open: {error!r}\n{text}") from error


def explore_mirrored(
    machine: Callable[[], M],
    workload: Callable[[Owner[M]], None],
    *,
    options: Options,
    bounds: Bounds,
) -> ExplorationReport:
    """Run `workload` once through a mirror, and judge every crash that could have struck it. Raises
    BrokenPromiseError. See journal.testing.explore."""
    judge, number = MirroredJudge[M](options, bounds), None
    with quiet(), MirroredOwner(machine, options=options) as owner:
        try:
            workload(owner)
            owner.record_moment()
            for number in range(len(owner.moments)):
                judge.judge(owner.moments[number], owner.stored[number])
        except BrokenPromiseError as error:
            raise BrokenPromiseError(describe_failure(error, owner.moments, number)) from error
    return judge.report
