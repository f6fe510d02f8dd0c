"""The judge of crashes: opens the image that a crash leaves, and checks the promises.

journal/docs/RELIABILITY.md states the promises P1 to P6.
"""

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
from journal._state.state_machine import StateMachine
from journal.errors import FailedError
from journal.options import Options
from journal.testing.disk import Mutation, SimulatedDisk
from journal.testing.history import BrokenPromiseError, History, expect
from journal.testing.medium import Folder, Inode, Medium
from journal.testing.outcome import lose
from journal.testing.outcomes import Bounds, Image, content_fates, fingerprint, outcomes
from journal.testing.owner import open_checked, read_checked

M = TypeVar("M", bound=StateMachine)

PROBE = "?"  # the record that is appended after a recovery; it fits in any frame
_ROTTEN_OFFSET = 40  # a byte in a checkpoint's first line


class Step(NamedTuple):
    """A copy of the machine before a mutation of its disk, or (None) after the last one."""

    operation: Mutation | None
    path: str
    medium: Medium

    def __str__(self) -> str:
        return f"before {self.operation} {self.path}" if self.operation else "after all operations"


@dataclass
class Judge(Generic[M]):
    """A judge of the crashes of a journal to which `history` was appended.

    It opens each different image once, with the engine. If the image occurs again, only the
    promised LSN is compared. `lsns` maps an image's key to the LSN at which its recovery ends,
    `states` counts the crashes, and `opened` is called with each new image and that LSN.
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
        """Check P1 to P6 after each outcome of a power cut.

        Recovery must end at an LSN from `at_least` to `at_most`. Raises BrokenPromiseError.
        """
        self._power_cuts(step, at_least, at_most, self.bounds)

    def _power_cuts(self, step: Step, at_least: int, at_most: int, bounds: Bounds) -> None:
        folder = step.medium._folders.get(self.path)
        if folder is None:
            return
        for image in outcomes(folder, self.path, bounds):
            self.states += 1
            try:
                lsn = self._judge(image)
                _expect_between(at_least, lsn, at_most)
            except BrokenPromiseError as error:
                error.add_note(f"a power cut {step} leaves this:\n{image}")
                raise

    def kill(self, step: Step, at_least: int, at_most: int, *, safe_lsn: int) -> None:
        """Check P1 to P6 after a kill, and after another crash at each step of the recovery.

        A power cut may lose the records after `safe_lsn`. Raises BrokenPromiseError.
        """
        self._kill(step, step.medium, at_least, at_most, safe_lsn)

    def failed_syncs(self, step: Step, at_least: int, at_most: int) -> None:
        """Check P1 to P6 after a failed sync at `step` and a kill, for each outcome of the sync.

        The failed sync leaves pages in the cache that are marked clean and may not be on the disk.
        Raises BrokenPromiseError.
        """
        folder = step.medium._folders[self.path]
        name, inode = _synced(folder, step.path)
        if inode is None:
            return
        for fate in content_fates(inode, self._in_recovery):
            medium = step.medium.copy()
            failed = medium._folders[self.path].now[name]
            failed.stable = fate.content.copy()
            failed.unsynced.clear()
            try:
                self._kill(step, medium, at_least, at_most, at_least, clean=True)
            except BrokenPromiseError as error:
                error.add_note(f"a failed sync of {step.path} left: {', '.join(fate.names)}")
                raise

    def _judge(self, image: Image) -> int:
        """Return the LSN at which recovery of `image` ends.

        Check that recovery ends there as well after a power cut at each of its own steps.
        """
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
                self._kill_again(inner, lsn)
                self._within_recovery(inner, safe_lsn, lsn)
            self._within_recovery(steps[-1], lsn, lsn)
        except BrokenPromiseError as error:
            error.add_note(f"the process was killed {step}")
            raise

    def _within_recovery(self, step: Step, at_least: int, at_most: int) -> None:
        try:
            self._power_cuts(step, at_least, at_most, self._in_recovery)
        except BrokenPromiseError as error:
            error.add_note("during the recovery from the following crash:")
            raise

    def _kill_again(self, step: Step, lsn: int) -> None:
        """Check that a recovery that was killed at `step` ends at `lsn` when it is repeated."""
        self.states += 1
        recovered_to, _ = recover(SimulatedDisk(step.medium), self.path, self.options)
        expect(
            recovered_to == lsn,
            "P1",
            f"a recovery killed {step} ends at LSN {recovered_to} when repeated, not {lsn}",
        )

    def rot(self, image: Image, lsn: int) -> None:
        """Check P1 to P6 with damage to one checkpoint, for each checkpoint of `image`.

        A journal keeps two so that it survives that. Raises BrokenPromiseError.
        """
        for name, content in image.files.items():
            if checkpoint_lsns([name]):
                rotten = content.copy()
                [byte] = rotten.read(1, _ROTTEN_OFFSET)
                rotten.write(_ROTTEN_OFFSET, bytes([byte ^ 1]))
                medium = Medium._holding(self.path, {**image.files, name: rotten})
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
        """Open the journal, check it, append PROBE and check that the log continues.

        Return the LSN at which recovery ends, and its steps; the last one is after the recovery.
        `clean`: the cache may hold pages that are marked clean and are not on the disk. `rotten`:
        the path of a damaged checkpoint.
        """
        disk, steps, keys = SimulatedDisk(medium), list[Step](), set[bytes]()
        shown_lsn = read_checked(self.history, self.path, disk, rotten=(rotten,))

        def record_step(operation: Mutation, path: str) -> None:
            step = Step(operation, path, disk.snapshot())
            key = fingerprint(step.medium._folders.get(self.path))
            if key not in keys:
                keys.add(key)
                steps.append(step)

        disk.watch = record_step
        state = open_checked(self.history, self.path, self.options, disk)
        disk.watch = None
        try:
            lsn = state.journal.last_lsn
            steps.append(Step(None, "", disk.snapshot()))
            if shown_lsn is not None and not clean:
                expect(
                    shown_lsn == lsn, "P1", f"a reader ends at LSN {shown_lsn}, recovery at {lsn}"
                )
            state.journal.wait_durable(Journal.append(state.journal, PROBE))  # bypass the machine
            medium = disk.snapshot()
        except (OSError, FailedError) as error:
            raise BrokenPromiseError(f"P5: the log does not continue: {error!r}") from error
        finally:
            disk.kill()
            with suppress(FailedError):
                state.close()
        self._check_continues(medium, lsn)
        return lsn, steps

    def _check_continues(self, medium: Medium, lsn: int) -> None:
        """Check that PROBE, appended after `lsn`, survives a crash, as far as was promised."""
        promised = (lsn + 1, PROBE)
        if self.options.durability == "os":
            after_kill = recover(SimulatedDisk(medium), self.path, self.options)
            expect(after_kill == promised, "P2", f"a kill lost LSN {lsn + 1}: {after_kill} is left")
        medium.power_cut(lose)
        after_cut = recover(SimulatedDisk(medium), self.path, self.options)
        is_kept = after_cut == promised
        if self.options.durability == "os":
            is_kept = is_kept or after_cut[0] == lsn  # the power cut may lose the unsynced probe
        expect(
            is_kept, "P2", f"a wait for LSN {lsn + 1} returned, but recovery ends at {after_cut[0]}"
        )


def recover(disk: SimulatedDisk, path: str, options: Options) -> tuple[int, Record]:
    """Recover a journal without threads, and return the last LSN and its record.

    The record is None if recovery read only a checkpoint. Raises BrokenPromiseError.
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
        raise BrokenPromiseError(f"P5: the journal does not open again: {error!r}") from error
    finally:
        directory.close(unlock=True)
    return recovered_to.last_lsn, last


def _expect_between(at_least: int, lsn: int, at_most: int) -> None:
    expect(lsn >= at_least, "P2", f"LSN {at_least} was promised, but recovery ends at LSN {lsn}")
    expect(lsn <= at_most, "P1", f"recovery ends at LSN {lsn}, but must not pass LSN {at_most}")


def _synced(folder: Folder, path: str) -> tuple[str, Inode | None]:
    """Return the file that is synced through `path`, or None if the engine never reads its name.

    A `*.tmp` file may have been renamed since it was opened.
    """
    name = path.rpartition("/")[2]
    if name not in folder.now:
        name = name.removesuffix(TMP)
    read = name != LOCK and not name.endswith(TMP)
    return name, folder.now.get(name) if read else None
