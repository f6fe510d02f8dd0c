"""Recovery: what an opening writer does. Source: journal/docs/FORMAT.md, "Recovery".

Sync what is about to be trusted, find the checkpoints, lead a walk over the log, decide; and only
then remove what an unfinished removal left over.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import suppress
from itertools import zip_longest
from typing import NamedTuple

from journal._disk.disk import TMP, Directory, remove_if_exists
from journal._format.checkpoint import (
    BadCheckpointError,
    Checkpoint,
    MisnamedCheckpointError,
    checkpoint_lsns,
    checkpoint_name,
    read_checkpoint,
)
from journal._format.layout import FRAME_HEADER_BYTES
from journal._format.record import unpack_spans
from journal._format.segment import (
    Segment,
    SegmentName,
    segment_names,
    segments_after,
)
from journal._log import report
from journal._recovery.plan import Plan
from journal._recovery.walk import Reading, ReplayBatch, Walk
from journal.errors import FormatReason, FormatVersionError


class Checkpoints:
    """The newest checkpoints of a directory, and the LSN up to which one says that there is a log.

    `good` are those that verify, newest first, and `bad` is what the others raised; `damaged_lsn`
    is the newest of those that are damaged.
    """

    def __init__(self, evidence_lsn: int) -> None:
        self.good: list[Checkpoint] = []
        self.bad: list[BadCheckpointError] = []
        self.evidence = evidence_lsn
        self.damaged_lsn = 0

    @property
    def base_lsn(self) -> int:
        return self.good[0].lsn if self.good else 0

    @property
    def verified_lsns(self) -> list[int]:
        return sorted(checkpoint.lsn for checkpoint in self.good)

    def forget(self, name: str) -> None:
        self.good = [
            checkpoint for checkpoint in self.good if checkpoint.path.rpartition("/")[2] != name
        ]

    def close(self, *, keep: Checkpoint | None = None) -> None:
        for checkpoint in self.good:
            if checkpoint is not keep:
                checkpoint.close()


def find_checkpoints(directory: Directory, names: list[str], keep: int) -> Checkpoints:
    """Open the `keep` newest that verify. One that does not testifies by its name."""
    lsns = checkpoint_lsns(names)
    found = Checkpoints(max(lsns, default=0))
    try:
        for lsn in reversed(lsns):
            if len(found.good) == keep:
                break
            try:
                found.good.append(read_checkpoint(directory, lsn))
            except BadCheckpointError as error:
                found.bad.append(error)
                if not isinstance(error, MisnamedCheckpointError):
                    found.damaged_lsn = max(found.damaged_lsn, lsn)
    except BaseException:
        found.close()
        raise
    return found


class Recovered(NamedTuple):
    """The state from which an opening writer starts; `epoch` is the new one."""

    epoch: int
    journal_id: str | None
    checkpoint: Checkpoint | None
    verified_lsns: list[int]
    last_lsn: int
    log_bytes: int  # since the checkpoint


class Recovery:
    """A writer's recovery, in steps: `checkpoint`, all of `batches()`, then `finish()`.

    The directory's lock is held. If a step raises, nothing on disk has changed: `close` it. A crash
    at any step is recovered by the next opening.
    """

    def __init__(self, directory: Directory, *, keep: int, accepts: tuple[str, ...] = ()) -> None:
        """Look for the `keep` newest checkpoints.

        `accepts`: the applications whose checkpoint may be there (none: any). Raises
        FormatVersionError for another one.
        """
        self._directory = directory
        self._keep = keep
        self._names = directory.names()
        sync_before_trust(directory, segment_names(self._names))
        self._checkpoints = find_checkpoints(directory, self._names, keep)
        self._decided: tuple[Walk, int] | None = None
        try:
            for error in self._checkpoints.bad:
                report(logging.WARNING, "checkpoint rejected: %s", error)
            self._check_application(accepts)
        except BaseException:
            self.close()
            raise

    def _check_application(self, accepts: tuple[str, ...]) -> None:
        taken = self.checkpoint
        if taken and accepts and taken.application not in accepts:
            raise FormatVersionError(
                f"written for application {taken.application!r}, not for "
                f"{' or '.join(map(repr, accepts))}; open it with the program that wrote it",
                path=taken.path,
                reason=FormatReason.OTHER_APPLICATION,
            )

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The newest that verifies; the log goes on from its state."""
        return self._checkpoints.good[0] if self._checkpoints.good else None

    def batches(self, read: Reading = unpack_spans) -> Iterator[ReplayBatch]:
        """Yield the records after the checkpoint. Raises CorruptionError if the log can't be
        trusted."""
        self._decided = yield from decide(
            self._directory, self._names, self._checkpoints, self._keep, read
        )

    def finish(self) -> Recovered:
        """Return what the journal holds, once `batches()` is over, and remove what a crash or an
        unfinished removal left over."""
        if self._decided is None:
            raise RuntimeError("a recovery is finished after all of its batches were read")
        (walk, epoch), taken = self._decided, self.checkpoint
        if walk.damage:
            # After any crash amid a commit, so it asks nothing of anybody.
            report(
                logging.INFO,
                "%s: a torn tail from offset %d on is left behind, the log goes on at LSN %d",
                walk.path,
                walk.damage.offset,
                walk.next_lsn,
            )
        journal_id = walk.journal_id.hex() if walk.journal_id else None
        recovered = Recovered(
            epoch=epoch + 1,
            journal_id=journal_id or (taken.journal_id if taken else None),
            checkpoint=taken,
            verified_lsns=self._checkpoints.verified_lsns,
            last_lsn=walk.next_lsn - 1,
            log_bytes=walk.log_bytes,
        )
        self._checkpoints.close(keep=taken)
        segments = segment_names(self._names)
        _remove_leftovers(self._directory, walk, segments, recovered.verified_lsns, self._keep)
        return recovered

    def close(self) -> None:
        """Close the checkpoints."""
        self._checkpoints.close()


