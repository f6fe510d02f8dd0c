"""Recovery: which checkpoint, which frames, and where the log ends. Source: journal/FORMAT.md.

`Walk` is the rule itself: it is led over segments in the order of the log, yields the frames
that recovery keeps, gathers evidence, and in the end says where the log ends or why it can't
be trusted. It changes nothing. `recover` is what an opening writer does: sync what it is about
to trust, decide, and only then remove what an unfinished removal left over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import NoReturn

from journal import frame
from journal.checkpoint import (
    BadCheckpointError,
    Checkpoint,
    checkpoint_lsns,
    checkpoint_name,
    read_checkpoint,
)
from journal.errors import CorruptionError, FormatVersionError
from journal.record import Record, unpack
from journal.segment import HEADER_BYTES, Found, Segment, SegmentName, kept_after, segment_names
from journal.storage import TMP, Directory, remove_if_there

log = logging.getLogger("journal")


@dataclass(frozen=True, slots=True)
class Batch:
    """A good frame's records; `first_lsn` is the first one's."""

    first_lsn: int
    epoch: int
    written_at_ns: int
    records: list[Record]
    offset: int
    end: int
    path: str

    @property
    def last_lsn(self) -> int:
        return self.first_lsn + len(self.records) - 1

    def after(self, lsn: int) -> Batch:
        """Without the records up to `lsn`."""
        skip = max(0, lsn + 1 - self.first_lsn)
        return (
            replace(self, first_lsn=self.first_lsn + skip, records=self.records[skip:])
            if skip
            else self
        )


Frames = Iterator[tuple[Found, frame.Header]]


class Walk:
    """Led over the segments that matter, oldest first, after the checkpoint at `base_lsn`.

    `next_lsn` is the first LSN not yet seen, `evidence` the highest that anything proves to
    have been durable. `damage` is where the last segment stops being a log. `end` is where its
    good frames end, `marked` whether a mark stands there (the next frame is written over it).
    `dead_offset` is where another segment than the last goes on behind its cut.
    """

    def __init__(self, directory: Directory, base_lsn: int, evidence: int) -> None:
        self.base_lsn = base_lsn
        self.evidence = evidence
        self.next_lsn = 1
        self.epoch = 0
        self.journal_id: bytes | None = None
        self.damage: CorruptionError | None = None
        self.path = directory.path
        self.end = 0
        self.marked = False
        self.dead_offset: int | None = None
        self.log_bytes = 0

    def segment(self, segment: Segment, after: SegmentName | None) -> Frames:
        """The frames of `segment` that the log keeps; `after` is the segment behind it.

        Raises CorruptionError for what no crash can leave: a gap, an impossible header.
        """
        self.enter(segment)
        yield from self.frames(segment, after)
        self.log_bytes += self.end
        if after:
            self.leave(after)

    def enter(self, segment: Segment) -> None:
        header, self.path, self.end = segment.header, segment.file.path, HEADER_BYTES
        if self.journal_id not in (None, header.journal_id):
            what = f"a segment of another journal, {header.journal_id.hex()}"
            raise CorruptionError(self.path, 16, header.first_lsn, what)
        if header.epoch < self.epoch:
            what = f"epoch {header.epoch} behind epoch {self.epoch}"
            raise CorruptionError(self.path, 12, header.first_lsn, what)
        if self.epoch == 0:
            self.next_lsn = header.first_lsn
            if header.first_lsn > self.base_lsn + 1:
                what = f"the log begins here, what follows LSN {self.base_lsn} is missing"
                raise CorruptionError(self.path, 0, self.base_lsn + 1, what)
        self.journal_id, self.epoch = header.journal_id, header.epoch

    def frames(self, segment: Segment, after: SegmentName | None) -> Frames:
        """The frames from `end` on, in the segment that was entered last."""
        self.marked, self.damage, self.dead_offset = False, None, None
        for found in segment.scan(self.end, self.next_lsn):
            header = found.header
            is_mark = header is not None and header.kind == frame.MARK
            if after and self.next_lsn == after.first_lsn and not (is_mark and not self.marked):
                self.dead_offset = found.offset  # the next segment is the cut
                return
            if not self.damage:
                self._look(found)
            if header:  # a valid one testifies, before the damage and after it
                self.evidence = max(self.evidence, header.durable_lsn)
            if header and not self.damage:
                self.marked = is_mark
                if not is_mark:
                    self.next_lsn += header.record_count
                    self.end = found.end
                    yield found, header

    def leave(self, after: SegmentName) -> None:
        """Raise CorruptionError unless `after` goes on where this segment ends."""
        if self.next_lsn != after.first_lsn:
            self._refuse(f"LSN {self.next_lsn} is missing, the next segment begins at {after[0]}")

    def finish(self) -> None:
        """Raise CorruptionError if what was durable is missing at the end of the log."""
        if self.evidence >= self.next_lsn:
            self._refuse(
                f"the log ends before LSN {self.next_lsn}, but {self.evidence} was durable"
            )

    def _look(self, found: Found) -> None:
        """Note damage that a crash may have left; raise for what it can't have."""
        what = "a frame's payload is damaged" if found.header else "no frame stands here"
        if self.marked:
            # A mark is written over by the next frame: this is what is torn of that one.
            what = "something stands behind a mark"
        elif found.header:
            impossible = found.header.impossible(self.next_lsn)
            if impossible:
                raise CorruptionError(self.path, found.offset, self.next_lsn, impossible)
            if found.payload is not None:
                return
        self.damage = CorruptionError(self.path, found.offset, self.next_lsn, what)

    def _refuse(self, what: str) -> NoReturn:
        if self.damage:
            what = f"{self.damage.what}; {what}"
        offset = self.damage.offset if self.damage else self.end
        raise CorruptionError(self.path, offset, self.next_lsn, what)


