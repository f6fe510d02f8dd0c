"""The data of a report: one pass over the entries, the findings of verify, the files on disk.

The number of remaining agents bounds the memory, not the length of the log: commits are counted in
at most STEPS_MAX steps of time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from journal import (
    Checkpoint,
    CompactedError,
    CorruptionError,
    DamageReason,
    Entry,
    Finding,
    JournalReader,
    LargeRecord,
    SegmentInfo,
)
from journal_inspect.diagnosis.damage import last_good_lsn, preview_of
from journal_inspect.diagnosis.mirrored import mirror_of
from journal_inspect.diagnosis.recovery import Recovery, recovery_of
from journal_inspect.diagnosis.retention import list_checkpoints, list_files
from journal_inspect.rendering.entries import report_large
from journal_inspect.rendering.kinds import is_boot, is_managers_application, kind_of
from journal_inspect.report.fleet import FleetTimeline

STEPS_MAX = 300
_S, _MIN, _H, _D = 1000, 60_000, 3_600_000, 86_400_000
# The steps of time in which commits are counted. Each is a multiple of the one before it.
STEPS_MS = (
    *(1, 2, 10, 20, 100, 200, _S, 2 * _S, 10 * _S, 30 * _S),
    *(_MIN, 5 * _MIN, 10 * _MIN, 30 * _MIN, _H, 6 * _H, _D, 7 * _D, 28 * _D, 364 * _D),
)
KINDS_MAX = 24
FINDINGS_MAX = 100
OTHER = "(other kinds)"
_KIND_LENGTH_MAX = 60
_ATTEMPTS = 5


@dataclass(slots=True)
class Step:
    """The commits of one step of time."""

    commits: int = 0
    records: int = 0
    largest: int = 0  # records in the largest commit
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, other: Step) -> None:
        self.commits += other.commits
        self.records += other.records
        self.largest = max(self.largest, other.largest)
        self.kinds.update(other.kinds)


class Commits:
    """The commits over time, in steps that are widened when there are more than STEPS_MAX."""

    def __init__(self) -> None:
        self.total = Step()
        self.step_ms = STEPS_MS[0]
        self.first_ms = self.last_ms = 0
        self._steps: dict[int, Step] = {}

    def add(self, at_ms: int, kinds: Mapping[str, int]) -> int:
        """Count a commit, and return its number of records. `kinds`: those of each kind."""
        if not self._steps:
            self.first_ms = self.last_ms = at_ms
        if not self.first_ms <= at_ms <= self.last_ms:
            self.first_ms, self.last_ms = min(self.first_ms, at_ms), max(self.last_ms, at_ms)
            while self.last_ms // self.step_ms - self.first_ms // self.step_ms >= STEPS_MAX:
                self._widen()
        number = at_ms // self.step_ms
        step, total = self._steps.get(number) or self._steps.setdefault(number, Step()), self.total
        known, of_step, records = total.kinds, step.kinds, 0
        for kind, count in kinds.items():
            if kind not in known:
                kind = kind[:_KIND_LENGTH_MAX]
                kind = kind if kind in known or len(known) < KINDS_MAX else OTHER
            # A Counter that lacks a key calls a Python function, which takes as long as the rest.
            of_step[kind] = of_step.get(kind, 0) + count
            known[kind] = known.get(kind, 0) + count
            records += count
        step.commits += 1
        step.records += records
        total.commits += 1
        total.records += records
        if records > step.largest:
            step.largest = records
            total.largest = max(total.largest, records)
        return records

    def steps(self) -> list[tuple[int, Step]]:
        """Return the begin (Unix ms) and the contents of each step that has commits."""
        return [(number * self.step_ms, step) for number, step in sorted(self._steps.items())]

    def _widen(self) -> None:
        narrow, self._steps = self._steps, {}
        wider = next(
            (candidate for candidate in STEPS_MS if candidate > self.step_ms), self.step_ms * 10
        )
        for number, step in narrow.items():
            self._steps.setdefault(number * self.step_ms // wider, Step()).add(step)
        self.step_ms = wider


@dataclass(slots=True)
class Log:
    """The contents of the log. `fleet` is None unless a manager wrote it."""

    commits: Commits = field(default_factory=Commits)
    fleet: FleetTimeline | None = None
    first_lsn: int = 0
    last_lsn: int = 0
    damage: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Findings:
    """The first findings of verify, and the number of findings of each kind."""

    first: list[Finding]
    counts: Counter[str]
    last_good_lsn: int


@dataclass(frozen=True, slots=True)
class Observed:
    """The state of a journal at the moment of the report."""

    path: str
    observed_at_ms: int
    writer_pid: int | None
    journal_id: str | None
    log: Log
    findings: Findings
    segments: list[SegmentInfo]
    checkpoints: list[Checkpoint]  # newest first; closed
    recovery: Recovery
    mirror: str | None  # the address of the mirror with which an open would fix the directory

    @property
    def is_damaged(self) -> bool:
        return bool(self.findings.counts["corruption"] or self.log.damage)

    @property
    def is_only_marker_damaged(self) -> bool:
        """True if the file MIRROR is damaged, and nothing else is."""
        reasons = {each.reason for each in self.findings.first}
        return self.findings.counts.total() == 1 and reasons == {DamageReason.MIRROR_DAMAGED}


def observe(reader: JournalReader, progress: Callable[[int], object] | None = None) -> Observed:
    """Read everything that a report shows. `progress` is called with the records that were read.

    Raises FileNotFoundError or CompactedError if a writer compacts faster than the report can read.
    """
    writer_pid, now_ms = reader.writer_pid, time.time_ns() // 1_000_000
    log = _read_log(reader, progress or _ignore)
    if log.fleet:
        last_ms = max((life.agent["updated_at_ms"] for life in log.fleet.lives.values()), default=0)
        end_ms = max(last_ms, log.fleet.alive_ms, 0 if writer_pid is None else now_ms)
        log.fleet.finish(end_ms, is_live=writer_pid is not None)
    # Without a writer, the files do not change, and the pass over them serves both. The checkpoints
    # are listed first, as by `list_files`.
    checkpoints, segments = list_checkpoints(reader), list[SegmentInfo]()
    findings = _verify(reader, segments)
    if writer_pid is not None or reader.live:
        segments, checkpoints = list_files(reader)
    # A misnamed checkpoint counts as corruption if the log does not reach its name.
    is_bad = any(findings.counts[kind] for kind in ("bad_checkpoint", "corruption"))
    return Observed(
        path=reader.path,
        observed_at_ms=now_ms,
        writer_pid=writer_pid,
        journal_id=reader.journal_id or (checkpoints[0].journal_id if checkpoints else None),
        log=log,
        findings=findings,
        segments=segments,
        checkpoints=checkpoints,
        recovery=recovery_of(reader, segments, checkpoints, may_be_bad=is_bad),
        mirror=mirror_of(reader.path),
    )


def _ignore(records: int) -> None:
    pass


def _read_log(reader: JournalReader, progress: Callable[[int], object]) -> Log:
    for attempt in range(_ATTEMPTS):
        checkpoints = reader.checkpoints()
        try:
            return _Pass(reader, checkpoints, progress).run()
        except (CompactedError, FileNotFoundError):  # compacted during the pass
            if attempt == _ATTEMPTS - 1:
                raise
        finally:
            for checkpoint in checkpoints:
                checkpoint.close()
    raise AssertionError


class _Pass:
    """A pass over the entries that are kept.

    The fleet begins with the first state that can be rebuilt. After damage, the pass continues from
    the next checkpoint.
    """

    def __init__(
        self,
        reader: JournalReader,
        checkpoints: list[Checkpoint],
        progress: Callable[[int], object],
    ) -> None:
        self._reader = reader
        self._progress = progress
        self._log = Log()
        self._after = min(reader.first_lsns, default=1) - 1
        self._fleet_lsn = 0  # records up to this LSN are already in the fleet
        self._checkpoints = sorted(checkpoints, key=lambda checkpoint: checkpoint.lsn)
        if any(is_managers_application(checkpoint.application) for checkpoint in checkpoints):
            self._log.fleet = FleetTimeline()
        if self._after:
            first_lsn = reader.first_state_lsn
            for base in (
                checkpoint for checkpoint in self._checkpoints if checkpoint.lsn == first_lsn
            ):
                self._load(base)

    def run(self) -> Log:
        log = self._log
        while True:
            try:
                self._take(self._reader.entries(self._after))
                return log
            except CorruptionError as error:
                log.damage.append(str(error))
                read_lsn = max(log.last_lsn, self._after)
                next_checkpoint = next(
                    (checkpoint for checkpoint in self._checkpoints if checkpoint.lsn > read_lsn),
                    None,
                )
                if not next_checkpoint:
                    return log
                self._after = next_checkpoint.lsn
                self._load(next_checkpoint)

    def _load(self, checkpoint: Checkpoint) -> None:
        self._fleet_lsn = checkpoint.lsn
        if self._log.fleet:
            try:
                self._log.fleet.load(checkpoint.items())
            except CorruptionError as error:  # verify reports it too
                self._log.damage.append(str(error))

    def _take(self, entries: Iterator[Entry]) -> None:
        """Take the entries and count them by commit, even those of the last one before damage."""
        log, at_ms, kinds = self._log, 0, dict[str, int]()
        path, offset, lsn = None, None, log.last_lsn
        try:
            for entry in entries:
                record = entry.record
                if type(record) is LargeRecord and report_large(self._reader, entry):
                    continue
                if entry.offset != offset or entry.path != path:
                    self._end_commit(at_ms, kinds)
                    path, offset, kinds = entry.path, entry.offset, {}
                    at_ms = entry.written_at_ns // 1_000_000
                    log.first_lsn = log.first_lsn or entry.lsn
                    if log.fleet is None and is_boot(record):
                        log.fleet = FleetTimeline()
                kind = record[0] if type(record) is list and record else None
                if type(kind) is not str or not kind:
                    kind = kind_of(record)
                kinds[kind] = kinds.get(kind, 0) + 1
                lsn = entry.lsn
                if log.fleet and lsn > self._fleet_lsn and not entry.is_filler:
                    log.fleet.apply(record)
        finally:
            log.last_lsn = lsn
            self._end_commit(at_ms, kinds)

    def _end_commit(self, at_ms: int, kinds: Mapping[str, int]) -> None:
        if kinds:
            self._progress(self._log.commits.add(at_ms, kinds))
            fleet = self._log.fleet
            if fleet and at_ms > fleet.alive_ms:
                fleet.alive_ms = at_ms


def _verify(reader: JournalReader, segments: list[SegmentInfo]) -> Findings:
    """Return the findings. Append the report on each segment to `segments`."""
    first: list[Finding] = []
    counts: Counter[str] = Counter()
    lost_lsn: int | None = None
    for finding in reader.verify(segments=segments):
        counts[finding.kind] += 1
        if len(first) < FINDINGS_MAX:
            first.append(finding)
        if finding.kind == "corruption" and finding.lsn:
            lost_lsn = min(finding.lsn, lost_lsn or finding.lsn)
    preview = preview_of(reader) if counts["corruption"] else None
    return Findings(first, counts, last_good_lsn(reader, lost_lsn, preview))
