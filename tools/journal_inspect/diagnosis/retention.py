"""Retention: which entries and files a journal still has, and whether its beginning is missing."""

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
from journal_inspect.rendering.messages import command

_ATTEMPTS = 5  # while a live writer compacts away the files that were listed


def describe_kept(reader: JournalReader) -> str:
    """Describe which entries the journal holds."""
    first_lsn, last_lsn = min(reader.first_lsns, default=1), 0
    with suppress(CorruptionError):  # the caller reports it when it reads up to there
        last_lsn = reader.last_lsn
    if last_lsn < first_lsn:
        return "the journal holds no entry"
    return f"the journal holds LSN {first_lsn} to {last_lsn}"


def list_files(reader: JournalReader) -> tuple[list[SegmentInfo], list[Checkpoint]]:
    """Return the segments, and the checkpoints, newest first and closed.

    Checkpoints are listed before segments, because a checkpoint that a live writer publishes later
    may belong to a part of the log that the listed segments do not contain.
    """
    for _ in range(_ATTEMPTS):
        checkpoints = list_checkpoints(reader)
        segments = reader.segments()
        refusal = preview_recovery(segments, checkpoints).refusal
        is_overtaken = refusal and refusal.reason is DamageReason.BEGINNING_MISSING
        if not (is_overtaken and reader.live):
            break
    return segments, checkpoints


def list_checkpoints(reader: JournalReader) -> list[Checkpoint]:
    """Return the checkpoints, newest first and closed."""
    checkpoints = reader.checkpoints()
    for checkpoint in checkpoints:
        checkpoint.close()
    return checkpoints


def describe_beginning(reader: JournalReader) -> str | None:
    """Describe the damage if the beginning of the log is missing; return None if it is not.

    It is missing if the log begins after LSN 1 and no checkpoint covers the records before it.
    """
    first_lsn = min(reader.first_lsns, default=1)
    if first_lsn == 1:
        return None
    try:
        reader.check_beginning()
        return None
    except CorruptionError:
        pass
    return (
        f"{reader.path}: damaged: the log begins at LSN {first_lsn}, and no checkpoint covers the "
        "records before it, so an open refuses the journal; look closer with: "
        f"{command('verify', reader.path)}"
    )
