"""Reading: the reader of a journal whose records may be of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from journal import JournalReader

MEMORY_MAX_MIN = 1 << 25


def open_reader(path: str, memory_max: int = MEMORY_MAX_MIN) -> JournalReader:
    """Return a reader that makes the objects of a record only if they take little memory."""
    from journal import JournalReader

    return JournalReader.open(path, memory_max_bytes=memory_max)
