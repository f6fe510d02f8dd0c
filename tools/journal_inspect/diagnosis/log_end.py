"""The end of a damaged log, for verbs that do not read the log from its beginning."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from journal import DamageReason, JournalReader, preview_recovery
from journal_inspect.rendering.messages import command

_SCAN_BYTES_MAX = 1 << 26  # a check takes a tenth of a second or two


class DamagedEnd(NamedTuple):
    """The last LSN before the damage, and the damaged segment."""

    lsn: int
    segment: str

    def describe(self, path: str) -> str:
        return (
            f"{path}: the log is damaged after LSN {self.lsn}, in {Path(self.segment).name}; an "
            f"open refuses the journal; look closer with: {command('verify', path)}"
        )


def is_large(reader: JournalReader) -> bool:
    """Return whether a check for damage would take too long before showing a few lines."""
    segments = [file.path for file in reader.files() if file.kind == "segment"]
    sizes = []
    for path in segments:
        with suppress(FileNotFoundError):  # compacted meanwhile
            sizes.append(Path(path).stat().st_size)
    return sum(sizes[:-1]) > _SCAN_BYTES_MAX  # the last one is read anyway


def find_end(reader: JournalReader) -> DamagedEnd | None:
    """Return the first damage to what an open would read, or None if there is none."""
    checkpoints = reader.checkpoints()
    for checkpoint in checkpoints:
        checkpoint.close()
    refusal = preview_recovery(reader.segments(), checkpoints).refusal
    if refusal and refusal.reason is DamageReason.SEGMENT_DAMAGED:
        return DamagedEnd(refusal.lsn - 1, refusal.path)
    return None
