"""Recovery: the steps of a writer that opens a journal.

It syncs the files before it trusts them, finds the checkpoints, walks over the log, and decides.
Only then does it remove the leftovers of an interrupted removal. Source: journal/docs/FORMAT.md,
"Recovery".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from itertools import zip_longest
from typing import NamedTuple

from journal._disk.disk import TMP, Directory, ReadableDirectory, remove_if_exists
from journal._format.checkpoint import Checkpoint, checkpoint_lsns, checkpoint_name
from journal._format.layout import FRAME_HEADER_BYTES
from journal._format.packed_records import read_spans
from journal._format.segment import (
    Segment,
    SegmentName,
    segment_names,
    segments_after,
)
from journal._log import report
from journal._recovery.checkpoints import Checkpoints, find_checkpoints
from journal._recovery.covered_damage import Hole
from journal._recovery.plan import Plan
from journal._recovery.stray_segments import blamed, find_journal_id
from journal._recovery.walk import Reading, ReplayBatch, Walk, describe_lsns
from journal.errors import CorruptionError, DamageReason, FormatReason, FormatVersionError


class Recovered(NamedTuple):
    """The result of a recovery, from which the writer starts. `epoch` is the writer's new epoch."""

    epoch: int
    journal_id: str | None
    checkpoint: Checkpoint | None
    verified_lsns: list[int]
    last_lsn: int
    log_bytes: int  # the size of the log after the checkpoint
    is_new: bool  # neither a record nor a checkpoint, not even a damaged one
    holes: list[Hole]  # the damage that was passed over, because the checkpoint covers it


class Recovery:
    """A writer's recovery, in steps: `checkpoint`, then all of `batches()`, then `finish()`.

    The caller holds the directory's lock. Only `finish()` changes files. If a step raises, the
    caller calls `close`. A crash may interrupt any step: the next open starts again.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        keep: int,
        accepts: tuple[str, ...] = (),
        holding: Holding | None = None,
    ) -> None:
        """Sync the log, and find the `keep` newest checkpoints.

        `accepts`: the applications whose checkpoint may be loaded (none: any). `holding`: see
        drop_covered. Raises FormatVersionError for the checkpoint of another application.
        """
        self._holding = holding
        self._directory = directory
        self._keep = keep
        self._names = directory.names()
        sync_before_trust(directory, segment_names(self._names))
        self._checkpoints = find_checkpoints(directory, self._names, keep)
        self._decided: tuple[Walk, int] | None = None
        try:
            for error in self._checkpoints.bad:
                text = "a checkpoint is skipped, because it does not verify: %s"
                report(logging.WARNING, text, error)
            self._check_application(accepts)
        except BaseException:
            self.close()
            raise

    def _check_application(self, accepts: tuple[str, ...]) -> None:
        taken = self.checkpoint
        if taken and accepts and taken.application not in accepts:
            raise FormatVersionError(
                f"the journal was written for application {taken.application!r}, not for "
                f"{' or '.join(map(repr, accepts))}; open it with the program that wrote it",
                path=taken.path,
                reason=FormatReason.OTHER_APPLICATION,
            )

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint that verifies. The log continues from its state."""
        return self._checkpoints.good[0] if self._checkpoints.good else None

    def batches(self, read: Reading = read_spans) -> Iterator[ReplayBatch]:
        """Yield the records after the checkpoint, in batches. Raises CorruptionError if the log
        can't be trusted."""
        self._decided = yield from decide(
            self._directory, self._names, self._checkpoints, self._keep, read
        )

    def finish(self) -> Recovered:
        """Remove the leftovers of a crash or of an interrupted removal, and return the result.

        All of `batches()` must have been read before.
        """
        if self._decided is None:
            raise RuntimeError("finish() was called before all batches were read")
        (walk, epoch), taken = self._decided, self.checkpoint
        if walk.damage:
            # Any crash during a commit leaves a torn tail, so nobody has to do anything.
            report(
                logging.INFO,
                "%s: a torn tail begins at offset %d; it stays there, and a new segment continues "
                "the log at LSN %d",
                walk.path,
                walk.damage.offset,
                walk.next_lsn,
            )
        for hole in walk.holes:
            report(
                logging.WARNING,
                "%s: %s can't be read, because the segment is damaged at offset %d; no state is "
                "lost, because the checkpoint at LSN %d holds it",
                hole.path,
                describe_lsns(hole.first_lsn, hole.last_lsn),
                hole.offset,
                walk.covered_lsn,
            )
        journal_id = walk.journal_id.hex() if walk.journal_id else None
        recovered = Recovered(
            epoch=epoch + 1,
            journal_id=journal_id or (taken.journal_id if taken else None),
            checkpoint=taken,
            verified_lsns=self._checkpoints.verified_lsns,
            last_lsn=walk.next_lsn - 1,
            log_bytes=walk.log_bytes,
            is_new=walk.next_lsn == 1 and not checkpoint_lsns(self._names),
            holes=walk.holes,
        )
        self._checkpoints.close(keep=taken)
        segments = segment_names(self._names)
        # comes first, because it may still find damage
        drop_covered(self._directory, recovered.verified_lsns, self._keep, self._holding)
        _remove_leftovers(self._directory, walk, segments)
        return recovered

    def close(self) -> None:
        self._checkpoints.close()


