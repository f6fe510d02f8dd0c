"""Repair: fixes of files, a cut of the log, and salvage. This is the only writer beside the engine.

Wrong names of files and damaged headers of segments are fixed first, because that loses nothing. A
cut changes no file. It is made as recovery would make it: a new segment of the next epoch, whose
first LSN is the first one lost. Later segments and checkpoints would contradict the cut, so they
are copied to a separate directory, and then removed. So are files that only prevent an open, which
costs no record. Finally, the repair checks that the journal opens.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import count

from journal._commit.writer import Writer
from journal._disk.disk import Directory, Disk, StrPath
from journal._disk.posix import disk_or_default, path_of
from journal._format.layout import EPOCH_MAX
from journal._format.segment import Segment, segment_names
from journal._names import MIRROR
from journal._offline.backup import copy_file
from journal._offline.fixes import apply_fixes
from journal._offline.place_check import check_place
from journal._offline.reader import JournalReader
from journal._offline.recovery_preview import RecoveryDryRun
from journal._offline.salvaged import SalvagedFrame, read_origin
from journal._offline.salvaging import frames_past_cut, write_salvage
from journal._public import public
from journal._recovery.recovery import sync_before_trust
from journal._recovery.walk import ReplayBatch, Walk
from journal._waits import check_flag, check_lsn
from journal.errors import (
    CompactedError,
    CorruptionError,
    CutError,
    CutReason,
    DamageReason,
    JournalError,
    Refusal,
    SavePlaceError,
    UnsafePathError,
)
from journal.options import Options

_EPOCH_HUGE = EPOCH_MAX // 2  # no journal gets so far, but a file of another one may have any name


@public
@dataclass(frozen=True, slots=True)
class RepairReport:
    """The outcome of a repair, or the plan of one that was not applied."""

    path: str
    """The directory of the journal."""

    applied: bool
    """True if the repair was carried out. If False, nothing was changed."""

    problem: str | None
    """The reason why the journal does not open, in words. None if it opens."""

    last_lsn: int
    """The last LSN that is kept."""

    removed: tuple[str, ...]
    """The names of the files that contradict the cut or prevent an open."""

    saved_to: str | None
    """The directory that holds the removed and the fixed files as they were. None if there are
    none."""

    salvaged: tuple[tuple[int, int], ...]
    """The first and the last LSN of the lost records in each valid frame. Frames in a complete
    salvage of an earlier repair are left out."""

    salvaged_to: str | None
    """The journal to which those records were written, in that order and under new LSNs.
    `read_salvaged` yields them with the LSNs that they had. None without `salvage`."""

    refusal: Refusal | None = None
    """The same as `problem`, in fields for programs."""

    rebuilt: tuple[str, ...] = ()
    """The names of the segments whose damaged headers are replaced by the ones that they had."""

    renamed: tuple[tuple[str, str], ...] = ()
    """The renames of segments and checkpoints that had each other's names, or another one: the old
    and the new name."""


@public
def repair(
    path: StrPath,
    *,
    apply: bool = False,
    cut_at: int | None = None,
    salvage: bool = False,
    save_to: StrPath | None = None,
    disk: Disk | None = None,
) -> RepairReport:
    """Make a damaged journal open again, at the price of the records after the damage.

    First, files get the names of what they contain, and damaged headers of segments are rebuilt.
    That costs no record. The log is cut only if the journal still does not open.

    `apply`: carry out the repair. Without it, the repair is only planned and reported.
    `cut_at`: the last LSN to keep, which must be the end of a batch (None: the last good one). A
    journal with a mirror refuses it, because its next open would cut the mirror, too.
    `salvage`: write the lost records that can be read to a new journal beside this one, at
    `path` + ".salvaged-1" or the next number that is free.
    `save_to`: an existing directory in which the copies and the salvaged records are put (None: the
    directory that contains the journal).

    Raises LockedError, NotAJournalError, CutError (the log can't be cut there), CompactedError (the
    cut is older than the records that are kept), CorruptionError (no checkpoint is left from which
    the log could continue), SavePlaceError (no directory for the copies can be made there),
    UnsafePathError (an open refuses the directory, or a file in it that is not regular), and
    JournalError (`cut_at` of a journal with a mirror; or the journal still does not open, and the
    message says where the copies are). Raises TypeError and ValueError for a wrong argument.
    """
    check_flag(apply, "apply")
    check_flag(salvage, "salvage")
    if cut_at is not None:
        check_lsn(cut_at, "cut_at")
    place = None if save_to is None else path_of(save_to, "save_to")
    disk = disk_or_default(disk)
    JournalReader.open(path, disk=disk).close()  # raises NotAJournalError, so that none is created
    directory = disk.open_directory(path, write=apply)  # a plan must not change the mode
    try:
        directory.lock()
        check_place(directory)
        if cut_at is not None:
            _check_unmirrored(directory, cut_at)
        if apply:  # the new segment will state that everything before it is durable
            sync_before_trust(directory, segment_names(directory.names()))
        return _Repair(directory, disk, place).run(apply, cut_at, salvage)
    finally:
        directory.close(unlock=True)


def _check_unmirrored(directory: Directory, cut_at: int) -> None:
    """Raise JournalError if the directory has a mirror.

    The segment that makes the cut is newer than everything in the mirror. So an open would ship it,
    and restores and followers would no longer read the records that it cuts off.
    """
    if MIRROR in directory.names():
        raise JournalError(
            f"{directory.path}: the journal has a mirror, where the next open would cut off the "
            f"records after LSN {cut_at}, too; nothing was changed; restore the mirror up to that "
            f"LSN into a new directory instead: journal-inspect restore URL DIR --lsn {cut_at}, or "
            f"in Python: restore(url, dir, lsn={cut_at}). If the mirror is given up, cut a backup "
            "of the directory, which has no mirror"
        )


class _Repair:
    def __init__(self, directory: Directory, disk: Disk, save_to: str | None) -> None:
        self._directory = directory
        self._save_to = save_to
        self._disk = disk
        self._dry_run = RecoveryDryRun(directory)
        self._journal_id = (self._dry_run.journal_id() or disk.new_id()).hex()

    def run(self, apply: bool, cut_at: int | None, salvage: bool) -> RepairReport:
        problem, refusal = self._dry_run.problem, self._dry_run.refusal
        last_lsn = self._dry_run.last_lsn
        if cut_at is not None:
            last_lsn = self._check_cut(cut_at, last_lsn)
            self._dry_run.set_aside_for_cut(cut_at)
        fixes = self._dry_run.fixes
        is_past_end = self._dry_run.is_refused or self._dry_run.aside or not fixes.sources
        cut = (problem is not None and bool(is_past_end)) or cut_at is not None
        removed = self._files_past_cut(last_lsn) if cut else []
        earlier = self._salvaged_before()
        lost = [
            (batch, SalvagedFrame.of(batch, is_lost=is_lost))
            for batch, is_lost in frames_past_cut(self._dry_run, last_lsn)
        ]
        lost = [(batch, frame) for batch, frame in lost if frame.identity not in earlier]
        saved_to = salvaged_to = None
        if apply and salvage and lost:
            salvaged_to = self._salvage(lost)
        if apply and (removed or fixes.sources):
            old_names = {new: old for old, new in fixes.renamed}
            changed = {*fixes.sources, *(old_names.get(name, name) for name in removed)}
            saved_to = self._save(sorted(changed))
        if apply and fixes.sources:
            apply_fixes(self._directory, fixes)
        if apply and cut:
            self._cut(last_lsn, removed)
        if apply and (cut or fixes.sources):
            self._check_opens(saved_to)
        return RepairReport(
            path=self._directory.path,
            applied=apply,
            problem=problem,
            last_lsn=last_lsn,
            removed=tuple(removed),
            saved_to=saved_to,
            salvaged=tuple((batch.first_lsn, batch.last_lsn) for batch, _ in lost),
            salvaged_to=salvaged_to,
            refusal=refusal,
            rebuilt=tuple(name for name, _ in fixes.headers),
            renamed=fixes.renamed,
        )

    def _check_opens(self, saved_to: str | None) -> None:
        if refusal := RecoveryDryRun(self._directory).refusal:
            path, place = self._directory.path, f"{refusal.path}: offset {refusal.offset}"
            copies = f"; copies of the removed files are in {saved_to}" if saved_to else ""
            raise JournalError(
                f"{path}: the log was cut, but the journal still does not open: {place}: "
                f"{refusal.what}{copies}; restore a backup, or see what is left: "
                f"journal-inspect log {path}"
            )

    def _check_cut(self, cut_at: int, good_lsn: int) -> int:
        dry_run = self._dry_run
        if cut_at > good_lsn:
            ends = good_lsn, good_lsn
        elif cut_at in (good_lsn, *dry_run.checkpoints.verified_lsns):
            ends = cut_at, cut_at
        else:
            ends = self._batch_ends_at(cut_at)
        if cut_at not in ends:
            raise CutError(
                cut_at,
                good_lsn,
                reason=CutReason.NO_BATCH_END,
                at_most=max((end for end in ends if end < cut_at), default=None),
                at_least=min((end for end in ends if end > cut_at), default=None),
            )
        if not dry_run.has_no_start(cut_at) and dry_run.last_lsn_after_cut(cut_at) < cut_at:
            raise CutError(
                cut_at,
                good_lsn,
                reason=CutReason.AFTER_DAMAGE,
                at_most=dry_run.last_lsn_after_cut(cut_at),
                at_least=dry_run.checkpoints.base_lsn,
            )
        return cut_at

    def _batch_ends_at(self, lsn: int) -> tuple[int, int]:
        """Return the LSN before the batch that holds `lsn`, and the one at which the batch ends. If
        damage comes before that, return the LSN at which the good log ends, twice."""
        segments = self._dry_run.segments
        begun = [name for name in segments if name.first_lsn <= lsn + 1]
        if not segments:
            return 0, 0
        if not begun:
            first_lsn = segments[0].first_lsn
            problem = f"cut_at={lsn} is older than the oldest LSN that is kept, {first_lsn}"
            raise CompactedError(f"{self._directory.path}: {problem}", first_lsn, lsn=lsn)
        before = end = begun[-1].first_lsn - 1
        with suppress(CorruptionError), Segment(self._dry_run.directory, begun[-1]) as segment:
            walk = Walk.at(segment)
            walk.enter(segment)
            walk.pass_over(segment, lsn - 1)
            before = end = walk.next_lsn - 1
            if end < lsn and next(walk.frames(segment, None), None):  # the frame that holds `lsn`
                end = walk.next_lsn - 1
        return before, end

    def _files_past_cut(self, last_lsn: int) -> list[str]:
        """Return the names of the files that contradict a cut at `last_lsn`, and of those that were
        set aside."""
        if self._dry_run.has_no_start(last_lsn):
            path = self._directory.path
            problem = (
                f"no checkpoint up to LSN {last_lsn} verifies, and the beginning of the log is gone"
            )
            if not self._dry_run.has_no_start(self._dry_run.last_lsn):  # a later cut has a start
                first_lsn = self._dry_run.segments[0].first_lsn
                raise CompactedError(f"{path}: {problem}", first_lsn, lsn=last_lsn)
            raise CorruptionError(path, 0, 0, problem, reason=DamageReason.NO_START)
        checkpoints = self._dry_run.checkpoints.names_past(last_lsn)
        segments = [name for name in self._dry_run.segments if name.first_lsn > last_lsn]
        return [*self._dry_run.aside, *checkpoints, *map(str, reversed(segments))]

    def _salvaged_before(self) -> set[tuple[int, int, int]]:
        """Return the identities of the frames that earlier repairs have salvaged completely."""
        found: set[tuple[int, int, int]] = set()
        for number in count(1):
            try:
                directory = self._disk.open_directory(self._place("salvaged", number), write=False)
            except (UnsafePathError, NotADirectoryError, PermissionError):
                continue
            except FileNotFoundError:
                break
            try:
                with suppress(JournalError):
                    salvaged = read_origin(directory)
                    if salvaged.journal_id == self._journal_id:
                        found.update(frame.identity for frame in salvaged.frames)
            finally:
                directory.close(unlock=False)
        return found

    def _save(self, names: list[str]) -> str:
        """Copy the files to a new directory, and return its path."""
        target = self._new_directory("cut")
        try:
            for name in names:
                copy_file(self._directory, target, name, None)
            target.sync()
        finally:
            target.close(unlock=False)
        return target.path

    def _salvage(self, lost: list[tuple[ReplayBatch, SalvagedFrame]]) -> str:
        """Write the records to a new journal, and return its path."""
        target = self._new_directory("salvaged")
        try:
            new_id = self._disk.new_id().hex()
            write_salvage(target, lost, self._directory.path, self._journal_id, new_id)
        finally:
            target.close(unlock=False)
        return target.path

    def _cut(self, last_lsn: int, removed: list[str]) -> None:
        """Remove the files, and begin a segment of the next epoch after `last_lsn`."""
        for name in removed:
            self._directory.remove(name)
        self._directory.sync()
        epoch = 1 + max(
            [
                0,
                # Those that are set aside, too: one of them may have replaced a segment of the log.
                *(name.epoch for name in self._dry_run.all_segments if name.epoch < _EPOCH_HUGE),
                *(checkpoint.epoch for checkpoint in self._dry_run.checkpoints.good),
            ]
        )
        options = Options(segment_bytes=4096)
        writer = Writer(
            self._directory,
            self._disk,
            options,
            journal_id=self._journal_id,
            epoch=epoch,
            last_lsn=last_lsn,
        )
        try:
            writer.begin_segment()
            writer.close()
        finally:
            writer.release()

    def _new_directory(self, purpose: str) -> Directory:
        """Make a directory beside the journal, or in `save_to`, with the first number that is free.

        A name is taken if anything else has it, even if that belongs to somebody else.
        """
        for number in count(1):
            try:
                path = self._place(purpose, number)
                directory = self._disk.open_directory(path, write=True)
            except (UnsafePathError, NotADirectoryError, FileExistsError):
                continue
            except PermissionError as error:
                parent = path.rpartition("/")[0]
                raise SavePlaceError(self._directory.path, parent or "/") from error
            if not directory.names():
                return directory
            directory.close(unlock=False)
        raise AssertionError("count() has no end")

    def _place(self, purpose: str, number: int) -> str:
        """Return the path of a directory beside the journal, or in `save_to`."""
        parent, _, name = self._directory.path.rpartition("/")
        return f"{self._save_to or parent}/{name}.{purpose}-{number}"
