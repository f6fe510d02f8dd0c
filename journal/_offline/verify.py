"""Verify: a check of every segment and checkpoint, whether recovery needs it or not, and of the
file MIRROR."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from journal._disk.disk import Directory, file_size
from journal._format.checkpoint import (
    CHECKPOINTS_KEPT_MIN,
    BadCheckpointError,
    checkpoint_lsns,
    checkpoint_name,
    floor_lsn,
    read_checkpoint,
)
from journal._format.layout import LSN_MAX, MARK, SEGMENT_HEADER_BYTES
from journal._format.record import check_spans
from journal._format.segment import FrameState, Segment, SegmentName, segment_names
from journal._format.segment_info import SegmentInfo
from journal._names import file_at
from journal._offline.findings import Finding, FrameInfo
from journal._offline.place_check import check_marker, check_place, open_segment
from journal._offline.salvage import SalvageSegment
from journal._recovery.checkpoints import read_proofs
from journal._recovery.plan import foreign_to, missing_before
from journal._recovery.stray_segments import find_journal_id, stray_segments, with_successors
from journal._recovery.walk import Reading, Walk, decode
from journal.errors import (
    CorruptionError,
    DamageReason,
    FormatVersionError,
    JournalError,
    UnsafePathError,
)

Progress = Callable[[int], object]  # called with the bytes read since the last call


def verify(
    directory: Directory, from_lsn: int, progress: Progress, segments_read: list[SegmentInfo]
) -> Iterator[Finding]:
    """Yield the problems of a journal: first the stray segments, which may cause others, then those
    of the other segments, and so on. Append the report on each segment to `segments_read`.

    This takes no lock, and the journal may be live. At the end, it raises UnsafePathError for a
    directory that an open refuses.
    """
    strays = stray_segments(directory, segment_names(directory.names()))
    for stray, error in strays.items():
        yield _corruption(error, file_size(directory, str(stray)))
    for info, findings in check_segments(directory, from_lsn, progress):
        segments_read.append(info)
        if info.state != "stray":
            yield from findings
    names = directory.names()
    lsns, segments = checkpoint_lsns(names), segment_names(names)
    segments = [name for name in segments if name not in strays]
    live = directory.lock_holder() is not None
    journal_id, verified = find_journal_id(directory), [0]
    proofs, next_lsn = read_proofs(directory, lsns), _next_lsn(segments_read)
    # The log of a live writer goes on. One without segments is reported below.
    past_end = proofs.past_end(next_lsn) if segments and not live else None
    for lsn in lsns:
        finding = _check_checkpoint(directory, lsn, journal_id, progress)
        if finding and past_end and finding.path == past_end.path:
            yield _corruption(past_end, finding.size_bytes)
        elif finding:
            yield finding
        else:
            verified.append(lsn)
    # A live writer may have removed the older checkpoint meanwhile, with the segments it needs.
    needed = [] if live else [lsn for lsn in lsns[-CHECKPOINTS_KEPT_MIN:] if lsn in verified]
    for base_lsn in (*needed[:1], verified[-1]):
        if missing := missing_before(directory.path, segments, base_lsn):
            yield _corruption(missing, 0)
            break
    end = Walk(directory.path, proofs.evidence)
    if not segments and (missing := end.cut_short()):  # the last segment is never removed
        yield _corruption(missing, 0)
    for name in names:
        file = file_at(f"{directory.path}/{name}")
        if file.kind == "stray":
            message, reason = "the file does not belong to the journal", DamageReason.UNKNOWN_FILE
        elif file.kind == "unfinished" and not live:
            message, reason = "a crash left the file unfinished", DamageReason.UNFINISHED
        else:
            continue
        yield Finding("stray", file.path, 0, 0, 0, message, reason)
    check_place(directory)
    if finding := check_marker(directory):
        yield finding


def _next_lsn(segments: list[SegmentInfo]) -> int:
    """Return the LSN before which the log ends."""
    log = [info for info in segments if info.state != "stray"]
    return max(log[-1].last_lsn + 1, log[-1].first_lsn) if log else 1


def frames(directory: Directory, after_lsn: int, read: Reading) -> Iterator[FrameInfo]:
    """Yield the pieces of each segment, in the order of the files. `read` unpacks the records."""
    live = directory.lock_holder() is not None
    segments = segment_names(directory.names())
    strays = stray_segments(directory, segments)
    for name, after in with_successors(segments, strays):
        if after and after.first_lsn - 1 <= after_lsn:
            continue
        try:
            if name in strays:
                raise strays[name]
            with SalvageSegment(directory, name) as segment:
                if not segment.is_whole:
                    yield FrameInfo(
                        segment.file.path, name.epoch, 0, SEGMENT_HEADER_BYTES, "garbage"
                    )
                for info in _frames(segment, after, read):
                    if live and not after and info.state in ("damaged", "garbage"):
                        break  # the live writer has not finished this frame
                    if info.state == "garbage" or info.last_lsn > after_lsn:
                        yield info
        except FileNotFoundError:
            continue  # compaction has removed it meanwhile
        except (CorruptionError, UnsafePathError):
            path = f"{directory.path}/{name}"
            yield FrameInfo(path, name.epoch, 0, SEGMENT_HEADER_BYTES, "garbage")


def _frames(
    segment: SalvageSegment, after: SegmentName | None, read: Reading
) -> Iterator[FrameInfo]:
    path, next_lsn = segment.file.path, segment.name.first_lsn
    for scanned in segment.scan():
        size, header = scanned.end - scanned.offset, scanned.header
        if scanned.state is FrameState.GARBAGE:
            yield FrameInfo(path, segment.name.epoch, scanned.offset, size, "garbage")
            continue
        is_mark, records = header.kind == MARK, None
        if scanned.state is not FrameState.DAMAGED_PAYLOAD and not is_mark:
            with suppress(CorruptionError):
                records = decode(scanned, segment, read).records
        state: Literal["log", "mark", "cut", "dead", "damaged"] = "dead"
        if not is_mark and records is None:
            state = "damaged"
        elif after and header.first_lsn >= after.first_lsn + is_mark:
            state = "cut"
        elif is_mark:
            state = "mark"
        elif segment.is_whole and header.broken_rule(next_lsn) is None:
            state, next_lsn = "log", next_lsn + header.record_count
        yield FrameInfo(
            path,
            segment.name.epoch,
            scanned.offset,
            size,
            state,
            header.first_lsn,
            header.record_count,
            header.durable_lsn,
            header.written_at_ns,
            int.from_bytes(segment.file.read(4, scanned.offset), "little"),
            header.payload_crc,
            records,
        )


def _ignore(size_bytes: int) -> None:
    pass


def check_segments(
    directory: Directory,
    from_lsn: int = 1,
    progress: Progress = _ignore,
) -> Iterator[tuple[SegmentInfo, list[Finding]]]:
    """Yield each segment that holds `from_lsn` or a later LSN, with the problems found in it."""
    live = directory.lock_holder() is not None
    names = directory.names()
    segments, lsns = segment_names(names), checkpoint_lsns(names)
    covered_lsn, evidence = floor_lsn(lsns), read_proofs(directory, lsns).evidence
    if live:  # the writer may have published a newer checkpoint, and removed what that covers
        covered_lsn = max(lsns, default=0)
    journal_id: bytes | None = None
    epoch = 0
    strays = stray_segments(directory, segments)
    for name, after in with_successors(segments, strays):
        if after and 1 < after.first_lsn <= from_lsn:
            with suppress(JournalError, FileNotFoundError), Segment(directory, name) as segment:
                journal_id, epoch = segment.header.journal_id, segment.header.epoch
            continue
        suspect_place: tuple[int, int] | None = None
        while True:
            try:
                if name in strays:
                    raise strays[name]
                with open_segment(directory, name) as segment:
                    known_lsn = 0 if after else evidence
                    walk = Walk.at(segment, known_lsn, journal_id, epoch)
                    info, findings = _check_segment(
                        walk, segment, after, live, covered_lsn, progress
                    )
                    journal_id, epoch = walk.journal_id, walk.epoch
            except FileNotFoundError:
                break  # compaction has removed it meanwhile
            except CorruptionError as error:
                size = file_size(directory, str(name))
                lost = (name.first_lsn, after.first_lsn - 1 if after else 0)
                info = SegmentInfo(error.path, *name[::-1], 0, size, 0, 0, "damaged", (lost,))
                if name in strays:
                    info = replace(info, state="stray", unreadable=())
                findings = [_corruption(error, size)]
            # The end of a live log moves. So bytes there are damaged only if a second look finds
            # the same problem at the same place.
            place = (findings[0].offset, findings[0].lsn) if findings else None
            if place == suspect_place or not (live and not after):
                yield info, findings
                break
            suspect_place = place


def _check_segment(
    walk: Walk,
    segment: Segment,
    after: SegmentName | None,
    live: bool,
    covered_lsn: int,
    progress: Progress,
) -> tuple[SegmentInfo, list[Finding]]:
    path, frames, durable_lsn, known_lsn = segment.file.path, 0, 0, walk.evidence
    errors: list[CorruptionError] = []
    end_lsn = after.first_lsn - 1 if after else 0
    # A leftover of an interrupted removal may lack the segments after it, and one of those may have
    # cut off its torn tail.
    is_leftover = bool(after) and end_lsn <= covered_lsn
    try:
        walk.enter(segment)
        while True:
            for batch in walk.batches(segment, after, read=check_spans):
                run = batch.run
                progress(run.end - run.offset)
                frames, durable_lsn = frames + len(run.spans), max(durable_lsn, run.durable_lsn)
            if error := _missing(walk, after, is_leftover=is_leftover):
                errors.append(error)
            if not (error and walk.damage and walk.pass_over_damage(segment, end_lsn or LSN_MAX)):
                break
    except CorruptionError as raised:
        errors.append(raised)
    state: Literal["active", "sealed", "torn", "damaged"] = "sealed"
    torn_offset = walk.damage.offset if walk.damage else walk.dead_offset
    end = segment.content_end()
    findings = [_corruption(error, max(0, end - error.offset)) for error in errors]
    is_torn = torn_offset is not None and len(errors) == len(walk.holes)
    if errors:
        state = "damaged"
    elif live and not after:
        state = "active"
    elif is_torn:
        state = "torn"
    if torn_offset is not None and is_torn and state != "active":
        cause, reason, lost_lsn = _tear_cause(walk, segment, torn_offset, after)
        message = f"{cause}; the log continues at LSN {walk.next_lsn}"
        size = max(0, end - torn_offset)
        place = path, torn_offset, walk.next_lsn
        findings.append(Finding("torn_tail", *place, size, message, reason, durable_lsn=lost_lsn))
    (first_lsn, epoch), last_lsn = segment.name, walk.next_lsn - 1
    # `known_lsn` comes from the checkpoints, not from this segment. So it counts here only up to
    # the last LSN in the segment.
    proven_lsn = walk.evidence if walk.evidence > known_lsn else min(known_lsn, last_lsn)
    durable_lsn = max(durable_lsn, proven_lsn)
    unreadable = [(hole.first_lsn, hole.last_lsn) for hole in walk.holes]
    if len(errors) > len(unreadable):  # nothing can be read after the last one
        unreadable.append((walk.next_lsn, end_lsn))
    last_lsn = last_lsn if last_lsn >= first_lsn else 0
    facts = (segment.size, frames, durable_lsn, state, tuple(unreadable))
    return SegmentInfo(path, epoch, first_lsn, last_lsn, *facts), findings


def _missing(walk: Walk, after: SegmentName | None, *, is_leftover: bool) -> CorruptionError | None:
    """Return an error if records that were durable are missing where the walk has stopped."""
    try:
        if not after:
            walk.finish()
        elif not is_leftover or (walk.damage and walk.evidence >= walk.next_lsn):
            walk.leave(after)
    except CorruptionError as error:
        return error
    return None


def _tear_cause(
    walk: Walk, segment: Segment, offset: int, after: SegmentName | None
) -> tuple[str, DamageReason, int | None]:
    """Return the cause of a torn tail in words, its reason, and, if durable records were cut off,
    the last LSN that was durable."""
    if not after:
        return "a crash left this tail unfinished", DamageReason.UNFINISHED, None
    frames = segment.scan(offset, walk.next_lsn)
    durable_lsn = max((scanned.header.durable_lsn for scanned in frames), default=0)
    if durable_lsn >= walk.next_lsn:
        cause = f"a repair cut this tail off, although LSN {durable_lsn} was durable"
        return cause, DamageReason.CUT_OFF, durable_lsn
    cause = "a crash left this tail unfinished, or a repair cut it off"
    return cause, DamageReason.UNFINISHED, None


def _corruption(error: CorruptionError, size: int) -> Finding:
    place, facts = (
        (error.path, error.offset, error.lsn),
        (error.durable_lsn, error.journal_id, error.last_lsn),
    )
    return Finding("corruption", *place, size, error.what, error.reason, error.header_of, *facts)


def _check_checkpoint(
    directory: Directory, lsn: int, journal_id: str | None, progress: Progress
) -> Finding | None:
    """Return the problem of the checkpoint at `lsn`, or None if it has none."""
    path = f"{directory.path}/{checkpoint_name(lsn)}"
    try:
        checkpoint = read_checkpoint(directory, lsn)
    except FileNotFoundError:
        return None  # compaction has removed it meanwhile
    except (BadCheckpointError, FormatVersionError, UnsafePathError) as error:
        reason = DamageReason.UNSAFE_FILE
        if isinstance(error, FormatVersionError):
            reason = DamageReason.NEWER_VERSION
        elif isinstance(error, BadCheckpointError):
            reason = error.reason
        size = file_size(directory, checkpoint_name(lsn))
        return Finding("bad_checkpoint", path, 0, lsn, size, error.what, reason)
    try:
        if foreign := foreign_to(journal_id, [checkpoint]):
            finding = _corruption(foreign, checkpoint.size_bytes)
            return replace(finding, lsn=0)  # no record is lost
        for _ in checkpoint.items():
            pass
        progress(checkpoint.size_bytes)
    except CorruptionError as error:
        place, size = (error.path, error.offset, lsn), checkpoint.size_bytes
        return Finding("bad_checkpoint", *place, size, error.what, error.reason)
    finally:
        checkpoint.close()
    return None
