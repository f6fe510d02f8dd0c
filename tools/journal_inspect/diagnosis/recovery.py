"""What an open would do: the checkpoint it takes and what it replays, or why it refuses."""

from __future__ import annotations

from dataclasses import dataclass

from journal import (
    Checkpoint,
    DamageReason,
    JournalReader,
    RecoveryPreview,
    SegmentInfo,
    preview_recovery,
)
from journal_inspect.diagnosis.damage import preview_of


@dataclass(frozen=True, slots=True)
class Recovery:
    """What an open would do: take a checkpoint (None: there is none), replay `records` after
    it; or refuse, and why."""

    checkpoint_lsn: int | None
    records: int
    refused: str | None

    def __str__(self) -> str:
        if self.refused:
            return f"refuses: {self.refused}"
        after = "" if self.checkpoint_lsn is None else f" after LSN {self.checkpoint_lsn}"
        return f"replays {self.records} records{after}"


def recovery_of(
    reader: JournalReader,
    segments: list[SegmentInfo],
    checkpoints: list[Checkpoint],
    *,
    is_bad: bool,
) -> Recovery:
    """Return what an open would do with `segments` and the `checkpoints` that verify, newest
    first. If something is damaged (`is_bad`: another checkpoint), look where an open does."""
    preview = preview_recovery(segments, checkpoints, reader.journal_id)
    records = max(0, preview.last_lsn - preview.checkpoint_lsn)
    is_whole = (
        segments and not is_bad and not any(segment.state == "damaged" for segment in segments)
    )
    if not (is_whole or preview.refusal):
        preview = preview_of(reader) or preview
    return Recovery(checkpoints[0].lsn if checkpoints else None, records, describe_refusal(preview))


def describe_refusal(preview: RecoveryPreview) -> str | None:
    cause, base_lsn = preview.refusal, preview.checkpoint_lsn
    if cause is None:
        return None
    words = {
        DamageReason.BEGINNING_MISSING: f"what follows LSN {base_lsn} is missing",
        DamageReason.END_MISSING: f"the log ends before the checkpoint at LSN {cause.durable_lsn}",
        DamageReason.FOREIGN: f"{cause.path} is a checkpoint of another journal",
    }
    return words.get(cause.reason, f"{cause.path} is damaged")


def durable_lsn(segments: list[SegmentInfo], checkpoints: list[Checkpoint]) -> int:
    """The highest that anything whole proves to have been durable, though it be lost."""
    proven = [max(file.durable_lsn, file.first_lsn - 1) for file in segments]
    return max([*proven, *(file.lsn for file in checkpoints)], default=0)
