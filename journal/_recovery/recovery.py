"""Recovery: what an opening writer does. Source: journal/docs/FORMAT.md, "Recovery".

Sync what is about to be trusted, find the checkpoints, lead a walk over the log, decide; and only
then remove what an unfinished removal left over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
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
from journal._format.segment import (
    Segment,
    SegmentName,
    kept_after,
    segment_names,
)
from journal._log import report
from journal._recovery.walk import Batch, Walk
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


def recover(
    directory: Directory,
    *,
    kept: int,
    accepts: tuple[str, ...] = (),
    begin: Callable[[Checkpoint | None], None],
    receive: Callable[[Batch], None],
) -> Recovered:
    """Decide what the journal holds, handing over the checkpoint, then each batch after it.

    The directory's lock is held. Nothing on disk has changed when this raises, and a crash at
    any step is recovered by the next call.
    """
    names = directory.names()
    segments = segment_names(names)
    sync_before_trust(directory, segments)
    checkpoints = find_checkpoints(directory, names, kept)
    try:
        for error in checkpoints.bad:
            report(logging.WARNING, "checkpoint rejected: %s", error)
        taken = checkpoints.good[0] if checkpoints.good else None
        if taken and accepts and taken.application not in accepts:
            raise FormatVersionError(
                f"written for application {taken.application!r}, not for "
                f"{' or '.join(map(repr, accepts))}; open it with the program that wrote it",
                path=taken.path,
                reason=FormatReason.OTHER_APPLICATION,
            )
        begin(taken)
        walk = walk_log(directory, segments, checkpoints, receive)
        epoch = last_epoch(directory, segments, checkpoints)
    except BaseException:
        checkpoints.close()
        raise
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
        verified_lsns=checkpoints.verified_lsns,
        last_lsn=walk.next_lsn - 1,
        log_bytes=walk.log_bytes,
    )
    checkpoints.close(keep=taken)
    _clean(directory, walk, segments, recovered.verified_lsns, kept)
    return recovered


def walk_log(
    directory: Directory,
    segments: list[SegmentName],
    checkpoints: Checkpoints,
    receive: Callable[[Batch], None],
) -> Walk:
    """Lead a walk over all that matters. Raises CorruptionError if the log can't be trusted."""
    agreed = checkpoints.agreed_id
    walk = Walk(directory.path, checkpoints.base_lsn, checkpoints.evidence, agreed)
    kept = kept_after(segments, walk.base_lsn)
    for name, after in zip_longest(kept, kept[1:]):
        with Segment(directory, name) as segment:
            walk.enter(segment)
            checkpoints.check(segment.header.journal_id.hex())  # before anything is applied to it
            for batch in walk.batches(segment, after, after_lsn=walk.base_lsn):
                receive(batch)
                del batch  # before the next is read: each may be one large frame
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
