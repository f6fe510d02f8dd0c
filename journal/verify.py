"""Verify: every segment and checkpoint looked at, needed for recovery or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from journal.checkpoint import checkpoint_lsns, checkpoint_name, read_checkpoint
from journal.errors import CorruptionError, JournalError
from journal.recovery import Walk, decode
from journal.segment import Segment, SegmentInfo, SegmentName, kept_after, segment_names
from journal.storage import LOCK, TMP, Directory


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `verify` has to say. `size_bytes` counts what can't be used; `lsn` is the
    first that is lost (0: none, or none can be named)."""

    kind: Literal["torn_tail", "corruption", "bad_checkpoint", "stray"]
    path: str
    offset: int
    lsn: int
    size_bytes: int
    message: str


def verify(directory: Directory) -> Iterator[Finding]:
    """What is wrong, segments first. Takes no lock; the journal may be live."""
    for _, findings in survey(directory):
        yield from findings
    names = directory.names()
    lsns, segments = checkpoint_lsns(names), segment_names(names)
    live = directory.lock_holder() is not None
    journal_id, verified = find_journal_id(directory), [0]
    for lsn in lsns:
        finding = _check(directory, lsn, journal_id)
        if finding:
            yield finding
        else:
            verified.append(lsn)
    # Under a live writer the older one may have gone meanwhile, and what it needs.
    older = [] if live else [lsn for lsn in lsns[-2:-1] if lsn in verified]
    for base_lsn in (*older, verified[-1]):
        first = next(iter(kept_after(segments, base_lsn)), None)
        if first and first.first_lsn > base_lsn + 1:
            what = f"the log begins here, what follows LSN {base_lsn} is missing"
            yield Finding("corruption", f"{directory.path}/{first}", 0, base_lsn + 1, 0, what)
            break
    if not segments:  # the last one is never removed
        try:
            Walk(directory, verified[-1], max(lsns, default=0)).finish()
        except CorruptionError as error:
            yield _corruption(error, 0)
    for name in names:
        unfinished = name.endswith(TMP)
        known = name == LOCK or segment_names([name]) or checkpoint_lsns([name])
        if not known and not (unfinished and live):
            message = "left unfinished by a crash" if unfinished else "not the journal's"
            yield Finding("stray", f"{directory.path}/{name}", 0, 0, 0, message)


def find_journal_id(directory: Directory) -> str | None:
    """That of the newest segment whose header is whole; None without one."""
    for name in reversed(segment_names(directory.names())):
        with suppress(CorruptionError, FileNotFoundError), Segment(directory, name) as segment:
            return segment.header.journal_id.hex()
    return None


def survey(directory: Directory) -> Iterator[tuple[SegmentInfo, list[Finding]]]:
    """Each segment, with what is wrong with it."""
    live = directory.lock_holder() is not None
    names = directory.names()
    segments, lsns = segment_names(names), [0, 0, *checkpoint_lsns(names)]
    covered_lsn, evidence = lsns[-2:]
    if live:  # a newer one may have been published since
        covered_lsn = evidence
    journal_id, epoch = None, 0
    for name, after in zip_longest(segments, segments[1:]):
        for attempt in (1, 2):
            try:
                with Segment(directory, name) as segment:
                    walk = Walk(directory, name.first_lsn - 1, 0 if after else evidence)
                    walk.journal_id, walk.epoch, walk.next_lsn = journal_id, epoch, name.first_lsn
                    info, findings = _survey_segment(walk, segment, after, live, covered_lsn)
                    journal_id, epoch = walk.journal_id, walk.epoch
            except FileNotFoundError:
                break  # compacted meanwhile
            except CorruptionError as error:
                state = SegmentInfo(error.path, name.epoch, name.first_lsn, 0, 0, 0, 0, "damaged")
                info, findings = state, [_corruption(error, 0)]
            # The end of a live log moves: damage is what is still there on a second look.
            if attempt == 2 or not (live and not after and info.state == "damaged"):
                yield info, findings
                break


def _survey_segment(
    walk: Walk, segment: Segment, after: SegmentName | None, live: bool, covered_lsn: int
) -> tuple[SegmentInfo, list[Finding]]:
    path, frames, durable_lsn = segment.file.path, 0, 0
    error: CorruptionError | None = None
    try:
        walk.enter(segment)
        for found, header in walk.frames(segment, after):
            decode(found, header, segment)
            frames, durable_lsn = frames + 1, max(durable_lsn, header.durable_lsn)
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
        message = f"left unfinished by a crash; the log goes on at LSN {walk.next_lsn}"
        size = max(0, end - torn_offset)
        findings = [Finding("torn_tail", path, torn_offset, walk.next_lsn, size, message)]
    (first_lsn, epoch), last_lsn = segment.name, walk.next_lsn - 1
    durable_lsn = max(durable_lsn, min(walk.evidence, last_lsn))
    last_lsn = last_lsn if last_lsn >= first_lsn else 0
    size = segment.size
    return SegmentInfo(path, epoch, first_lsn, last_lsn, size, frames, durable_lsn, state), findings


def _corruption(error: CorruptionError, size: int) -> Finding:
    return Finding("corruption", error.path, error.offset, error.lsn, size, error.what)


def _check(directory: Directory, lsn: int, journal_id: str | None) -> Finding | None:
    """What is wrong with the checkpoint at `lsn`."""
    path = f"{directory.path}/{checkpoint_name(lsn)}"
    try:
        checkpoint = read_checkpoint(directory, lsn)
    except FileNotFoundError:
        return None  # compacted meanwhile
    except JournalError as error:
        return Finding("bad_checkpoint", path, 0, lsn, 0, str(error).removeprefix(f"{path}: "))
    try:
        if journal_id not in (None, checkpoint.journal_id):
            what = f"a checkpoint of another journal, {checkpoint.journal_id}"
            return Finding("corruption", path, 0, 0, 0, what)
        for _ in checkpoint.items():
            pass
    except CorruptionError as error:
        return Finding("bad_checkpoint", error.path, error.offset, lsn, 0, error.what)
    finally:
        checkpoint.close()
    return None
