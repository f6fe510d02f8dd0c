"""Recovery: what an opening writer does. Source: journal/docs/FORMAT.md, "Recovery".

Sync what is about to be trusted, find the checkpoints, lead a walk over the log, decide; and only
then remove what an unfinished removal left over.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from operator import itemgetter

from journal._disk.disk import TMP, Directory, remove_if_there
from journal._format.checkpoint import (
    BadCheckpointError,
    Checkpoint,
    MisnamedCheckpointError,
    checkpoint_lsns,
    checkpoint_name,
    read_checkpoint,
)
from journal._format.layout import EPOCH_MAX, FRAME_HEADER_BYTES
from journal._format.record import unpack_spans
from journal._format.segment import (
    Segment,
    SegmentName,
    kept_after,
    segment_names,
)
from journal._log import report
from journal._recovery.walk import Batch, Reading, Walk
from journal.errors import CorruptionError, DamageReason, FormatReason, FormatVersionError


@dataclass(slots=True)
class Checkpoints:
    """The newest that verify, newest first, and what all of them testify; `damaged_lsn`: the
    newest of those that were there and are damaged."""

    good: list[Checkpoint]
    bad: list[BadCheckpointError]
    evidence: int
    damaged_lsn: int = 0

    @property
    def base_lsn(self) -> int:
        return self.good[0].lsn if self.good else 0

    @property
    def verified_lsns(self) -> list[int]:
        return sorted(checkpoint.lsn for checkpoint in self.good)

    @property
    def agreed_id(self) -> bytes | None:
        """The journal's id, if two checkpoints agree on it: they know better than one segment."""
        ids = {checkpoint.journal_id for checkpoint in self.good}
        if len(self.good) > 1 and len(ids) == 1:
            return bytes.fromhex(ids.pop())
        return None

    def check(self, journal_id: str) -> None:
        """Raise CorruptionError if one is of another journal."""
        for checkpoint in self.good:
            if checkpoint.journal_id != journal_id:
                what = f"a checkpoint of another journal, {checkpoint.journal_id}"
                reason = DamageReason.FOREIGN
                raise CorruptionError(checkpoint.path, 0, checkpoint.lsn, what, reason=reason)

    def forget(self, name: str) -> None:
        self.good = [it for it in self.good if it.path.rpartition("/")[2] != name]

    def close(self, *, keep: Checkpoint | None = None) -> None:
        for checkpoint in self.good:
            if checkpoint is not keep:
                checkpoint.close()


def find_checkpoints(directory: Directory, names: list[str], kept: int) -> Checkpoints:
    """Open the `kept` newest that verify. One that does not testifies by its name."""
    lsns = checkpoint_lsns(names)
    found = Checkpoints([], [], max(lsns, default=0))
    try:
        for lsn in reversed(lsns):
            if len(found.good) == kept:
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


@dataclass(slots=True)
class Recovered:
    """What an opening writer starts from; `epoch` is the new one."""

    epoch: int
    journal_id: str | None
    checkpoint: Checkpoint | None
    verified_lsns: list[int]
    last_lsn: int
    log_bytes: int  # since the checkpoint


class Recovery:
    """What an opening writer does, in steps: `checkpoint`, all of `batches()`, then `finish()`.

    The directory's lock is held. If a step raises, nothing on disk has changed: `close` it. A crash
    at any step is recovered by the next opening.
    """

    def __init__(self, directory: Directory, *, kept: int, accepts: tuple[str, ...] = ()) -> None:
        """Look for the `kept` newest checkpoints.

        `accepts`: the applications whose checkpoint may be there (none: any). Raises
        FormatVersionError for another one.
        """
        self._directory = directory
        self._kept = kept
        names = directory.names()
        self._segments = segment_names(names)
        sync_before_trust(directory, self._segments)
        self._checkpoints = find_checkpoints(directory, names, kept)
        self._walk: Walk | None = None  # when it is over
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

    def batches(self, read: Reading = unpack_spans) -> Iterator[Batch]:
        """Yield the records after the checkpoint. Raises CorruptionError if the log can't be
        trusted."""
        self._walk = yield from walk_log(self._directory, self._segments, self._checkpoints, read)

    def finish(self) -> Recovered:
        """Return what the journal holds, once `batches()` is over, and remove what a crash or an
        unfinished removal left over."""
        walk, taken = self._walk, self.checkpoint
        if walk is None:
            raise RuntimeError("a recovery is finished after all of its batches were read")
        epoch = last_epoch(self._directory, self._segments, self._checkpoints)
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
        _clean(self._directory, walk, self._segments, recovered.verified_lsns, self._kept)
        return recovered

    def close(self) -> None:
        """Close the checkpoints."""
        self._checkpoints.close()


