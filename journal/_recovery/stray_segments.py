"""Stray segments: files whose names put them where the log can't have a segment.

A segment ends where the next one begins, and only names say where that is. So a file under a wrong
name, such as a copy, would end the segment before it in its middle. If that segment proves that the
log continued in it, then the file's name is wrong, and nothing is lost, because the log is whole
without the file. If nothing proves this, the file may be a damaged segment, and the log ends there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from contextlib import suppress

from journal._disk.disk import Directory
from journal._format.segment import FrameState, Segment, SegmentHeader, SegmentName, read_header
from journal.errors import CorruptionError, DamageReason, JournalError


def stray_segments(
    directory: Directory, segments: list[SegmentName], journal_ids: Iterable[bytes] = ()
) -> dict[SegmentName, CorruptionError]:
    """Return the stray segments, each with the error for it.

    `journal_ids`: the ids in the checkpoints. They count, too, in the vote on the journal's own id.
    """
    headers = _read_headers(directory, segments)
    own_id = _majority_id(headers, journal_ids)
    whole = [name for name, header in headers.items() if _is_whole(header, name, own_id)]
    strays: dict[SegmentName, CorruptionError] = {}
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
            is_foreign = header and header.journal_id != own_id
            is_copy = header and not is_foreign and header.name != name
            strays[name] = CorruptionError(
                f"{directory.path}/{name}",
                0,
                0,
                f"the file {_describe(header, name, own_id)}; it does not belong here: {conflict}",
                reason=DamageReason.OUT_OF_PLACE,
                header_of=str(header.name) if header and is_copy else None,
                journal_id=header.journal_id.hex() if header and is_foreign else None,
            )
        else:
            before = name if is_whole and not is_older else None
    return strays


def majority_journal_id(
    directory: Directory, segments: list[SegmentName], journal_ids: Iterable[bytes]
) -> bytes:
    """Return the id that most of the segments and of `journal_ids` have."""
    return _majority_id(_read_headers(directory, segments), journal_ids)


def _majority_id(
    headers: dict[SegmentName, SegmentHeader | None], journal_ids: Iterable[bytes]
) -> bytes:
    ids = [header.journal_id for name, header in headers.items() if header and header.name == name]
    counts = Counter([*journal_ids, *ids])
    return max(counts, key=counts.__getitem__, default=b"")


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
    directory: Directory, segments: list[SegmentName]
) -> dict[SegmentName, SegmentHeader | None]:
    """Return the header of each segment, without files that a live writer removed meanwhile."""
    headers: dict[SegmentName, SegmentHeader | None] = {}
    for name in segments:
        with suppress(FileNotFoundError):
            headers[name] = _read_header(directory, name)
    return headers


def _read_header(directory: Directory, name: SegmentName) -> SegmentHeader | None:
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


def _describe(header: SegmentHeader | None, name: SegmentName, journal_id: bytes) -> str:
    """Return what the file `name` contains, in words. `header`: the one in it (None: damaged)."""
    if header is None:
        return "has no valid header"
    if header.journal_id != journal_id:
        return f"contains a segment of another journal, {header.journal_id.hex()}"
    return "contains a segment" if header.name == name else f"contains a copy of {header.name}"


def _continues_in(
    directory: Directory, before: SegmentName, name: SegmentName, header: SegmentHeader | None
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
