"""Recovery preview: a forecast of the next open, which changes nothing.

It says whether a journal would open, and where the log ends. If the open would refuse, the log ends
where a repair would cut it: before the first damage that matters, once the files that only prevent
an open are set aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from journal._disk.disk import ReadableDirectory
from journal._format.checkpoint import CHECKPOINTS_KEPT_MIN, Checkpoint
from journal._format.layout import EPOCH_MAX, LSN_MAX
from journal._format.record import check_spans
from journal._format.segment import SegmentName, segment_names, segments_after
from journal._format.segment_info import SegmentInfo
from journal._offline.fixes import FixedDirectory, Fixes, plan_fixes
from journal._public import public
from journal._recovery.checkpoints import find_checkpoints
from journal._recovery.plan import Plan
from journal._recovery.recovery import covered_files, decide, walk_log
from journal._recovery.stray_segments import Identity, stray_segments
from journal._recovery.walk import Walk
from journal.errors import CorruptionError, DamageReason, Refusal


@public
@dataclass(frozen=True, slots=True)
class RecoveryPreview:
    """A forecast of the next open of a journal that no writer has open.

    The forecast assumes an open that keeps two checkpoints, and so does not read older ones.
    """

    problem: str | None
    """The reason why the journal does not open, in words. None if it opens."""

    checkpoint_lsn: int
    """The LSN of the checkpoint from which recovery starts; 0 if it starts from nothing."""

    last_lsn: int
    """The last LSN that an open recovers, or that a repair keeps if the journal does not open."""

    has_no_start: bool
    """True if neither a checkpoint nor the beginning of the log is left. Then no repair helps."""

    aside: tuple[str, ...]
    """The names of the files that prevent an open, and that a repair sets aside. They hold no
    records of the log."""

    evidence_lsn: int
    """The highest LSN that a checkpoint, even a damaged one, proves that the log once reached."""

    refusal: Refusal | None = None
    """The same as `problem`, in fields for programs."""

    fixes: int = 0
    """The number of files that a repair can fix without any loss: it gives them the names of what
    they contain, or rebuilds damaged headers of segments."""

    is_cut: bool = False
    """True if the journal does not open, and a repair has to cut records off."""


@public
def preview_recovery(
    segments: Sequence[SegmentInfo],
    checkpoints: Sequence[Checkpoint],
    journal_id: str | None = None,
) -> RecoveryPreview:
    """Return a preview that is made only from `segments`, oldest first, and from the `checkpoints`
    that verify, newest first.

    `journal_id`: the journal to which the checkpoints must belong (None: any). No file is read, so
    a writer may be live, and `aside` stays empty. Three problems go unseen for which an open
    refuses: no segment exists, but a damaged checkpoint proves that there was a log; a checkpoint
    has the name of a later one; or the segment that continues an older checkpoint has a damaged
    header. `JournalReader.preview_recovery` finds them.
    """
    paths = [*(file.path for file in segments), *(file.path for file in checkpoints), ""]
    path = paths[0].rpartition("/")[0]
    plan = Plan(path, segments, checkpoints)
    log = [segment for segment in segments if segment.state != "stray"]
    last_lsn = max(map(_end_lsn, log), default=0)
    error = (
        next(filter(None, (_damage(file, plan.base_lsn) for file in plan.segments)), None)
        or plan.missing()
        or Walk(path, plan.base_lsn, next_lsn=last_lsn + 1).cut_short()
        or plan.foreign_to(journal_id)
        or plan.exhausted()
    )
    return RecoveryPreview(
        problem=str(error) if error else None,
        checkpoint_lsn=plan.base_lsn,
        last_lsn=last_lsn,
        has_no_start=not checkpoints and bool(log) and log[0].first_lsn > 1,
        aside=(),
        evidence_lsn=plan.base_lsn,
        refusal=error.refusal if error else None,
    )


def _damage(segment: SegmentInfo, base_lsn: int) -> CorruptionError | None:
    """Return an error if the segment lacks a record that the checkpoint at `base_lsn` does not
    cover."""
    if segment.state == "stray":
        problem, reason = "the segment does not belong to this log", DamageReason.OUT_OF_PLACE
        return CorruptionError(segment.path, 0, 0, problem, reason=reason)
    lsns = [first for first, last in segment.unreadable if last > base_lsn or not last]
    if not lsns:
        return None
    reason = DamageReason.SEGMENT_DAMAGED
    return CorruptionError(segment.path, 0, lsns[0], "the segment is damaged", reason=reason)


def _end_lsn(segment: SegmentInfo) -> int:
    # A segment may hold no whole record. Then its first LSN says where the log before it ended.
    return segment.last_lsn or segment.first_lsn - 1


class RecoveryDryRun:
    """A trial of recovery, which changes no file. It starts again with the files as a repair would
    fix them, and after files were set aside. `directory` shows the fixed files."""

    def __init__(self, directory: ReadableDirectory) -> None:
        self.aside: list[str] = []
        self.last_lsn = 0
        self.fixes = Fixes()
        self._look_at(directory)
        error = first = self._try_recovery()
        if error:
            self.fixes = plan_fixes(directory, self.checkpoints.misnamed.values())
            if self.fixes.sources:
                self._look_at(FixedDirectory(directory, self.fixes))
                error = self._try_recovery()
        while error and self._set_aside_cause(error):
            error = self._try_recovery()
        self.problem = str(first) if first else None
        self.refusal = first.refusal if first else None
        # Find the older checkpoints that belong to another journal than the newest one, which an
        # open takes. An open does not read them now. But after a cut they may be among the newest:
        # then an open would read them, and refuse.
        good = [] if error else self.checkpoints.good
        foreign = (each for each in good if each.journal_id != good[0].journal_id)
        self._unread_foreign = [_name_of(checkpoint.path) for checkpoint in foreign]
        for name in self._unread_foreign:
            self.checkpoints.forget(name)
        self.is_refused = error is not None
        if error:
            self.set_aside_for_cut(self.last_lsn)

    def _look_at(self, directory: ReadableDirectory) -> None:
        self.directory = directory
        self.names = directory.names()
        self.segments = self.all_segments = segment_names(self.names)
        self.checkpoints = find_checkpoints(directory, self.names, len(self.names))
        self.checkpoints.close()

    def set_aside_for_cut(self, end_lsn: int) -> None:
        """Set aside the files that would prevent an open after a cut at `end_lsn`."""
        self._set_aside(self._unread_foreign)
        self._unread_foreign = []
        while (error := self._try_cut(end_lsn)) and self._set_aside_cause(error, end_lsn):
            pass

    def last_lsn_after_cut(self, end_lsn: int) -> int:
        """Return the last LSN that an open would reach after a cut at `end_lsn`."""
        good = [checkpoint for checkpoint in self.checkpoints.good if checkpoint.lsn <= end_lsn]
        segments = [name for name in self.segments if name.first_lsn <= end_lsn]
        plan = Plan(self.directory.path, segments, good)
        reached_lsn = plan.base_lsn
        with suppress(CorruptionError):
            for batch in walk_log(self.directory, plan, 0, check_spans):
                reached_lsn = batch.last_lsn
        return reached_lsn

    def has_no_start(self, last_lsn: int) -> bool:
        """Return whether neither a checkpoint up to `last_lsn` nor the log's beginning is left."""
        is_checkpoint = any(lsn <= last_lsn for lsn in self.checkpoints.verified_lsns)
        return not is_checkpoint and bool(self.segments) and self.segments[0].first_lsn > 1

    def journal_id(self) -> bytes:
        """Return the journal's id, as the remaining files state it, or no bytes if none does."""
        return Identity(self.directory, self.segments, self._journal_ids()).journal_id

    def preview_recovery(self) -> RecoveryPreview:
        """Return the results of the trial."""
        return RecoveryPreview(
            problem=self.problem,
            checkpoint_lsn=self.checkpoints.base_lsn,
            last_lsn=self.last_lsn,
            has_no_start=self.has_no_start(self.last_lsn),
            aside=tuple(self.aside),
            evidence_lsn=self.checkpoints.evidence,
            refusal=self.refusal,
            fixes=len(self.fixes.sources),
            is_cut=self.is_refused,
        )

    def _try_recovery(self) -> CorruptionError | None:
        """Return the error with which an open of the remaining files would refuse, or None. Set
        `last_lsn`."""
        self.last_lsn = self.checkpoints.base_lsn
        place = self.directory, self.names, self.checkpoints
        try:
            for batch in decide(*place, CHECKPOINTS_KEPT_MIN, check_spans):
                self.last_lsn = batch.last_lsn
        except CorruptionError as error:
            return error
        return None

    def _try_cut(self, end_lsn: int) -> CorruptionError | None:
        """Return the error with which an open after a cut at `end_lsn` would refuse to remove the
        covered files, or None."""
        verified = [lsn for lsn in self.checkpoints.verified_lsns if lsn <= end_lsn]
        segments = [name for name in self.segments if name.first_lsn <= end_lsn]
        names = [*map(str, segments), str(SegmentName(end_lsn + 1, EPOCH_MAX))]
        try:
            covered_files(self.directory, names, verified, CHECKPOINTS_KEPT_MIN)
        except CorruptionError as error:
            return error
        except FileNotFoundError:  # the first segment needed is the cut, which is not made yet
            return None
        return None

    def _set_aside_cause(self, error: CorruptionError, end_lsn: int = LSN_MAX) -> bool:
        """Set aside the files that may have caused `error`, and return whether there are any.

        These are all stray segments and all checkpoints of another journal. If there are none, it
        is the segment that the error names, if a checkpoint up to `end_lsn` covers that segment.
        """
        names = list(map(str, stray_segments(self.directory, self.segments, self._journal_ids())))
        names += self._foreign()
        if not names:
            name = _name_of(error.path)
            lsns = self.checkpoints.verified_lsns
            base_lsn = max((lsn for lsn in lsns if lsn <= end_lsn), default=0)
            needed = segments_after(self.segments, base_lsn)
            if name not in self.names or name in map(str, needed):
                return False
            names = [name]
        self._set_aside(names)
        return True

    def _foreign(self) -> list[str]:
        """Return the names of the checkpoints that belong to another journal than most files."""
        own_id = self.journal_id()
        pairs = zip(self.checkpoints.good, self._journal_ids(), strict=True)
        return [_name_of(checkpoint.path) for checkpoint, each_id in pairs if each_id != own_id]

    def _journal_ids(self) -> list[bytes]:
        return [bytes.fromhex(checkpoint.journal_id) for checkpoint in self.checkpoints.good]

    def _set_aside(self, names: list[str]) -> None:
        """Take the files out of the trial, and add them to `aside`."""
        for name in names:
            self.aside.append(name)
            self.names.remove(name)
            self.checkpoints.forget(name)
        self.segments = segment_names(self.names)


def _name_of(path: str) -> str:
    return path.rpartition("/")[2]
