"""Stray segments: files whose names put them where the log can't have a segment.

A segment ends where the next one begins, and only names say where that is. So a file under a wrong
name, such as a copy, would end the segment before it in its middle. If that segment proves that the
log continued in it, then the file's name is wrong, and nothing is lost, because the log is whole
without the file. If nothing proves this, the file may be a damaged segment, and the log ends there.

A segment of another journal is a stray, too, whatever its name. Which id is the journal's own is
decided here, and nowhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress

from journal._disk.disk import ReadableDirectory
from journal._format.checkpoint import checkpoint_lsns, read_checkpoint
from journal._format.segment import (
    FrameState,
    Segment,
    SegmentHeader,
    SegmentName,
    read_header,
    segment_names,
)
from journal.errors import CorruptionError, DamageReason, JournalError


class Identity:
    """The journal's own id, and the headers of its segments, each read once."""

    def __init__(
        self,
        directory: ReadableDirectory,
        segments: list[SegmentName],
        checkpoints: Iterable[bytes] | None = None,
    ) -> None:
        """Read the headers. `checkpoints`: the ids in the checkpoints that verify (None: read them
        if the segments do not agree)."""
        self.headers = _read_headers(directory, segments)
        own = (h for name, h in self.headers.items() if h and h.name == name)
        of_segments = Counter(header.journal_id for header in own)
        if len(of_segments) == 1:
            [self.journal_id] = of_segments
            return
        of_checkpoints = Counter(_checkpoint_ids(directory) if checkpoints is None else checkpoints)
        agreed = [each for each in of_checkpoints if each in of_segments or not of_segments]
        if len(agreed) == 1:
            [self.journal_id] = agreed
            return
        misnamed = (header.journal_id for header in self.headers.values() if header)
        votes = of_checkpoints + of_segments or Counter(misnamed)
        self.journal_id = max(votes, key=votes.__getitem__, default=b"")

    def foreign(self, directory: ReadableDirectory) -> dict[SegmentName, CorruptionError]:
        """Return the segments of other journals, each with the error for it."""
        return {
            name: foreign_segment(f"{directory.path}/{name}", header.journal_id)
            for name, header in self.headers.items()
            if header and header.journal_id != self.journal_id
        }


def find_journal_id(directory: ReadableDirectory) -> str | None:
    """Return the journal's own id, or None if no file states it."""
    return Identity(directory, segment_names(directory.names())).journal_id.hex() or None


def foreign_segment(path: str, journal_id: bytes) -> CorruptionError:
    """Return the error for the segment `path` of another journal. No record is lost with it."""
    problem = f"this is a segment of another journal, {journal_id.hex()}"
    reason = DamageReason.FOREIGN
    return CorruptionError(path, 16, 0, problem, reason=reason, journal_id=journal_id.hex())


def blamed(
    directory: ReadableDirectory, segments: list[SegmentName], error: CorruptionError
) -> CorruptionError:
    """Return the error for the first of `segments` that belongs to another journal, or `error` if
    there is none.

    A walk over such a segment finds a gap before it, or takes it for the log and blames another
    file.
    """
    foreign = Identity(directory, segment_names(directory.names())).foreign(directory)
    return next((foreign[name] for name in segments if name in foreign), error)


def stray_segments(
    directory: ReadableDirectory,
    segments: list[SegmentName],
    checkpoints: Iterable[bytes] | None = None,
) -> dict[SegmentName, CorruptionError]:
    """Return the stray segments, each with the error for it.

    `checkpoints`: the ids in the checkpoints that verify (None: read them if they are needed).
    """
    identity = Identity(directory, segments, checkpoints)
    own_id = identity.journal_id
    foreign = identity.foreign(directory)
    headers = {name: h for name, h in identity.headers.items() if name not in foreign}
    whole = [name for name, header in headers.items() if _is_whole(header, name, own_id)]
    strays = foreign
    before: SegmentName | None = None  # None if the segment before this one can't be trusted
    for name, header in headers.items():
        is_whole = _is_whole(header, name, own_id)
        is_older = before is not None and name.epoch < before.epoch
        conflict = None
        if is_older or not is_whole:
            after = next((other for other in whole if other > name), None)
            if before and is_older and after:
                conflict = f"its epoch {name.epoch} can't follow epoch {before.epoch}"
            elif after and name.epoch > after.epoch:
                conflict = f"its epoch {name.epoch} can't precede epoch {after.epoch}"
            elif after and name.first_lsn == after.first_lsn:
                conflict = f"the log continues at LSN {name.first_lsn} in {after}"
            elif before and _continues_in(directory, before, name, header):
                conflict = f"LSN {name.first_lsn} is in {before}"
        if conflict:
            is_copy = header and header.name != name
            strays[name] = CorruptionError(
                f"{directory.path}/{name}",
                0,
                0,
                f"the file {_describe(header, name)}; it does not belong here: {conflict}",
                reason=DamageReason.OUT_OF_PLACE,
                header_of=str(header.name) if header and is_copy else None,
            )
        else:
            before = name if is_whole and not is_older else None
    return strays


