"""Names: the files of a journal's directory, as their names tell.

Source: journal/docs/FORMAT.md, "Files".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from journal._public import public

LOCK = "LOCK"  # names the writer, for people; no decision ever reads it
TMP = ".tmp"  # ends the name of a file that is being made; such a file is never read
SEGMENT_NAME = re.compile(r"([0-9]{20})-([0-9]{10})\.seg")
CHECKPOINT_NAME = re.compile(r"checkpoint-([0-9]{20})\.json")


@public
@dataclass(frozen=True, slots=True)
class JournalFile:
    """A file at `path`, in a journal's directory, as its name tells. Nothing of it was read.

    `kind`: "segment", "checkpoint", "lock", "unfinished" (it was being made, and is never read),
    or "stray", none of a journal's. `lsn` is a segment's first LSN or that of a checkpoint's state,
    and 0 for every other file.
    """

    path: str
    kind: Literal["segment", "checkpoint", "lock", "unfinished", "stray"]
    lsn: int = 0

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self.path.rpartition("/")[2]


def file_at(path: str) -> JournalFile:
    """Return what the name of the file at `path` tells."""
    name = path.rpartition("/")[2]
    if match := SEGMENT_NAME.fullmatch(name):
        return JournalFile(path, "segment", int(match[1]))
    if match := CHECKPOINT_NAME.fullmatch(name):
        return JournalFile(path, "checkpoint", int(match[1]))
    if name.endswith(TMP):
        return JournalFile(path, "unfinished")
    return JournalFile(path, "lock" if name == LOCK else "stray")


def is_journal(names: list[str]) -> bool:
    """Return whether a directory of files with these names is a journal."""
    # Of a journal that had just begun, a crash may leave no more than a file that was being made.
    files = (file_at(name.removesuffix(TMP)) for name in names)
    return any(file.kind in ("segment", "checkpoint", "lock") for file in files)
