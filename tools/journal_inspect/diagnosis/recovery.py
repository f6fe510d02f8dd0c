"""The next open: a forecast of the state that it recovers, or of the reason why it refuses."""

from __future__ import annotations

from dataclasses import dataclass

from _journal_console.text import count_of

from journal import (
    Checkpoint,
    DamageReason,
    JournalReader,
    RecoveryPreview,
    SegmentInfo,
    UnsafePathError,
    preview_recovery,
)
from journal_inspect.diagnosis.damage import preview_of


@dataclass(frozen=True, slots=True)
class Recovery:
    """A forecast of the next open."""

    checkpoint_lsn: int | None
    """The LSN of the checkpoint that it would use; None if there is no checkpoint."""

    records: int
    """The number of records that it would replay after the checkpoint."""

    refused: str | None
    """The reason why it would refuse; None if it would not."""

    def describe(self, *, has_mirror: bool) -> str:
        """Describe it in a line. `has_mirror`: an open with the mirror would not refuse."""
        if self.refused:
            return f"refuses{' without its mirror' if has_mirror else ''}: {self.refused}"
        after = f" after LSN {self.checkpoint_lsn}" if self.checkpoint_lsn else ""
        return f"replays {count_of(self.records, 'record')}{after}"


def recovery_of(
    reader: JournalReader,
    segments: list[SegmentInfo],
    checkpoints: list[Checkpoint],
    *,
    may_be_bad: bool,
    unsafe: UnsafePathError | None = None,
) -> Recovery:
    """Return what an open would do with `segments` and the `checkpoints` that verify, newest first.

    If one of these is damaged, or another file may be (`may_be_bad`), repeat the steps of an open,
    so that the same file is named. `unsafe`: the error for which it refuses, whatever they contain.
    """
    preview = preview_recovery(segments, checkpoints, reader.journal_id)
    records = max(0, preview.last_lsn - preview.checkpoint_lsn)
    states = {segment.state for segment in segments}
    is_whole = segments and not may_be_bad and not states & {"damaged", "stray"}
    if not is_whole and not unsafe:
        preview = preview_of(reader) or preview
    refused = unsafe.what if unsafe else describe_refusal(preview)
    return Recovery(checkpoints[0].lsn if checkpoints else None, records, refused)


def describe_refusal(preview: RecoveryPreview) -> str | None:
    cause, base_lsn = preview.refusal, preview.checkpoint_lsn
    if cause is None:
        return None
    words = {
        DamageReason.BEGINNING_MISSING: (
            f"{cause.path}: the log begins here, and the records after LSN {base_lsn} are missing"
        ),
        DamageReason.END_MISSING: (
            f"{cause.path}: the log ends before LSN {cause.lsn}, but LSN {cause.durable_lsn} was "
            "durable"
        ),
        DamageReason.FOREIGN: f"{cause.path} is a {_kind(cause.path)} of another journal",
        DamageReason.MISNAMED: f"{cause.path} has the name of another file",
        DamageReason.OUT_OF_PLACE: f"{cause.path} does not belong to this log",
    }
    return words.get(cause.reason, f"{cause.path} is damaged")


def _kind(path: str) -> str:
    return "checkpoint" if path.endswith(".json") else "segment"


def durable_lsn(segments: list[SegmentInfo], checkpoints: list[Checkpoint]) -> int:
    """Return the highest LSN that a whole file proves was durable, even if its record is lost."""
    log = [file for file in segments if file.state != "stray"]
    proven = [max(file.durable_lsn, file.first_lsn - 1) for file in log]
    return max([*proven, *(file.lsn for file in checkpoints)], default=0)