def decode(found: Found, header: frame.Header, segment: Segment) -> Batch:
    """The frame's records. Raises CorruptionError if they are not what its header says."""
    assert found.payload is not None
    path = segment.file.path
    try:
        records = unpack(found.payload, header.record_count)
    except ValueError as error:
        what = f"a frame whose payload is whole, but {error}"
        raise CorruptionError(path, found.offset, header.first_lsn, what) from error
    return Batch(
        header.first_lsn,
        segment.header.epoch,
        header.written_at_ns,
        records,
        found.offset,
        found.end,
        path,
    )


@dataclass(slots=True)
class Checkpoints:
    """The newest that verify, newest first, and what all of them testify."""

    good: list[Checkpoint]
    bad: list[BadCheckpointError]
    evidence: int

    @property
    def base_lsn(self) -> int:
        return self.good[0].lsn if self.good else 0

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
    torn_tail: CorruptionError | None


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
    _sync_before_trust(directory, segments)
    checkpoints = find_checkpoints(directory, names, kept)
    try:
        for error in checkpoints.bad:
            log.warning("checkpoint rejected: %s", error)
        taken = checkpoints.good[0] if checkpoints.good else None
        if taken and accepts and taken.application not in accepts:
            raise FormatVersionError(
                f"{taken.path}: written for application {taken.application!r}, "
                f"not for {' or '.join(map(repr, accepts))}; open it with the program that wrote it"
            )
        begin(taken)
        walk = walk_log(directory, segments, checkpoints, receive)
    except BaseException:
        checkpoints.close()
        raise
    if walk.damage:
        log.warning(
            "%s: a torn tail from offset %d on is left behind, the log goes on at LSN %d",
            walk.path,
            walk.damage.offset,
            walk.next_lsn,
        )
    journal_id = walk.journal_id.hex() if walk.journal_id else None
    recovered = Recovered(
        epoch=1 + max([0, *(n.epoch for n in segments), *(c.epoch for c in checkpoints.good)]),
        journal_id=journal_id or (taken.journal_id if taken else None),
        checkpoint=taken,
        verified_lsns=sorted(checkpoint.lsn for checkpoint in checkpoints.good),
        last_lsn=walk.next_lsn - 1,
        log_bytes=walk.log_bytes,
        torn_tail=walk.damage,
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
    walk = Walk(directory, checkpoints.base_lsn, checkpoints.evidence)
    kept = kept_after(segments, walk.base_lsn)
    for name, after in zip_longest(kept, kept[1:]):
        with Segment(directory, name) as segment:
            for found, header in walk.segment(segment, after):
                if header.first_lsn + header.record_count > walk.base_lsn + 1:
                    receive(decode(found, header, segment).after(walk.base_lsn))
    for checkpoint in checkpoints.good:
        if walk.journal_id and checkpoint.journal_id != walk.journal_id.hex():
            what = f"a checkpoint of another journal, {checkpoint.journal_id}"
            raise CorruptionError(checkpoint.path, 0, checkpoint.lsn, what)
    walk.finish()
    return walk


def _sync_before_trust(directory: Directory, segments: list[SegmentName]) -> None:
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
        _trim(directory, segments[-1], walk.end + walk.marked * frame.HEADER_BYTES)
    for name in directory.names():
        if name.endswith(TMP):
            remove_if_there(directory, name)


def drop_covered(directory: Directory, verified_lsns: list[int], kept: int) -> None:
    """Remove the segments and checkpoints that none of the `kept` newest checkpoints needs.

    `verified_lsns`: of the checkpoints that this process saw verify, ascending and distinct;
    fewer than `kept` of them prove too little to remove anything.
    """
    if len(verified_lsns) < kept:
        return
    oldest = verified_lsns[-kept]
    names = directory.names()
    segments = segment_names(names)
    kept_segments = kept_after(segments, oldest)
    covered = set(segments) - set(kept_segments)
    if covered:
        # Only names say so: a stray one in the range of a segment must not make it go.
        with Segment(directory, kept_segments[0]):
            pass
    gone = [str(name) for name in sorted(covered)]
    gone += [checkpoint_name(lsn) for lsn in checkpoint_lsns(names) if lsn < oldest]
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
