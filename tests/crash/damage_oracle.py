"""Predict how a damaged journal must open.

The prediction comes from the journal's bytes, read by an independent reader, and from the undamaged
journal, which shows what was durable and where the evidence was. The rule is that of the format,
but simpler, because the truth is known here: evidence counts wherever the damage has moved it. The
engine has to find it there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cache, lru_cache
from typing import NamedTuple

from tests.crash.crash_support import PATH
from tests.crash.damaged_journal import (
    Files,
    Opened,
    Place,
    is_segment,
    lsn_of,
    misnamed_past_end,
    places,
    proven_by_checkpoints,
)
from tests.independent_damage import resumption
from tests.independent_reader import (
    FRAME_HEADER,
    LSN_MAX,
    MARK,
    SEGMENT_HEADER,
    Checkpoint,
    FormatError,
    SegmentHeader,
    crc32c,
    decode_checkpoint,
    decode_frame,
    decode_segment,
    decode_segment_header,
)


class End(NamedTuple):
    """The place where a segment stops being a log, and whether bad bytes stop it there."""

    lsn: int  # the next LSN
    offset: int
    damaged: bool = False
    impossible: bool = False
    mark_offset: int | None = None  # if it is a mark that bad bytes follow

    @property
    def bad_at(self) -> int:
        """The place of the frame or mark at which the log should go on, and does not."""
        return self.offset if self.mark_offset is None else self.mark_offset


class Evidence(NamedTuple):
    """The evidence in the undamaged journal: its id, and the durable LSN in each header."""

    journal_id: bytes
    headers: dict[str, tuple[tuple[bytes, int], ...]]

    @classmethod
    def of(cls, undamaged: Files) -> Evidence:
        headers = {name: headers_of(undamaged[name]) for name in filter(is_segment, undamaged)}
        first = next(name for name in undamaged if is_segment(name))
        return cls(decode_segment_header(undamaged[first]).journal_id, headers)

    def left_in(self, contents: Files, name: str) -> int:
        """Return the highest durable LSN in a whole header, wherever in the segment it is."""
        headers = self.headers.get(name, ())
        return max((lsn for header, lsn in headers if header in contents[name]), default=0)


@cache
def headers_of(data: bytes) -> tuple[tuple[bytes, int], ...]:
    """Return each whole frame header with its durable LSN, even if its frame is torn."""
    seed, starts = decode_segment_header(data).seed, [place.start for place in places(data)]
    starts.append(places(data)[-1].end)
    heads = [data[start : start + FRAME_HEADER.size] for start in starts]
    whole = [head for head in heads if is_header(head, seed)]
    return tuple((head, FRAME_HEADER.unpack(head)[3]) for head in whole)


def is_header(head: bytes, seed: int) -> bool:
    return len(head) == FRAME_HEADER.size and crc32c(head[4:], seed) == FRAME_HEADER.unpack(head)[0]


# --- the parts ---


@lru_cache(4096)
def checkpoint(name: str, data: bytes) -> Checkpoint | None:
    """Return the checkpoint if it verifies and its name states its LSN."""
    try:
        decoded = decode_checkpoint(data)
    except (FormatError, ValueError):
        return None
    return decoded if decoded.lsn == lsn_of(name) else None


def checkpoints(contents: Files) -> list[tuple[str, Checkpoint]]:
    """Return the two newest checkpoints that verify, newest first. Recovery looks at no others."""
    names = [name for name in contents if name.startswith("checkpoint-")]
    decoded = ((name, checkpoint(name, contents[name])) for name in sorted(names, reverse=True))
    return [(name, each) for name, each in decoded if each][:2]


def base_lsn(contents: Files) -> int:
    return next((each.lsn for _, each in checkpoints(contents)), 0)


@lru_cache(4096)
def segment_header(name: str, data: bytes) -> SegmentHeader | None:
    try:
        header = decode_segment_header(data)
    except FormatError:
        return None
    return header if header.name == name else None


@lru_cache(4096)
def end_of(data: bytes, seed: int, lsn: int, before: int | None, covered: int = 0) -> End:
    """Return where the good frames from LSN `lsn` on end, at the latest at LSN `before`.

    Damage is passed over if the checkpoint at LSN `covered` covers it.
    """
    at = SEGMENT_HEADER.size
    while True:
        end = _end_from(data, at, seed, lsn, before)
        if end.impossible or not end.damaged:
            return end
        piece = resumption(data, end.bad_at, seed, end.lsn, covered)
        if piece is None:
            return end
        assert piece.header is not None
        at, lsn = piece.start, piece.header[2]


def _end_from(data: bytes, at: int, seed: int, lsn: int, before: int | None) -> End:
    while any(data[at:]) and lsn != before:
        head = data[at : at + FRAME_HEADER.size]
        if not is_header(head, seed):
            return End(lsn, at, damaged=True)
        try:
            decoded = decode_frame(data, at, seed)
        except FormatError:
            return End(lsn, at, impossible=True)
        _, _, first_lsn, durable_lsn, _, _, count, kind, _ = FRAME_HEADER.unpack(head)
        if first_lsn != lsn or durable_lsn >= lsn:
            return End(lsn, at, impossible=True)
        if decoded is None:
            return End(lsn, at, damaged=True)
        if kind == MARK:
            after_mark = at + FRAME_HEADER.size
            is_bad = any(data[after_mark:])
            return End(lsn, after_mark, damaged=True, mark_offset=at) if is_bad else End(lsn, at)
        lsn, at = lsn + count, decoded[1]
    return End(lsn, at)


def pairs(contents: Files) -> list[tuple[str, int | None]]:
    """Return each segment with the first LSN of the next one, where it must end."""
    names = sorted(filter(is_segment, contents))
    befores = [*map(lsn_of, names[1:]), None]
    return list(zip(names, befores, strict=True)) if names else []


def needed_after(contents: Files, lsn: int) -> list[tuple[str, int | None]]:
    """Return the segments that do not end at or below `lsn`."""
    return [(n, before) for n, before in pairs(contents) if before is None or before - 1 > lsn]


# --- the whole ---


def verdict(contents: Files, evidence: Evidence) -> Opened:
    """Return where open must refuse (path, offset, LSN), or the last LSN that it must yield."""
    good, base = checkpoints(contents), base_lsn(contents)
    checkpoint_lsn = proven_by_checkpoints(contents, evidence.journal_id)
    needed = needed_after(contents, base)
    if not needed:
        return ((PATH, 0, 1), 0) if checkpoint_lsn else (None, 0)
    foreign = foreign_segments(contents, evidence.journal_id)
    for name, _ in needed:
        if name in foreign:  # it is blamed first, because it makes other files look damaged
            return (f"{PATH}/{name}", 16, 0), 0
    epoch, end, last = 0, End(0, 0), needed[-1][0]
    for name, before in needed:
        first_lsn, path = lsn_of(name), f"{PATH}/{name}"
        header = segment_header(name, contents[name])
        if header is None:
            return (path, 0, first_lsn), 0
        if header.epoch < epoch:
            return (path, 12, first_lsn), 0
        if not epoch and first_lsn > base + 1:
            return (path, 0, base + 1), 0
        for checkpoint_name, each in good:
            if each.journal_id != evidence.journal_id:
                return (f"{PATH}/{checkpoint_name}", 0, each.lsn), 0
        epoch = header.epoch
        end = end_of(contents[name], header.seed, first_lsn, before, base)
        if end.impossible or (before is not None and end.lsn != before):
            return (path, end.offset, end.lsn), 0
    if max(checkpoint_lsn, evidence.left_in(contents, last)) >= end.lsn:
        return (f"{PATH}/{last}", end.offset, end.lsn), 0
    if misnamed := misnamed_past_end(contents, end.lsn):
        return (f"{PATH}/{misnamed}", 0, 0), 0
    if stray := misnamed_first_kept(contents):
        return (f"{PATH}/{stray}", 0, lsn_of(stray)), 0
    return None, end.lsn - 1


def foreign_segments(contents: Files, journal_id: bytes) -> set[str]:
    """Return the segments of another journal, whatever their names."""
    foreign = set[str]()
    for name in filter(is_segment, contents):
        with suppress(FormatError):
            if decode_segment_header(contents[name]).journal_id != journal_id:
                foreign.add(name)
    return foreign


def misnamed_first_kept(contents: Files) -> str | None:
    """Return the first segment that open would keep, if its header does not match its name.

    Return None if open would remove no leftovers. A name alone must not get a segment removed.
    """
    good = checkpoints(contents)
    if not any(map(is_segment, leftovers(contents))):
        return None
    first, _ = needed_after(contents, good[1][1].lsn)[0]
    return None if segment_header(first, contents[first]) else first


def stray_segments(contents: Files, undamaged: Files) -> set[str]:
    """Return the stray segments, without which the log continues.

    A stray segment has a wrong name: the undamaged journal shows that another segment, or none,
    holds the records that the name promises. A segment of another journal is always a stray.
    """
    journal_id = Evidence.of(undamaged).journal_id
    foreign = foreign_segments(contents, journal_id)
    contents = {name: data for name, data in contents.items() if name not in foreign}
    as_named = set[str]()
    for name in filter(is_segment, contents):
        header = segment_header(name, contents[name])
        if header and header.journal_id == journal_id:
            as_named.add(name)
    strays, before = set(foreign), ""
    for name in sorted(filter(is_segment, contents)):
        after = min((each for each in as_named if each > name), default="")
        is_older = bool(before) and epoch_of(name) < epoch_of(before)
        if name in as_named and not is_older:
            before = name
        elif (
            (after and (is_older or epoch_of(name) > epoch_of(after)))
            or (after and lsn_of(name) == lsn_of(after))
            or (before and is_held(contents, undamaged, before, name))
        ):
            strays.add(name)
        else:
            before = ""  # it may be the log's next segment, damaged
    return strays


def epoch_of(name: str) -> int:
    return int(name[21:31])


def is_held(contents: Files, undamaged: Files, before: str, name: str) -> bool:
    """Return whether `before` still holds the first record that `name` promises.

    Return False if a segment of a later epoch may have replaced that record.
    """
    lsn = lsn_of(name)
    holders = [
        place.first_lsn
        for place in places(undamaged[before])
        if place.first_lsn <= lsn <= place.last_lsn
        and undamaged[before][place.start : place.end] in contents[before]
    ]
    if epoch_of(name) <= epoch_of(before) or any(first_lsn < lsn for first_lsn in holders):
        return bool(holders)
    try:
        decode_segment_header(contents[name])
    except FormatError:
        return False
    return bool(holders) and Evidence.of(undamaged).left_in(contents, before) >= lsn


def leftovers(contents: Files) -> set[str]:
    """Return the files that an open may remove because two checkpoints verify without them.

    An interrupted removal leaves such files.
    """
    good = checkpoints(contents)
    if len(good) < 2:
        return set()
    oldest = good[1][1].lsn
    covered = {name for name, before in pairs(contents) if before and before - 1 <= oldest}
    names = [name for name in contents if name.startswith("checkpoint-")]
    return covered | {name for name in names if lsn_of(name) < oldest}


def has_seed(name: str, data: bytes, undamaged: bytes) -> bool:
    """Return whether the segment's header yields its seed.

    It does if it is whole, or if its CRC is intact, or if all bytes that the CRC covers are intact
    and the header of the first frame confirms them.
    """
    crc, frames = SEGMENT_HEADER.size - 4, SEGMENT_HEADER.size
    spans = (0, crc), (frames, frames + FRAME_HEADER.size)
    return (
        segment_header(name, data) is not None
        or data[crc:frames] == undamaged[crc:frames]
        or all(data[slice(*span)] == undamaged[slice(*span)] for span in spans)
    )


def whole_frames(contents: Files, undamaged: Files) -> Iterator[Place]:
    """Yield the frames that are intact, at their old place or elsewhere in their segment."""
    for name in sorted(filter(is_segment, contents)):
        data = undamaged.get(name, b"")
        for place in places(data) if data and has_seed(name, contents[name], data) else ():
            is_frame = place.last_lsn >= place.first_lsn
            if is_frame and data[place.start : place.end] in contents[name]:
                yield place


def meaning(contents: Files) -> dict[str, object]:
    """Return everything that a journal states: its checkpoints' contents and its log's records."""
    stated: dict[str, object] = {}
    for name, before in pairs(contents):
        try:
            segment = decode_segment(contents[name], before=before)
        except FormatError:
            stated[name] = None
        else:
            frames = [(frame.first_lsn, frame.records) for frame in segment.frames]
            stated[name] = segment.header, [each for each in frames if each[1]]
    for name in contents:
        if name.startswith("checkpoint-"):
            stated[name] = checkpoint(name, contents[name])
    return stated


# --- what verify finds ---


def expected_findings(contents: Files, evidence: Evidence) -> set[tuple[str, str, int]] | None:
    """Return the file, kind and offset of everything that `verify` must report.

    Return None if a segment belongs to another journal or another place, because it then decides
    what the other segments should hold.
    """
    checkpoint_lsn = proven_by_checkpoints(contents, evidence.journal_id)
    expected, epoch, next_lsn = set[tuple[str, str, int]](), 0, 1
    for name, before in pairs(contents):
        header, next_lsn = segment_header(name, contents[name]), lsn_of(name)
        if header is None:
            expected.add((name, "corruption", 0))
            continue
        if header.epoch < epoch:
            return None
        epoch, data, seed = header.epoch, contents[name], header.seed
        proven_lsn = checkpoint_lsn if before is None else before - 1
        proven_lsn = max(proven_lsn, evidence.left_in(contents, name) if before is None else 0)
        end = end_of(data, seed, lsn_of(name), before)
        while not end.impossible and proven_lsn >= end.lsn:
            expected.add((name, "corruption", end.offset))
            limit = before - 1 if before else LSN_MAX
            piece = resumption(data, end.bad_at, seed, end.lsn, limit) if end.damaged else None
            if piece is None or piece.header is None:
                break
            end = _end_from(data, piece.start, seed, piece.header[2], before)
        next_lsn = end.lsn
        if end.impossible:
            expected.add((name, "corruption", end.offset))
        elif proven_lsn >= end.lsn:
            pass
        elif end.damaged:
            expected.add((name, "torn_tail", end.offset))
        elif before and (offset := dead_from(contents[name], end, header.seed)):
            expected.add((name, "torn_tail", offset))
    misnamed = misnamed_past_end(contents, next_lsn) if pairs(contents) else None
    for name, data in contents.items():
        if name.startswith("checkpoint-"):
            each = checkpoint(name, data)
            if each is None:
                expected.add((name, "corruption" if name == misnamed else "bad_checkpoint", 0))
            elif each.journal_id != evidence.journal_id:
                return None
    for lsn in [each.lsn for _, each in reversed(checkpoints(contents))] or [0]:
        first = next(iter(needed_after(contents, lsn)), None)
        if first and lsn_of(first[0]) > lsn + 1:
            expected.add((first[0], "corruption", 0))
            break
    if not any(map(is_segment, contents)) and checkpoint_lsn:
        expected.add((PATH[1:], "corruption", 0))
    return expected


def dead_from(data: bytes, end: End, seed: int) -> int | None:
    """Return the offset of dead bytes after the log's end in a segment that has a successor.

    Return None if only zeros follow, or the segment's own mark and then zeros.
    """
    try:
        decoded = decode_frame(data, end.offset, seed)
    except FormatError:
        return end.offset
    at = end.offset
    if decoded is not None:
        mark, after_mark = decoded
        is_own = not mark.records and mark.first_lsn == end.lsn and mark.durable_lsn < end.lsn
        at = after_mark if is_own else at
    return at if any(data[at:]) else None
