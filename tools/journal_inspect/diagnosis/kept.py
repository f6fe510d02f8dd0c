"""Kept: from where to where a log goes, for who asked for what is not in it; and whether its
beginning is gone without a checkpoint in its place."""

from __future__ import annotations

from contextlib import suppress

from journal import Checkpoint, CorruptionError, JournalReader, SegmentInfo
from journal_inspect.rendering.text import command

_LOOKS = 5  # while a live writer compacts away what was looked at


def told_kept(reader: JournalReader) -> str:
    """Which entries there are to be read."""
    first_lsn, last_lsn = min(reader.first_lsns, default=1), 0
    with suppress(CorruptionError):  # told by who reads up to there
        last_lsn = reader.last_lsn
    if last_lsn < first_lsn:
        return "it holds no entry"
    return f"it holds LSN {first_lsn} to {last_lsn}"


def first_state_lsn(reader: JournalReader) -> int:
    """The first LSN as of which a fleet can be told: that of the oldest checkpoint that the log
    goes on from, or 1."""
    first_lsn = min(reader.first_lsns, default=1)
    lsns = _checkpoint_lsns(reader)
    return 1 if first_lsn == 1 else min((it for it in lsns if it + 1 >= first_lsn), default=0)


def look_at_files(reader: JournalReader) -> tuple[list[SegmentInfo], list[Checkpoint]]:
    """The segments, and the checkpoints, newest first and closed, that were there before those were
    read: one that a live writer publishes later is of a log that they do not show."""
    for _ in range(_LOOKS):
        checkpoints = reader.checkpoints()
        for checkpoint in checkpoints:
            checkpoint.close()
        segments = reader.segments()
        base_lsn = checkpoints[0].lsn if checkpoints else 0
        first_lsn = min((segment.first_lsn for segment in segments), default=1)
        if first_lsn <= base_lsn + 1 or not reader.live:
            break
    return segments, checkpoints


def told_beginning(reader: JournalReader) -> str | None:
    """That the log begins behind what a checkpoint covers, so that an open refuses; None if it
    does not."""
    for _ in range(2):  # compaction may have been between the two looks
        first_lsn = min(reader.first_lsns, default=1)
        base_lsn = max(_checkpoint_lsns(reader) if first_lsn > 1 else [], default=0)
        if first_lsn <= base_lsn + 1:
            return None
    return (
        f"{reader.path}: damaged: the log begins at LSN {first_lsn}, and no checkpoint tells what "
        f"came before it: an open refuses; look closer with: {command('verify', reader.path)}"
    )


def _checkpoint_lsns(reader: JournalReader) -> list[int]:
    checkpoints = reader.checkpoints()
    for checkpoint in checkpoints:
        checkpoint.close()
    return [checkpoint.lsn for checkpoint in checkpoints]
