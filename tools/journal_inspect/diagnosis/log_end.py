"""The log's end: the last LSN before damage, for readers that do not start at the beginning."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from journal import DamageReason, JournalReader, preview_recovery
from journal_inspect.rendering.text import command

_SCAN_BYTES_MAX = 1 << 26  # what is looked through in a tenth of a second or two


class DamagedEnd(NamedTuple):
    """The last LSN that comes before the damage, and the segment in which that is."""

    lsn: int
    segment: str

    def told(self, path: str) -> str:
        return (
            f"{path}: the log is damaged behind LSN {self.lsn}, in {Path(self.segment).name}: what "
            f"is behind that an open refuses; look closer with: {command('verify', path)}"
        )


def is_large(reader: JournalReader) -> bool:
    """Whether to look for damage would take longer than somebody waits for a few lines."""
    segments = [it.path for it in reader.files() if it.kind == "segment"]
    sizes = [Path(path).stat().st_size for path in segments]
    return sum(sizes[:-1]) > _SCAN_BYTES_MAX  # the last one is looked at anyway


def find_end(reader: JournalReader) -> DamagedEnd | None:
    """Where what an open would read is damaged first; None where it is not."""
    checkpoints = reader.checkpoints()
    for checkpoint in checkpoints:
        checkpoint.close()
    refusal = preview_recovery(reader.segments(), checkpoints).refusal
    if refusal and refusal.reason is DamageReason.SEGMENT_DAMAGED:
        return DamagedEnd(refusal.lsn - 1, refusal.path)
    return None
