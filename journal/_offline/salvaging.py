"""Salvaging: finds the lost records that can be read, and writes them to a journal of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from journal._commit.batch import CommitBatch
from journal._commit.writer import Writer
from journal._disk.disk import Directory
from journal._format.layout import LSN_MAX, PAYLOAD_BYTES_MAX
from journal._format.record import RecordPacker
from journal._format.segment import FrameState
from journal._offline.recovery_preview import RecoveryDryRun
from journal._offline.salvage import SalvageSegment
from journal._offline.salvaged import Salvaged, SalvagedFrame, write_origin
from journal._recovery.stray_segments import stray_segments, with_successors
from journal._recovery.walk import ReplayBatch, decode
from journal.errors import CorruptionError, UnsafePathError
from journal.options import Options


class _EarlierTime:
    """A clock that shows the time at which the records were written first."""

    def __init__(self, at_ns: int) -> None:
        self.at_ns = at_ns

    def now_ns(self) -> int:
        return self.at_ns


def frames_past_cut(dry_run: RecoveryDryRun, last_lsn: int) -> Iterator[tuple[ReplayBatch, bool]]:
    """Yield the valid frames whose records are neither in the log up to `last_lsn` nor in the
    checkpoint from which it continues, and whether the records are lost.

    Records are not lost if an open after a crash has cut them off: they were never acknowledged,
    and their program may have written them again since.
    """
    directory, segments = dry_run.directory, dry_run.segments
    strays = stray_segments(directory, segments)
    for name, after in with_successors(segments, strays):
        if name in strays:
            continue
        cut_lsn = after.first_lsn if after else LSN_MAX + 1
        is_broken = suppress(CorruptionError, UnsafePathError)
        with is_broken, SalvageSegment(directory, name) as segment:
            durable_lsn = _durable_lsn_past(segment, cut_lsn) if after else 0
            for scanned in segment.scan():
                header = scanned.header
                if scanned.state is not FrameState.RECORDS:
                    continue
                is_dead = header.first_lsn >= cut_lsn  # another record has its LSN, or none
                frame_lsn = header.first_lsn + header.record_count - 1
                if frame_lsn <= last_lsn and not is_dead:
                    continue
                with suppress(CorruptionError):
                    batch = decode(scanned, segment)
                    if not batch.filler_lsn:  # elsewhere, it would be a record of the owner
                        is_lost = not is_dead or frame_lsn <= durable_lsn
                        yield batch if is_dead else batch.after(last_lsn), is_lost


def write_salvage(
    target: Directory,
    lost: list[tuple[ReplayBatch, SalvagedFrame]],
    origin: str,
    journal_id: str,
    new_id: str,
) -> None:
    """Write the records to a new journal, with new LSNs but their old times.

    It states which LSNs they had in the journal `origin` of the id `journal_id`, and where they
    were. `new_id`: its own id.
    """
    options = Options(frame_bytes_max=PAYLOAD_BYTES_MAX)
    packer = RecordPacker(frame_bytes_max=PAYLOAD_BYTES_MAX)
    clock = _EarlierTime(lost[0][0].written_at_ns)
    writer = Writer(target, clock, options, journal_id=new_id, epoch=1, last_lsn=0)
    try:
        next_lsn = 1
        for batch, _ in lost:
            clock.at_ns = batch.written_at_ns
            commit = CommitBatch.of(next_lsn, [packer.pack(record) for record in batch.records])
            writer.prepare(commit)
            writer.write(commit)
            next_lsn += len(batch.records)
        writer.close()
        frames = [frame for _, frame in lost]
        write_origin(target, Salvaged(target.path, origin, journal_id, frames))
    finally:
        writer.release()


def _durable_lsn_past(segment: SalvageSegment, cut_lsn: int) -> int:
    """Return the highest LSN that a frame or mark after the cut at `cut_lsn` states as durable."""
    headers = (scanned.header for scanned in segment.scan())
    return max((header.durable_lsn for header in headers if header.first_lsn >= cut_lsn), default=0)
