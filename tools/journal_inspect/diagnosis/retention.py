"""Retention: from where to where a log goes, for who asked for what is not in it; and whether its
beginning is gone without a checkpoint in its place."""

from __future__ import annotations

from contextlib import suppress

from journal import (
    Checkpoint,
    CorruptionError,
    DamageReason,
    JournalReader,
    SegmentInfo,
    preview_recovery,
)
from journal_inspect.rendering.text import command

_ATTEMPTS = 5  # while a live writer compacts away what was looked at


def describe_kept(reader: JournalReader) -> str:
    """Which entries there are to be read."""
    first_lsn, last_lsn = min(reader.first_lsns, default=1), 0
    with suppress(CorruptionError):  # told by who reads up to there
        last_lsn = reader.last_lsn
    if last_lsn < first_lsn:
        return "it holds no entry"
    return f"it holds LSN {first_lsn} to {last_lsn}"


def list_files(reader: JournalReader) -> tuple[list[SegmentInfo], list[Checkpoint]]:
    """The segments, and the checkpoints, newest first and closed, that were there before those were
    read: one that a live writer publishes later is of a log that they do not show."""
    for _ in range(_ATTEMPTS):
        checkpoints = reader.checkpoints()
        for checkpoint in checkpoints:
            checkpoint.close()
        segments = reader.segments()
        refusal = preview_recovery(segments, checkpoints).refusal
        is_overtaken = refusal and refusal.reason is DamageReason.BEGINNING_MISSING
        if not (is_overtaken and reader.live):
            break
    return segments, checkpoints


def describe_beginning(reader: JournalReader) -> str | None:
    """That the log begins behind what a checkpoint covers, so that an open refuses; None if it
    does not."""
    first_lsn = min(reader.first_lsns, default=1)
    if first_lsn == 1:
        return None
    try:
        reader.check_beginning()
        return None
    except CorruptionError:
        pass
    return (
        f"{reader.path}: damaged: the log begins at LSN {first_lsn}, and no checkpoint tells what "
        f"came before it: an open refuses; look closer with: {command('verify', reader.path)}"
    )
