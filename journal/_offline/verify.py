"""Verify: every segment and checkpoint looked at, needed for recovery or not."""

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
from journal._format.layout import MARK, SEGMENT_HEADER_BYTES
from journal._format.record import check_spans
from journal._format.segment import (
    FrameState,
    Segment,
    SegmentName,
    find_journal_id,
    segment_names,
)
from journal._format.segment_info import SegmentInfo
from journal._names import file_at
from journal._offline.findings import Finding, FrameInfo
from journal._offline.salvage import SalvageSegment
from journal._recovery.plan import foreign_to, missing_before
from journal._recovery.stray_segments import stray_segments, with_successors
from journal._recovery.walk import Walk, decode
from journal.errors import (
    CorruptionError,
    DamageReason,
    FormatVersionError,
    JournalError,
    UnsafePathError,
)

Progress = Callable[[int], object]  # called with the bytes read since the last call


def verify(directory: Directory, from_lsn: int, progress: Progress) -> Iterator[Finding]:
    """What is wrong, segments first. Takes no lock; the journal may be live."""
    for _, findings in check_segments(directory, from_lsn, progress):
        yield from findings
    names = directory.names()
    lsns, segments = checkpoint_lsns(names), segment_names(names)
    wrong = stray_segments(directory, segments)
    segments = [name for name in segments if name not in wrong]
    live = directory.lock_holder() is not None
    journal_id, verified = find_journal_id(directory), [0]
    for lsn in lsns:
        finding = _check_checkpoint(directory, lsn, journal_id, progress)
        if finding:
            yield finding
        else:
            verified.append(lsn)
    # Under a live writer the older one may have gone meanwhile, and what it needs.
    needed = [] if live else [lsn for lsn in lsns[-CHECKPOINTS_KEPT_MIN:] if lsn in verified]
    for base_lsn in (*needed[:1], verified[-1]):
        if missing := missing_before(directory.path, segments, base_lsn):
            yield _corruption(missing, 0)
            break
    end = Walk(directory.path, max(lsns, default=0))
    if not segments and (missing := end.cut_short()):  # the last one is never removed
        yield _corruption(missing, 0)
    for name in names:
        file = file_at(f"{directory.path}/{name}")
        if file.kind == "stray":
            message, reason = "not the journal's", DamageReason.UNKNOWN_FILE
        elif file.kind == "unfinished" and not live:
            message, reason = "left unfinished by a crash", DamageReason.UNFINISHED
        else:
            continue
        yield Finding("stray", file.path, 0, 0, 0, message, reason)


def frames(directory: Directory, after_lsn: int) -> Iterator[FrameInfo]:
    """What stands in each segment, in the order of the files."""
    live = directory.lock_holder() is not None
    segments = segment_names(directory.names())
    wrong = stray_segments(directory, segments)
    for name, after in with_successors(segments, wrong):
        if after and after.first_lsn - 1 <= after_lsn:
            continue
        try:
            if name in wrong:
                raise wrong[name]
            with SalvageSegment(directory, name) as segment:
                if not segment.is_whole:
                    yield FrameInfo(
                        segment.file.path, name.epoch, 0, SEGMENT_HEADER_BYTES, "garbage"
                    )
                for info in _frames(segment, after):
                    if live and not after and info.state in ("damaged", "garbage"):
                        break  # not finished
                    if info.state == "garbage" or info.last_lsn > after_lsn:
                        yield info
        except FileNotFoundError:
            continue  # compacted meanwhile
        except CorruptionError as error:
            yield FrameInfo(error.path, name.epoch, 0, SEGMENT_HEADER_BYTES, "garbage")


def _frames(segment: SalvageSegment, after: SegmentName | None) -> Iterator[FrameInfo]:
    path, next_lsn = segment.file.path, segment.name.first_lsn
    for found in segment.scan():
        size, header = found.end - found.offset, found.header
        if found.state is FrameState.GARBAGE:
            yield FrameInfo(path, segment.name.epoch, found.offset, size, "garbage")
            continue
        is_mark, records = header.kind == MARK, None
        if found.state is not FrameState.DAMAGED_PAYLOAD and not is_mark:
            with suppress(CorruptionError):
                records = decode(found, segment).records
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
            found.offset,
            size,
            state,
            header.first_lsn,
            header.record_count,
            header.durable_lsn,
            header.written_at_ns,
            int.from_bytes(segment.file.read(4, found.offset), "little"),
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
    """Each segment that has `from_lsn` or what follows it, with what is wrong with it."""
    live = directory.lock_holder() is not None
    names = directory.names()
    segments, lsns = segment_names(names), checkpoint_lsns(names)
    covered_lsn, evidence = floor_lsn(lsns), max(lsns, default=0)
    if live:  # a newer one may have been published since
        covered_lsn = evidence
    journal_id: bytes | None = None
    epoch = 0
    wrong = stray_segments(directory, segments)
    for name, after in with_successors(segments, wrong):
        if after and 1 < after.first_lsn <= from_lsn:
            with suppress(JournalError, FileNotFoundError), Segment(directory, name) as segment:
                journal_id, epoch = segment.header.journal_id, segment.header.epoch
            continue
        doubt: tuple[int, int] | None = None
        while True:
            try:
                if name in wrong:
                    raise wrong[name]
                with Segment(directory, name) as segment:
                    known_lsn = 0 if after else evidence
                    walk = Walk.at(segment, known_lsn, journal_id, epoch)
                    info, findings = _check_segment(
                        walk, segment, after, live, covered_lsn, progress
                    )
                    journal_id, epoch = walk.journal_id, walk.epoch
            except FileNotFoundError:
                break  # compacted meanwhile
            except CorruptionError as error:
                size = file_size(directory, str(name))
                state = SegmentInfo(error.path, *name[::-1], 0, size, 0, 0, "damaged")
                info, findings = state, [_corruption(error, size)]
            # The end of a live log moves: damage is what the next look finds at the same place.
            place = (findings[0].offset, findings[0].lsn) if findings else None
            if place == doubt or not (live and not after):
                yield info, findings
                break
            doubt = place


