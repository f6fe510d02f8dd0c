"""Marker: the content of the file MIRROR, which states that a directory has a mirror.

Source: journal/docs/FORMAT.md, "Mirrors".
"""

from __future__ import annotations

import json
from typing import NamedTuple

from journal._disk.disk import ReadableDirectory
from journal._names import MIRROR

MARKER_ERRORS = ValueError, KeyError, TypeError, RecursionError
_BYTES_MAX = 1 << 16


class Marker(NamedTuple):
    """A mirrored directory's marker.

    url: the address of the mirror, without credentials. journal_id: the journal's identity, which
    no other file states until there is a segment or a checkpoint; "" if unknown. epoch, writer: of
    the last claim of this directory that is known to stand; 0 and "" before the first one. A
    follower notes the epoch of a later claim that it follows, and "". mirrored_lsn: the LSN up to
    which the mirror had every record then. next_writer: the id of a claim that was begun after
    that, or "". restored_lsn: the LSN to which the directory was restored, if its mirror has later
    ones; such a directory has no mirror yet. unclaimed_lsn: the LSN after which the directory may
    have been written to since then without a claim, None if it was not.
    """

    url: str
    journal_id: str = ""
    epoch: int = 0
    writer: str = ""
    next_writer: str = ""
    mirrored_lsn: int = 0
    restored_lsn: int | None = None
    unclaimed_lsn: int | None = None

    @property
    def writers(self) -> set[str]:
        """The ids in claims of this directory."""
        return {self.writer, self.next_writer} - {""}


def load_marker(directory: ReadableDirectory) -> Marker | None:
    """Return the directory's marker, or None if it has none.

    Raises one of MARKER_ERRORS if the file is damaged, and OSError.
    """
    if MIRROR not in directory.names():
        return None
    file = directory.open(MIRROR, "read")
    try:
        data = file.read(_BYTES_MAX, 0)
    finally:
        file.close()
    values = {"unclaimed_lsn": None, **json.loads(data)}  # earlier versions lack it
    marker = Marker(*(values[name] for name in Marker._fields))
    texts = marker.url, marker.journal_id, marker.writer, marker.next_writer
    lsns = marker.restored_lsn or 0, marker.unclaimed_lsn or 0
    numbers = marker.epoch, marker.mirrored_lsn, *lsns
    if not all(type(text) is str for text in texts):
        raise ValueError("a text is missing")
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("a number is missing")
    return marker