def walk_log(
    directory: Directory,
    segments: list[SegmentName],
    checkpoints: Checkpoints,
    read: Reading = unpack_spans,
) -> Generator[Batch, None, Walk]:
    """Lead a walk over all that matters: yield each batch after the checkpoint, and return the
    walk. Raises CorruptionError if the log can't be trusted."""
    agreed = checkpoints.agreed_id
    walk = Walk(directory.path, checkpoints.base_lsn, checkpoints.evidence, agreed)
    kept = kept_after(segments, walk.base_lsn)
    for name, after in zip_longest(kept, kept[1:]):
        with Segment(directory, name) as segment:
            walk.enter(segment)
            checkpoints.check(segment.header.journal_id.hex())  # before anything is applied to it
            yield from walk.batches(segment, after, after_lsn=walk.base_lsn, read=read)
        if after:
            walk.leave(after)
    walk.finish()
    return walk


def last_epoch(directory: Directory, segments: list[SegmentName], checkpoints: Checkpoints) -> int:
    """The highest in use. Raises CorruptionError if it leaves none for a writer."""
    used = {checkpoint.path: checkpoint.epoch for checkpoint in checkpoints.good}
    used |= {f"{directory.path}/{name}": name.epoch for name in segments}
    path, epoch = max(used.items(), key=itemgetter(1), default=("", 0))
    if epoch >= EPOCH_MAX:
        what = f"epoch {epoch}: no journal gets so far, and none could follow it"
        reason = DamageReason.NUMBERS_EXHAUSTED
        raise CorruptionError(path, 0, checkpoints.base_lsn + 1, what, reason=reason)
    return epoch


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


def _clean(
    directory: Directory, walk: Walk, segments: list[SegmentName], verified: list[int], kept: int
) -> None:
    """After the decision to open: what an unfinished removal or a crash left over."""
    drop_covered(directory, verified, kept)  # first: it may still find damage
    if walk.end and not walk.damage:
        _trim(directory, segments[-1], walk.end + walk.marked * FRAME_HEADER_BYTES)
    for name in directory.names():
        if name.endswith(TMP):
            remove_if_there(directory, name)


def covered(
    directory: Directory, names: list[str], verified_lsns: list[int], kept: int
) -> list[str]:
    """The segments and checkpoints that none of the `kept` newest checkpoints needs.

    `verified_lsns`: of the checkpoints that this process saw verify, ascending and distinct;
    fewer than `kept` of them prove too little for anything to be covered. Raises CorruptionError
    if the first segment that is needed is not what its name says.
    """
    if len(verified_lsns) < kept:
        return []
    oldest = verified_lsns[-kept]
    segments = segment_names(names)
    kept_segments = kept_after(segments, oldest)
    gone = set(segments) - set(kept_segments)
    if gone:
        # Only names say so: a stray one in the range of a segment must not make it go.
        with Segment(directory, kept_segments[0]):
            pass
    older = [checkpoint_name(lsn) for lsn in checkpoint_lsns(names) if lsn < oldest]
    return [*map(str, sorted(gone)), *older]


def drop_covered(directory: Directory, verified_lsns: list[int], kept: int) -> None:
    """Remove what is covered."""
    gone = covered(directory, directory.names(), verified_lsns, kept)
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