def _check_segment(
    walk: Walk,
    segment: Segment,
    after: SegmentName | None,
    live: bool,
    covered_lsn: int,
    progress: Progress,
) -> tuple[SegmentInfo, list[Finding]]:
    path, frames, durable_lsn, known_lsn = segment.file.path, 0, 0, walk.evidence
    error: CorruptionError | None = None
    try:
        walk.enter(segment)
        for batch in walk.batches(segment, after, read=check_spans):
            run = batch.run
            progress(run.end - run.offset)
            frames, durable_lsn = frames + len(run.spans), max(durable_lsn, run.durable_lsn)
        # What is left over from a removal may lack segments behind it, and its torn tail may be
        # one that they cut off.
        leftover = after and after.first_lsn - 1 <= covered_lsn
        if not after:
            walk.finish()
        elif not leftover or (walk.damage and walk.evidence >= walk.next_lsn):
            walk.leave(after)
    except CorruptionError as raised:
        error = raised
    state: Literal["active", "sealed", "torn", "damaged"] = "sealed"
    findings = []
    torn_offset = walk.damage.offset if walk.damage else walk.dead_offset
    end = segment.content_end()
    if error:
        state, findings = "damaged", [_corruption(error, max(0, end - error.offset))]
    elif live and not after:
        state = "active"
    elif torn_offset is not None:
        state = "torn"
        what, reason, lost_lsn = _tear_cause(walk, segment, torn_offset, after)
        message = f"{what}; the log goes on at LSN {walk.next_lsn}"
        size = max(0, end - torn_offset)
        place = path, torn_offset, walk.next_lsn
        findings = [Finding("torn_tail", *place, size, message, reason, durable_lsn=lost_lsn)]
    (first_lsn, epoch), last_lsn = segment.name, walk.next_lsn - 1
    # What was known before is no proof of this segment's, where it says that more is lost.
    proven_lsn = walk.evidence if walk.evidence > known_lsn else min(known_lsn, last_lsn)
    durable_lsn = max(durable_lsn, proven_lsn)
    last_lsn = last_lsn if last_lsn >= first_lsn else 0
    size = segment.size
    return SegmentInfo(path, epoch, first_lsn, last_lsn, size, frames, durable_lsn, state), findings


def _tear_cause(
    walk: Walk, segment: Segment, offset: int, after: SegmentName | None
) -> tuple[str, DamageReason, int | None]:
    """Return the cause in words, its reason, and the LSN that was durable, if that was cut off."""
    if not after:
        return "left unfinished by a crash", DamageReason.UNFINISHED, None
    frames = segment.scan(offset, walk.next_lsn)
    durable_lsn = max((found.header.durable_lsn for found in frames), default=0)
    if durable_lsn >= walk.next_lsn:
        what = f"cut off by a repair, though up to LSN {durable_lsn} all was durable"
        return what, DamageReason.CUT_OFF, durable_lsn
    return "left unfinished by a crash, or cut off by a repair", DamageReason.UNFINISHED, None


def _corruption(error: CorruptionError, size: int) -> Finding:
    place, facts = (error.path, error.offset, error.lsn), (error.durable_lsn, error.journal_id)
    return Finding("corruption", *place, size, error.what, error.reason, error.header_of, *facts)


def _check_checkpoint(
    directory: Directory, lsn: int, journal_id: str | None, progress: Progress
) -> Finding | None:
    """What is wrong with the checkpoint at `lsn`."""
    path = f"{directory.path}/{checkpoint_name(lsn)}"
    try:
        checkpoint = read_checkpoint(directory, lsn)
    except FileNotFoundError:
        return None  # compacted meanwhile
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
            found = _corruption(foreign, checkpoint.size_bytes)
            return replace(found, lsn=0)  # no record is lost
        for _ in checkpoint.items():
            pass
        progress(checkpoint.size_bytes)
    except CorruptionError as error:
        place, size = (error.path, error.offset, lsn), checkpoint.size_bytes
        return Finding("bad_checkpoint", *place, size, error.what, error.reason)
    finally:
        checkpoint.close()
    return None