def decide(
    directory: Directory,
    names: list[str],
    checkpoints: Checkpoints,
    keep: int,
    read: Reading = unpack_spans,
) -> Generator[ReplayBatch, None, tuple[Walk, int]]:
    """Decide whether a journal opens: yield each batch after the checkpoint, and return the walk
    and the highest epoch in use. Raises CorruptionError if an open has to refuse.

    `names`: the files that there are. `keep`: how many checkpoints an open keeps.
    """
    plan = Plan(directory.path, segment_names(names), checkpoints.good, keep)
    walk = yield from walk_log(directory, plan, checkpoints.evidence, read)
    if exhausted := plan.exhausted():
        raise exhausted
    covered(directory, names, checkpoints.verified_lsns, keep)
    return walk, plan.last_epoch


def walk_log(
    directory: Directory, plan: Plan[SegmentName], evidence: int, read: Reading = unpack_spans
) -> Generator[ReplayBatch, None, Walk]:
    """Lead a walk over all that matters: yield each batch after the checkpoint, and return the
    walk. Raises CorruptionError if the log can't be trusted.

    `evidence`: the highest LSN that a checkpoint, though it be damaged, proves to have been
    durable.
    """
    agreed = bytes.fromhex(plan.agreed_id) if plan.agreed_id else None
    walk = Walk(directory.path, evidence, agreed)
    for name, after in zip_longest(plan.segments, plan.segments[1:]):
        with Segment(directory, name) as segment:
            walk.enter(segment)
            plan.check(segment.header.journal_id.hex())  # before anything is applied to it
            yield from walk.batches(segment, after, after_lsn=plan.base_lsn, read=read)
        if after:
            walk.leave(after)
    walk.finish()
    return walk


def sync_before_trust(directory: Directory, segments: list[SegmentName]) -> None:
    """The last segment, and the names of all."""
    # What validates may stand in memory only: written and never synced by a killed process, or
    # marked clean by a sync that failed. So sync, and read what the disk has.
    directory.sync()
    if segments:
        last = directory.open(str(segments[-1]), "update")
        try:
            last.sync()
            last.drop_cache()
        finally:
            last.close()


def _remove_leftovers(
    directory: Directory, walk: Walk, segments: list[SegmentName], verified: list[int], keep: int
) -> None:
    """After the decision to open: what an unfinished removal or a crash left over."""
    drop_covered(directory, verified, keep)  # first: it may still find damage
    if walk.end and not walk.damage:
        _trim(directory, segments[-1], walk.end + walk.marked * FRAME_HEADER_BYTES)
    for name in directory.names():
        if name.endswith(TMP):
            remove_if_exists(directory, name)


def covered(
    directory: Directory, names: list[str], verified_lsns: list[int], keep: int
) -> list[str]:
    """The segments and checkpoints that none of the `keep` newest checkpoints needs.

    `verified_lsns`: of the checkpoints that this process saw verify, ascending and distinct;
    fewer than `keep` of them prove too little for anything to be covered. Raises CorruptionError
    if the first segment that is needed is not what its name says.
    """
    if len(verified_lsns) < keep:
        return []
    oldest = verified_lsns[-keep]
    segments = segment_names(names)
    kept_segments = segments_after(segments, oldest)
    gone = set(segments) - set(kept_segments)
    if gone:
        # Only names say so: a stray one in the range of a segment must not make it go.
        with Segment(directory, kept_segments[0]):
            pass
    older = [checkpoint_name(lsn) for lsn in checkpoint_lsns(names) if lsn < oldest]
    return [*map(str, sorted(gone)), *older]


def drop_covered(directory: Directory, verified_lsns: list[int], keep: int) -> None:
    """Remove what is covered."""
    gone = covered(directory, directory.names(), verified_lsns, keep)
    for name in gone:
        directory.remove(name)
    if gone:
        directory.sync()


def _trim(directory: Directory, name: SegmentName, end: int) -> None:
    file = directory.open(str(name), "update")
    try:
        if file.size() > end:
            with suppress(OSError):  # saves space, proves nothing
                file.truncate(end)
    finally:
        file.close()
