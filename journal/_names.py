"""Names: the kinds of files in a journal's directory, and the patterns of their names.

Source: journal/docs/FORMAT.md, "Files".
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from journal._public import public

LOCK = "LOCK"  # the file that names the writer, for people; recovery never reads it
MIRROR = "MIRROR"  # the file that states that the directory has a mirror
COMPANIONS = frozenset({"control", "output"})  # directories that a manager keeps beside its journal
MIRROR_PLACE = "MIRROR.place"  # a note of how far the mirror is known; recovery never reads it
COPYING = "COPYING.tmp"  # the file that marks an incomplete copy, if there is no ASIDE
ASIDE = "ASIDE"  # the file that completes a directory of segments that were put aside
SALVAGED = "SALVAGED"  # the file that completes a directory of salvaged records
TMP = ".tmp"  # the suffix of a file that is being made; such a file is never read
SEGMENT_NAME = re.compile(r"([0-9]{20})-([0-9]{10})\.seg")
CHECKPOINT_NAME = re.compile(r"checkpoint-([0-9]{20})\.json")


@public
class JournalFile(NamedTuple):
    """A file in a journal's directory, as its name describes it. Its contents were not read."""

    path: str
    """The path of the file."""

    kind: Literal[
        "segment", "checkpoint", "lock", "mirror", "salvage", "unfinished", "companion", "stray"
    ]
    """The kind of the file: "mirror" for one that states something of the directory's mirror,
    "salvage" for one that states from where the records were salvaged, "unfinished" for one that
    was being made and is never read, "companion" for a directory that a manager of sub-agents keeps
    beside the journal's files, "stray" for one that does not belong to a journal."""

    lsn: int = 0
    """The first LSN of a segment, the LSN of a checkpoint's state, and 0 for every other file."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


def file_at(path: str) -> JournalFile:
    """Return the kind and the LSN that the name of the file at `path` states."""
    name = path.rpartition("/")[2]
    if match := SEGMENT_NAME.fullmatch(name):
        return JournalFile(path, "segment", int(match[1]))
    if match := CHECKPOINT_NAME.fullmatch(name):
        return JournalFile(path, "checkpoint", int(match[1]))
    if name.endswith(TMP):
        return JournalFile(path, "unfinished")
    if name in COMPANIONS:
        return JournalFile(path, "companion")
    if name == SALVAGED:
        return JournalFile(path, "salvage")
    if name in (LOCK, MIRROR, MIRROR_PLACE, ASIDE):
        return JournalFile(path, "lock" if name == LOCK else "mirror")
    return JournalFile(path, "stray")


def is_journal(names: list[str]) -> bool:
    """Return whether a directory of files with these names is a journal."""
    if is_incomplete_copy(names):
        return False
    # If a crash interrupts the making of a journal, an unfinished file may be all that exists, or
    # the marker that precedes its mirror's claim.
    files = (file_at(name.removesuffix(TMP)) for name in names)
    return any(
        file.kind in ("segment", "checkpoint", "lock") or file.name == MIRROR for file in files
    )


def is_incomplete_copy(names: list[str]) -> bool:
    """Return whether a directory of files with these names is a copy of a journal that is being
    made, or was interrupted."""
    return COPYING in names and ASIDE not in names
