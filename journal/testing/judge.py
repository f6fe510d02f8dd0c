"""Opens what a crash left, and holds it against the promises of journal/docs/RELIABILITY.md."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import Generic, NamedTuple, TypeVar

from journal._disk.disk import LOCK, TMP
from journal._engine.journal import Journal
from journal._format.checkpoint import checkpoint_lsns
from journal._format.record import Record
from journal._recovery.recovery import Recovery
from journal._state.durable_state import StateMachine
from journal.errors import FailedError
from journal.options import Options
from journal.testing.disk import Mutation, SimulatedDisk
from journal.testing.history import BrokenPromiseError, History, expect
from journal.testing.medium import Folder, Inode, Medium
from journal.testing.outcome import lose
from journal.testing.outcomes import Bounds, Image, content_fates, fingerprint, outcomes
from journal.testing.owner import open_checked, read_checked

M = TypeVar("M", bound=StateMachine)

PROBE = "?"  # what is appended after a recovery: it fits in any frame
_ROTTEN_OFFSET = 40  # within a checkpoint's first line


class Step(NamedTuple):
    """A machine in front of a mutation of its disk, or when all was done."""

    operation: Mutation | None
    path: str
    medium: Medium

    def __str__(self) -> str:
        return f"in front of {self.operation} {self.path}" if self.operation else "after it all"


@dataclass
class Judge(Generic[M]):
    """Judges what crashes leave of a journal to which `history` was appended.

    Each different image is opened once, really; where else it occurs, only what was promised
    there is compared. `lsns` are the LSNs at which recovery ends, `states` counts the crashes.
    """

    history: History[M]
    options: Options
    path: str
    bounds: Bounds
    opened: Callable[[Judge[M], Image, int], None]
    states: int = 0
    lsns: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._in_recovery = replace(self.bounds, outcomes_max=self.bounds.recovery_outcomes_max)

    def power_cuts(self, step: Step, at_least: int, at_most: int) -> None:
        """P1 to P6 after each outcome of a power cut: recovery ends between these LSNs."""
        self._power_cuts(step, at_least, at_most, self.bounds)

    def _power_cuts(self, step: Step, at_least: int, at_most: int, bounds: Bounds) -> None:
        folder = step.medium.folders.get(self.path)
        if folder is None:
            return
        for image in outcomes(folder, self.path, bounds):
            self.states += 1
            try:
                lsn = self._judge(image)
                _expect_between(at_least, lsn, at_most)
            except BrokenPromiseError as error:
                error.add_note(f"a power cut {step}, of which this is left:\n{image}")
                raise

    def kill(self, step: Step, at_least: int, at_most: int, *, safe_lsn: int) -> None:
        """P1 to P6 after the process died, and after another crash at each step of recovery."""
        self._kill(step, step.medium, at_least, at_most, safe_lsn)

    def failed_syncs(self, step: Step, at_least: int, at_most: int) -> None:
        """P1 to P6 after the sync that is about to happen failed, with each outcome, and the
        process ended: its pages are clean, and may not be on the disk."""
        folder = step.medium.folders[self.path]
        name, inode = _synced(folder, step.path)
        if inode is None:
            return
        for fate in content_fates(inode, self._in_recovery):
            medium = step.medium.copy()
            failed = medium.folders[self.path].now[name]
            failed.stable = fate.content.copy()
            failed.unsynced.clear()
            try:
                self._kill(step, medium, at_least, at_most, at_least, clean=True)
            except BrokenPromiseError as error:
                error.add_note(f"the sync {step} failed, and left {', '.join(fate.names)}")
                raise

    def _judge(self, image: Image) -> int:
        """The LSN at which recovery of `image` ends. Recovering it again and again, from each of
        its own steps on, ends there too."""
        lsn = self.lsns.get(image.key)
        if lsn is None:
            lsn, steps = self._open(image.medium)
            self.lsns[image.key] = lsn
            for step in steps:
                self._within_recovery(step, lsn, lsn)
            self.opened(self, image, lsn)
        return lsn

    def _kill(
        self,
        step: Step,
        medium: Medium,
        at_least: int,
        at_most: int,
        safe_lsn: int,
        clean: bool = False,
    ) -> None:
        self.states += 1
        try:
            lsn, steps = self._open(medium, clean=clean)
            _expect_between(at_least, lsn, at_most)
            for inner in steps[:-1]:
                self._killed_again(inner, lsn)
                self._within_recovery(inner, safe_lsn, lsn)
            self._within_recovery(steps[-1], lsn, lsn)
        except BrokenPromiseError as error:
            error.add_note(f"the process died {step}")
            raise

    def _within_recovery(self, step: Step, at_least: int, at_most: int) -> None:
        try:
            self._power_cuts(step, at_least, at_most, self._in_recovery)
        except BrokenPromiseError as error:
            error.add_note("within the recovery from what follows:")
            raise

    def _killed_again(self, step: Step, lsn: int) -> None:
        self.states += 1
        recovered_to, _ = recovered(SimulatedDisk(step.medium), self.path, self.options)
        expect(
            recovered_to == lsn,
            "P1",
            f"recovery, killed {step}, ends at LSN {recovered_to}, not {lsn}",
        )

    def rot(self, image: Image, lsn: int) -> None:
        """P1 to P6 with each checkpoint damaged in its turn: that is what there are two for."""
        for name, content in image.files.items():
            if checkpoint_lsns([name]):
                rotten = content.copy()
                [byte] = rotten.read(1, _ROTTEN_OFFSET)
                rotten.write(_ROTTEN_OFFSET, bytes([byte ^ 1]))
                medium = Medium.holding(self.path, {**image.files, name: rotten})
                self.states += 1
                try:
                    recovered_to, _ = self._open(medium, rotten=f"{self.path}/{name}")
                    _expect_between(lsn, recovered_to, lsn)
                except BrokenPromiseError as error:
                    error.add_note(f"{name} was damaged")
                    raise

    def _open(
        self, medium: Medium, *, clean: bool = False, rotten: str = ""
    ) -> tuple[int, list[Step]]:
        """Where recovery ends, and the steps that it takes; the last one is where it has ended.

        `clean`: there may be pages in the cache that count as written and are not. `rotten`: a
        checkpoint that is damaged.
        """
        disk, steps, keys = SimulatedDisk(medium), list[Step](), set[bytes]()
        shown_lsn = read_checked(self.history, self.path, disk, rotten=(rotten,))

        def look(operation: Mutation, path: str) -> None:
            step = Step(operation, path, disk.snapshot())
            key = fingerprint(step.medium.folders.get(self.path))
            if key not in keys:
                keys.add(key)
                steps.append(step)

        disk.watch = look
        state = open_checked(self.history, self.path, self.options, disk)
        disk.watch = None
        try:
            lsn = state.journal.last_lsn
            steps.append(Step(None, "", disk.snapshot()))
            if shown_lsn is not None and not clean:
                expect(shown_lsn == lsn, "P1", f"a reader was shown LSN {shown_lsn}, not {lsn}")
            state.journal.wait_durable(Journal.append(state.journal, PROBE))  # past the machine
            medium = disk.snapshot()
        except (OSError, FailedError) as error:
            raise BrokenPromiseError(f"P5: it does not go on: {error!r}") from error
        finally:
            disk.kill()
            with suppress(FailedError):
                state.close()
        self._check_continues(medium, lsn)
        return lsn, steps

    def _check_continues(self, medium: Medium, lsn: int) -> None:
        """That PROBE, appended after `lsn`, is durable there, as far as was promised."""
        if self.options.durability == "os":
            killed = recovered(SimulatedDisk(medium), self.path, self.options)
            expect(killed == (lsn + 1, PROBE), "P2", f"a kill took LSN {lsn + 1}: {killed}")
        medium.power_cut(lose)
        recovered_to = recovered(SimulatedDisk(medium), self.path, self.options)
        kept = recovered_to == (lsn + 1, PROBE)
        if self.options.durability == "os":
            kept = kept or recovered_to[0] == lsn  # what was shown stays, and more was not promised
        expect(
            kept, "P2", f"after LSN {lsn + 1} was waited for, recovery ends at {recovered_to[0]}"
        )


def recovered(disk: SimulatedDisk, path: str, options: Options) -> tuple[int, Record]:
    """The last LSN and record (None if a checkpoint is all) that a recovery without threads finds.

    Raises BrokenPromiseError.
    """
    last: Record = None
    directory = disk.open_directory(path, write=True)
    try:
        directory.lock()
        with closing(Recovery(directory, keep=options.checkpoints_kept)) as recovery:
            for batch in recovery.batches():
                last = batch.records[-1]
            recovered_to = recovery.finish()
    except Exception as error:
        raise BrokenPromiseError(f"P5: it does not open again: {error!r}") from error
    finally:
        directory.close(unlock=True)
    return recovered_to.last_lsn, last


def _expect_between(at_least: int, lsn: int, at_most: int) -> None:
    expect(lsn >= at_least, "P2", f"LSN {at_least} was promised, but recovery ends at {lsn}")
    expect(lsn <= at_most, "P1", f"recovery ends at LSN {lsn}, but {at_most} was the last")


def _synced(folder: Folder, path: str) -> tuple[str, Inode | None]:
    """The file that is open as `path`, if it has a name that is read: it may be a newer one."""
    name = path.rpartition("/")[2]
    if name not in folder.now:
        name = name.removesuffix(TMP)
    read = name != LOCK and not name.endswith(TMP)
    return name, folder.now.get(name) if read else None
