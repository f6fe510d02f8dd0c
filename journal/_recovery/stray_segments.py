"""Stray segments: segments that no log could hold where their names put them.

A segment ends where the next one begins, and only names say so. A file that is not what its name
says, as a copy under another name, would end the one before it in its middle. Where that one
proves that it went on, the name is wrong and nothing is lost: without the file the log is whole.
Where nothing proves it, the file may be a segment that was damaged, and the log ends there.
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
    """Each such segment, and why. `journal_ids`: what else says whose journal it is."""
    headers = _headers(directory, segments)
    ours = _majority_id(headers, journal_ids)
    whole = [name for name, header in headers.items() if _is(header, name, ours)]
    strays: dict[SegmentName, CorruptionError] = {}
    before: SegmentName | None = None  # None: whatever it was, it can't be read
    for name, header in headers.items():
        is_whole = _is(header, name, ours)
        is_older = before is not None and name.epoch < before.epoch
        why = None
        if is_older or not is_whole:
            after = next((other for other in whole if other > name), None)
            if before and is_older and after:
                why = f"epoch {name.epoch} behind epoch {before.epoch}"
            elif after and name.epoch > after.epoch:
                why = f"epoch {name.epoch} in front of epoch {after.epoch}"
            elif after and name.first_lsn == after.first_lsn:
                why = f"the log goes on at LSN {name.first_lsn} in {after}"
            elif before and _continues_in(directory, before, name, header):
                why = f"LSN {name.first_lsn} is in {before}"
        if why:
            is_foreign = header and header.journal_id != ours
            is_copy = header and not is_foreign and header.name != name
            strays[name] = CorruptionError(
                f"{directory.path}/{name}",
                0,
                0,
                f"{_content(header, name, ours)}; no log has it here: {why}",
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
    """The id of the journal that most of it is of."""
    return _majority_id(_headers(directory, segments), journal_ids)


def _majority_id(
    headers: dict[SegmentName, SegmentHeader | None], journal_ids: Iterable[bytes]
) -> bytes:
    ids = [header.journal_id for name, header in headers.items() if header and header.name == name]
    counts = Counter([*journal_ids, *ids])
    return max(counts, key=counts.__getitem__, default=b"")


def with_successors(
    segments: list[SegmentName], wrong: Container[SegmentName]
) -> list[tuple[SegmentName, SegmentName | None]]:
    """Each segment, and the one behind it that ends it, which is none of the `wrong` ones."""
    pairs: list[tuple[SegmentName, SegmentName | None]] = []
    after: SegmentName | None = None
    for name in reversed(segments):
        pairs.append((name, after))
        after = after if name in wrong else name
    return pairs[::-1]


def _headers(
    directory: Directory, segments: list[SegmentName]
) -> dict[SegmentName, SegmentHeader | None]:
    """Without files that a live writer has removed meanwhile."""
    headers: dict[SegmentName, SegmentHeader | None] = {}
    for name in segments:
        with suppress(FileNotFoundError):
            headers[name] = _header(directory, name)
    return headers


def _header(directory: Directory, name: SegmentName) -> SegmentHeader | None:
    """As it stands there, whatever name the file has; None if it can't be read."""
    with suppress(JournalError):
        file = directory.open(str(name), "read")
        try:
            return read_header(file, name.first_lsn)
        finally:
            file.close()
    return None


def _is(header: SegmentHeader | None, name: SegmentName, journal_id: bytes) -> bool:
    return header is not None and (header.name, header.journal_id) == (name, journal_id)


def _content(header: SegmentHeader | None, name: SegmentName, journal_id: bytes) -> str:
    if header is None:
        return "no segment that can be read"
    if header.journal_id != journal_id:
        return f"a segment of another journal, {header.journal_id.hex()}"
    return "a segment" if header.name == name else f"a copy of {header.name}"


def _continues_in(
    directory: Directory, before: SegmentName, name: SegmentName, header: SegmentHeader | None
) -> bool:
    """Whether the log went on in `before` where `name` says that it begins."""
    begins_there, durable_lsn = False, 0
    with suppress(CorruptionError, FileNotFoundError), Segment(directory, before) as segment:
        for scanned in segment.scan():
            durable_lsn = max(durable_lsn, scanned.header.durable_lsn)
            if scanned.state is not FrameState.RECORDS:
                continue
            first_lsn = scanned.header.first_lsn
            if first_lsn < name.first_lsn < first_lsn + scanned.header.record_count:
                return True  # every cut lies between two frames
            begins_there = begins_there or first_lsn == name.first_lsn
    # Only a later epoch cuts, so before one of the same no frame is dead. Before a later one it may
    # be, unless it was durable; and a file that is merely damaged may be the cut itself.
    is_cut = name.epoch > before.epoch and (header is None or durable_lsn < name.first_lsn)
    return begins_there and not is_cut