def decide(
    directory: ReadableDirectory,
    names: list[str],
    checkpoints: Checkpoints,
    keep: int,
    read: Reading = read_spans,
) -> Generator[ReplayBatch, None, tuple[Walk, int]]:
    """Decide whether a journal opens.

    Yield each batch after the checkpoint, and return the walk and the highest epoch in use. Raises
    CorruptionError if an open has to refuse. `names`: the files in the directory. `keep`: the
    number of checkpoints that an open keeps.
    """
    plan = Plan(directory.path, segment_names(names), checkpoints.good, keep)
    try:
        walk = yield from walk_log(directory, plan, checkpoints.evidence, read)
    except CorruptionError as error:
        culprit = blamed(directory, plan.segments, error)
        if culprit is error and error.reason is DamageReason.FOREIGN:
            # The checkpoints agree on another id than the segments, which outnumber them.
            culprit = plan.foreign_to(find_journal_id(directory)) or error
        raise culprit from error
    if refusal := checkpoints.past_end(walk.next_lsn) or plan.exhausted():
        raise refusal
    # Raises if the first segment that is still needed is not what its name says.
    covered_files(directory, names, checkpoints.verified_lsns, keep)
    return walk, plan.last_epoch


def walk_log(
    directory: ReadableDirectory, plan: Plan[SegmentName], evidence: int, read: Reading
) -> Generator[ReplayBatch, None, Walk]:
    """Walk over the segments of the plan. Yield each batch after the checkpoint, and return the
    walk. Raises CorruptionError if the log can't be trusted.

    `evidence`: the highest LSN that a checkpoint, even a damaged one, proves to have been durable.
    """
    agreed = bytes.fromhex(plan.agreed_id) if plan.agreed_id else None
    walk = Walk(directory.path, evidence, agreed, covered_lsn=plan.base_lsn)
    for name, after in zip_longest(plan.segments, plan.segments[1:]):
        with Segment(directory, name) as segment:
            walk.enter(segment)
            plan.check(segment.header.journal_id.hex())  # before any record is applied
            yield from walk.batches(segment, after, after_lsn=plan.base_lsn, read=read)
        if after:
            walk.leave(after)
    walk.finish()
    return walk


def sync_before_trust(directory: Directory, segments: list[SegmentName]) -> None:
    """Sync the last segment and the names of all files, so that recovery reads what is on disk."""
    # A frame that verifies may exist only in memory. Either a killed process wrote it and never
    # synced it, or a sync failed, and the kernel marked the page clean without writing it. So sync,
    # drop the cached pages, and read what is on the disk.
    directory.sync()
    if segments:
        last = directory.open(str(segments[-1]), "update")
        try:
            last.sync()
            last.drop_cache()
        finally:
            last.close()


def _remove_leftovers(directory: Directory, walk: Walk, segments: list[SegmentName]) -> None:
    """Remove the leftovers of a crash, once an open is decided."""
    if walk.end and not walk.damage:
        # After a crash, space that was allocated ahead of the log is still in the last segment. A
        # torn tail stays, so that it can be examined or salvaged.
        _trim(directory, segments[-1], walk.end + walk.marked * FRAME_HEADER_BYTES)
    for name in directory.names():
        if name.endswith(TMP):  # a crash came before the file got its name, or left it with both
            remove_if_exists(directory, name)


def covered_files(
    directory: ReadableDirectory, names: list[str], verified_lsns: list[int], keep: int
) -> list[str]:
    """Return the names of the segments and checkpoints that the `keep` newest checkpoints cover.

    `verified_lsns`: the LSNs of the checkpoints that this process saw verify, ascending and
    distinct. If there are fewer than `keep`, nothing is covered. Raises CorruptionError if the
    first segment that is still needed is not what its name says.
    """
    if len(verified_lsns) < keep:
        return []
    oldest = verified_lsns[-keep]
    segments = segment_names(names)
    kept_segments = segments_after(segments, oldest)
    covered = set(segments) - set(kept_segments)
    if covered:
        # So far, only file names say what is covered. Open the first segment that is kept, so that
        # a stray name in the range of a needed segment can't get that segment removed.
        with Segment(directory, kept_segments[0]):
            pass
    older = [checkpoint_name(lsn) for lsn in checkpoint_lsns(names) if lsn < oldest]
    return [*map(str, sorted(covered)), *older]


Holding = Callable[[Directory, list[str]], list[str]]
"""A function that is given the files that are covered, and returns those that may go."""


def drop_covered(
    directory: Directory, verified_lsns: list[int], keep: int, holding: Holding | None = None
) -> None:
    """Remove the segments and checkpoints that the `keep` newest checkpoints cover, except those
    that `holding` holds back."""
    covered = covered_files(directory, directory.names(), verified_lsns, keep)
    if holding is not None:
        covered = holding(directory, covered)
    for name in covered:
        directory.remove(name)
    if covered:
        directory.sync()


def _trim(directory: Directory, name: SegmentName, end: int) -> None:
    file = directory.open(str(name), "update")
    try:
        if file.size() > end:
            with suppress(OSError):  # trimming only saves space, so it may fail
                file.truncate(end)
    finally:
        file.close()