def with_successors(
    segments: list[SegmentName], strays: Container[SegmentName]
) -> list[tuple[SegmentName, SegmentName | None]]:
    """Return each segment with the next one that is not a stray, at which it ends."""
    pairs: list[tuple[SegmentName, SegmentName | None]] = []
    after: SegmentName | None = None
    for name in reversed(segments):
        pairs.append((name, after))
        after = after if name in strays else name
    return pairs[::-1]


def _read_headers(
    directory: ReadableDirectory, segments: list[SegmentName]
) -> dict[SegmentName, SegmentHeader | None]:
    """Return the header of each segment, without files that a live writer removed meanwhile."""
    headers: dict[SegmentName, SegmentHeader | None] = {}
    for name in segments:
        with suppress(FileNotFoundError):
            headers[name] = _read_header(directory, name)
    return headers


def _checkpoint_ids(directory: ReadableDirectory) -> Iterator[bytes]:
    """Yield the journal's id in each checkpoint that verifies."""
    for lsn in checkpoint_lsns(directory.names()):
        with suppress(JournalError, FileNotFoundError):
            checkpoint = read_checkpoint(directory, lsn)
            checkpoint.close()
            yield bytes.fromhex(checkpoint.journal_id)


def _read_header(directory: ReadableDirectory, name: SegmentName) -> SegmentHeader | None:
    """Return the header in the file `name`, even if it is another file's. Return None if it is
    damaged."""
    with suppress(JournalError):
        file = directory.open(str(name), "read")
        try:
            return read_header(file, name.first_lsn)
        finally:
            file.close()
    return None


def _is_whole(header: SegmentHeader | None, name: SegmentName, journal_id: bytes) -> bool:
    """Return whether the header is whole, and belongs to this name and this journal."""
    return header is not None and (header.name, header.journal_id) == (name, journal_id)


def _describe(header: SegmentHeader | None, name: SegmentName) -> str:
    """Return what the file `name` contains, in words. `header`: the one in it (None: damaged)."""
    if header is None:
        return "has no valid header"
    return "contains a segment" if header.name == name else f"contains a copy of {header.name}"


def _continues_in(
    directory: ReadableDirectory,
    before: SegmentName,
    name: SegmentName,
    header: SegmentHeader | None,
) -> bool:
    """Return whether the log continued in `before` at the LSN at which `name` claims to begin."""
    begins_there, durable_lsn = False, 0
    with suppress(CorruptionError, FileNotFoundError), Segment(directory, before) as segment:
        for scanned in segment.scan():
            durable_lsn = max(durable_lsn, scanned.header.durable_lsn)
            if scanned.state is not FrameState.RECORDS:
                continue
            first_lsn = scanned.header.first_lsn
            if first_lsn < name.first_lsn < first_lsn + scanned.header.record_count:
                return True  # a frame spans that LSN, and every cut lies between two frames
            begins_there = begins_there or first_lsn == name.first_lsn
    # Only a segment of a later epoch is a cut, so if the epochs are the same, the frame at that LSN
    # belongs to the log. If `name` has a later epoch, the frame may be dead, unless it was durable.
    # And if the header of `name` can't be read, the file may be the cut itself, only damaged.
    is_cut = name.epoch > before.epoch and (header is None or durable_lsn < name.first_lsn)
    return begins_there and not is_cut
