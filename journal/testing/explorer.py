"""The crash explorer: one run of a workload, and every crash that could have struck in it.

    def work(owner: Owner[Jobs]) -> None:
        owner.append(["queued", "a"])
        owner.wait()
        owner.append_batch([["done", "a"], ["queued", "b"]])
        owner.compact()
        owner.reopen()

    report = explore(Jobs, work)
    assert report.states > 500

The workload runs once, on the real engine over a simulated disk. In front of each change of that
disk a copy of the whole machine is kept, page cache and all, with what had been promised then.
Each copy is then crashed in every way that is legal (see `Bounds`): a power cut, of which each
unsynced write and name may be left in any state; the death of the process, followed by a second
crash at any step of the recovery; a sync that failed. What is left is opened, really, and must
hold P1 to P6: whole batches in order, nothing missing that was promised, the state that replay
gives, no damage found by `verify`; again and again, whatever crash strikes a recovery; and it must
take another record and keep it. An image that occurs in many places is opened once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

from journal._state.durable_state import StateMachine
from journal.options import Options
from journal.testing.disk import Mutation, SimulatedDisk
from journal.testing.history import BrokenPromiseError, History
from journal.testing.judge import Judge, Step
from journal.testing.outcome import Outcome, lose
from journal.testing.outcomes import Bounds, Image, fingerprint
from journal.testing.owner import ManualOptions, Owner, quiet

M = TypeVar("M", bound=StateMachine)
_BOUNDS = Bounds()
_SEQUEL_RECORDS = 3


@dataclass(frozen=True, slots=True)
class ExplorationReport:
    """A summary of what was explored."""

    moments: int = 0
    """The number of crash points."""

    states: int = 0
    """The number of states that crashes at those points leave."""

    images: int = 0
    """The number of different disk images among those states. Each was opened."""

    def __add__(self, other: ExplorationReport) -> ExplorationReport:
        return ExplorationReport(
            self.moments + other.moments, self.states + other.states, self.images + other.images
        )


class Moment(NamedTuple, Generic[M]):
    """A crash point, and what had been appended and promised then."""

    step: Step
    history: History[M]
    last_lsn: int
    safe_lsn: int
    alive_lsn: int


class MomentRecorder(Owner[M]):
    """An owner each of whose moments is put down."""

    def __init__(
        self,
        machine: Callable[[], M],
        moments: list[Moment[M]],
        *,
        options: Options,
        disk: SimulatedDisk | None,
        path: str,
        history: History[M] | None,
    ) -> None:
        disk = disk or SimulatedDisk()
        disk.watch = self.look
        self.moments = moments
        super().__init__(machine, options=options, disk=disk, path=path, history=history)

    def look(self, operation: Mutation | None = None, path: str = "") -> None:
        step = Step(operation, path, self.disk.snapshot())
        promised = self.promised()
        self.moments.append(Moment(step, self.history, self.last_lsn, *promised))

    def kill(self) -> None:
        self.look()
        super().kill()
        self.history = self.history.until(self.last_lsn)  # from here on it is another one

    def power_cut(self, outcome: Outcome = lose) -> None:
        self.look()
        super().power_cut(outcome)
        self.history = self.history.until(self.last_lsn)


def explore(
    machine: Callable[[], M],
    workload: Callable[[Owner[M]], None],
    *,
    options: Options = ManualOptions(),
    bounds: Bounds = _BOUNDS,
    path: str = "/journal",
    only: int | None = None,
) -> ExplorationReport:
    """Run `workload` once, with the Owner of a new `machine()`; then judge every crash.

    The workload may use `owner.state` as any program does, and `owner.disk`; it may crash and
    reopen by itself. If it is deterministic, so is all of this. `only`: that moment alone, by the
    number that a failure tells. Raises BrokenPromiseError, an AssertionError.
    """
    explorer = _Explorer(machine, options, bounds, path)
    moments: list[Moment[M]] = []
    number = None
    with quiet():
        try:
            explorer.record(workload, moments)
            for number, moment in enumerate(moments):
                if only is None or number == only:
                    explorer.judge(moment)
        except BrokenPromiseError as error:
            raise BrokenPromiseError(_describe_failure(error, moments, number)) from error
    return explorer.report


class _Explorer(Generic[M]):
    def __init__(
        self, machine: Callable[[], M], options: Options, bounds: Bounds, path: str
    ) -> None:
        self.report = ExplorationReport()
        self._machine = machine
        self._options = options
        self._bounds = bounds
        self._path = path
        self._judges: dict[int, Judge[M]] = {}  # one a history
        self._seen: set[object] = set()
        self._images = 0

    def record(
        self,
        workload: Callable[[Owner[M]], None],
        moments: list[Moment[M]],
        disk: SimulatedDisk | None = None,
        history: History[M] | None = None,
    ) -> None:
        """Run the workload, and put down each moment of it."""
        options, path = self._options, self._path
        with MomentRecorder(
            self._machine, moments, options=options, disk=disk, path=path, history=history
        ) as owner:
            workload(owner)
            owner.look()

    def judge(self, moment: Moment[M]) -> None:
        """Each crash at one moment."""
        judge = self._judges.get(id(moment.history))
        if judge is None:
            judge = Judge(moment.history, self._options, self._path, self._bounds, self._opened)
            self._judges[id(moment.history)] = judge
        step, last_lsn, safe_lsn = moment.step, moment.last_lsn, moment.safe_lsn
        key = fingerprint(step.medium.folders.get(self._path)), moment[1:]
        if key in self._seen and step.operation != "sync":
            return
        self._seen.add(key)
        states, images = judge.states, len(judge.lsns)
        judge.power_cuts(step, safe_lsn, last_lsn)
        judge.kill(step, moment.alive_lsn, last_lsn, safe_lsn=safe_lsn)
        if step.operation == "sync":
            judge.failed_syncs(step, safe_lsn, last_lsn)
        self.report += ExplorationReport(1, judge.states - states, len(judge.lsns) - images)

    def _opened(self, judge: Judge[M], image: Image, lsn: int) -> None:
        """An image was seen for the first time: once in a while look closer."""
        self._images += 1
        if self._bounds.rot and not self._images % self._bounds.rot:
            judge.rot(image, lsn)
        if self._bounds.sequels and not self._images % self._bounds.sequels:
            self._sequel(judge.history, image, lsn)

    def _sequel(self, history: History[M], image: Image, lsn: int) -> None:
        """Go on from an image, as the first life did, and explore that life too."""
        records = history.records(lsn, lsn + _SEQUEL_RECORDS)

        def work(owner: Owner[M]) -> None:
            for record in records:
                owner.append(record)
                owner.wait()
                owner.idle()
            owner.compact()
            owner.close()

        bounds = replace(self._bounds, sequels=0, rot=0)
        inner = _Explorer(self._machine, self._options, bounds, self._path)
        moments: list[Moment[M]] = []
        try:
            inner.record(work, moments, SimulatedDisk(image.medium), history.until(lsn))
            for moment in moments:
                inner.judge(moment)
        except BrokenPromiseError as error:
            error.add_note("in the life that follows, up to 3 commits, a compaction and a close")
            raise
        self.report += inner.report


def _describe_failure(
    error: BrokenPromiseError, moments: list[Moment[Any]], number: int | None
) -> str:
    """All that one needs to see it, and to see it again."""
    lines = [str(error), *reversed(getattr(error, "__notes__", []))]
    if number is None:
        lines.append("This was in the workload itself, at its end so far.")
    else:
        moment = moments[number]
        lines.append(
            f"{moment.last_lsn} records had been appended; no power cut may take the first "
            f"{moment.safe_lsn}, no kill the first {moment.alive_lsn}. Again: only={number}"
        )
    lines.append("What had been done to the disk:")
    for index, (step, *_) in enumerate(moments[:number]):
        lines.append(f"{index:5} {step.operation or 'crash'} {step.path}")
    return "\n".join(lines)
