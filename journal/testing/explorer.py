"""The crash explorer: runs a workload once, and judges every crash that could have struck it.

    def work(owner: Owner[Jobs]) -> None:
        owner.append(["queued", "a"])
        owner.wait()
        owner.append_batch([["done", "a"], ["queued", "b"]])
        owner.compact()
        owner.reopen()

    report = explore(Jobs, work)
    assert report.states > 500

The workload runs on the real engine, over a simulated disk. Before each change of that disk, the
explorer copies the machine's page cache and disk, and notes what has been promised. Then it crashes
each copy in every legal way (see `Bounds`):

- a power cut, which leaves each unsynced write and name in any state;
- a kill of the process, followed by a second crash at any step of the recovery;
- a failed sync, followed by a kill.

The engine opens the image that each crash leaves. Recovery must hold P1 to P6: it yields whole
batches in order, no promised record is missing, the state is the one that a replay gives, and
`verify` reports no damage. This must hold after crashes during the recovery, too. Then the journal
must accept another record and keep it. An image that occurs several times is opened once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

from journal._state.state_machine import StateMachine
from journal.options import Options
from journal.testing.arguments import check_has_run, check_whole, check_workload, journal_path
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
    """The size of an exploration. Two reports can be added."""

    moments: int = 0
    """The number of crash points."""

    states: int = 0
    """The number of crashes that were judged, at those points and within recoveries."""

    images: int = 0
    """The number of different images that power cuts leave. Each was opened once."""

    def __add__(self, other: ExplorationReport) -> ExplorationReport:
        return ExplorationReport(
            self.moments + other.moments, self.states + other.states, self.images + other.images
        )


class Moment(NamedTuple, Generic[M]):
    """A crash point, with the records appended by then and the LSNs promised by then."""

    step: Step
    history: History[M]
    last_lsn: int
    safe_lsn: int
    alive_lsn: int


class MomentRecorder(Owner[M]):
    """An owner that records a moment before each change of its disk."""

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
        disk.watch = self.record_moment
        self.moments = moments
        super().__init__(machine, options=options, disk=disk, path=path, history=history)

    def record_moment(self, operation: Mutation | None = None, path: str = "") -> None:
        step = Step(operation, path, self.disk.snapshot())
        promised = self.promised()
        self.moments.append(Moment(step, self.history, self.last_lsn, *promised))

    def kill(self) -> None:
        self.record_moment()
        super().kill()
        # The moments before the crash keep the history that holds the records it lost.
        self.history = self.history.until(self.last_lsn)

    def power_cut(self, outcome: Outcome = lose) -> None:
        self.record_moment()
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
    """Run `workload` once and judge every crash that could have struck it.

    machine: makes a new state machine, for example its class. workload: is called with an open
    Owner. It may use `owner.state` as any program does, and `owner.disk`, and it may crash and
    reopen the owner. If it is deterministic, so is the exploration. options: the options of the
    journal. bounds: the extent of the exploration. path: the directory of the journal on the
    simulated disk. only: judge just the crash point with this number, which a failure reports.

    Raises BrokenPromiseError, an AssertionError, if a promise does not hold. It describes the crash
    and the operations before it. Raises TypeError for a `workload` that would run later, such as a
    coroutine or generator function, and ValueError if there is no crash point `only`.
    """
    check_workload(workload)
    if not isinstance(bounds, Bounds):
        raise TypeError(f"bounds must be Bounds(...), not {bounds!r:.200}")
    if only is not None:
        check_whole("only", only)
    explorer = _Explorer(machine, options, bounds, journal_path(path))
    moments: list[Moment[M]] = []
    number = None
    with quiet():
        try:
            explorer.record(workload, moments)
            count = len(moments)
            if only is not None and only >= count:
                raise ValueError(
                    f"only must be a crash point's number, from 0 to {count - 1}: this workload "
                    f"has {count}, not {only}"
                )
            for number, moment in enumerate(moments):
                if only is None or number == only:
                    explorer.judge(moment)
        except BrokenPromiseError as error:
            again = f" To repeat just this crash point, pass only={number}"
            raise BrokenPromiseError(describe_failure(error, moments, number, again)) from error
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
        self._judges: dict[int, Judge[M]] = {}  # by the id() of their history
        self._seen: set[object] = set()

    def record(
        self,
        workload: Callable[[Owner[M]], None],
        moments: list[Moment[M]],
        disk: SimulatedDisk | None = None,
        history: History[M] | None = None,
    ) -> None:
        """Run the workload, and add each of its crash points to `moments`."""
        options, path = self._options, self._path
        work: Callable[[Owner[M]], object] = workload  # of whatever it returns by mistake
        with MomentRecorder(
            self._machine, moments, options=options, disk=disk, path=path, history=history
        ) as owner:
            check_has_run(work(owner))
            owner.record_moment()

    def judge(self, moment: Moment[M]) -> None:
        """Judge each crash at one moment."""
        judge = self._judges.get(id(moment.history))
        if judge is None:
            judge = Judge(moment.history, self._options, self._path, self._bounds, self._opened)
            self._judges[id(moment.history)] = judge
        step, last_lsn, safe_lsn = moment.step, moment.last_lsn, moment.safe_lsn
        key = fingerprint(step.medium._folders.get(self._path)), moment[1:]
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
        """Explore rot and a sequel of a new image, if it is among those that Bounds selects."""
        if image.is_one_in(self._bounds.rot):
            judge.rot(image, lsn)
        if image.is_one_in(self._bounds.sequels):
            self._sequel(judge.history, image, lsn)

    def _sequel(self, history: History[M], image: Image, lsn: int) -> None:
        """Continue from an image with the next records of the history, and explore that too."""
        records = history._changes(lsn, lsn + _SEQUEL_RECORDS)

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
            error.add_note("in the sequel of the image: up to 3 commits, a compaction and a close")
            raise
        self.report += inner.report


def describe_failure(
    error: BrokenPromiseError, moments: list[Moment[Any]], number: int | None, again: str = ""
) -> str:
    """Describe the broken promise and the crash. `again` says how to repeat it."""
    lines = [str(error), *reversed(getattr(error, "__notes__", []))]
    if number is None:
        lines.append("The workload itself failed, after the operations listed below.")
    else:
        moment = moments[number]
        lines.append(
            f"{moment.last_lsn} records had been appended. No power cut may lose the first "
            f"{moment.safe_lsn}, and no kill the first {moment.alive_lsn}.{again}"
        )
    lines.append("Operations on the disk before it:")
    for index, (step, *_) in enumerate(moments[:number]):
        lines.append(f"{index:5} {step.operation or 'crash'} {step.path}")
    return "\n".join(lines)
