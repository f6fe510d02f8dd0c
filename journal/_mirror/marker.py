"""Marker: the file that states that a directory has a mirror, and which claim is the directory's.

    {"url": "s3://bucket/app", "journal_id": "5d...", "epoch": 7, "writer": "9f...",
     "next_writer": "", "mirrored_lsn": 41, "restored_lsn": null, "unclaimed_lsn": null}

Each open makes a random id, which its claim states. If the marker has the id of the mirror's last
claim, the directory is that of the last writer, and its lock proves that this writer has ended. The
id is in the marker before the claim that states it, so after a crash between the two, the next open
needs no takeover either. Source: journal/docs/FORMAT.md, "Mirrors".
"""

from __future__ import annotations

import json
from typing import NamedTuple

from journal._commit.writer import NO_SPACE
from journal._disk.disk import TMP, Directory, is_disk_error, remove_if_exists, write_all
from journal._mirror.errors import MirrorError, MirrorReason
from journal._mutex import is_raised_by_call
from journal._names import MIRROR

_BYTES_MAX = 1 << 16


class Marker(NamedTuple):
    """A mirrored directory's marker.

    url: the address of the mirror, without credentials. journal_id: the journal's identity, which
    no other file states until there is a segment or a checkpoint; "" if unknown. epoch, writer: of
    the last claim of this directory that is known to stand; 0 and "" before the first one. A
    follower notes the epoch of the claim that it follows. mirrored_lsn: the LSN up to which the
    mirror had every record then. next_writer: the id of a claim that was begun after that, or "".
    restored_lsn: the LSN to which the directory was restored, if its mirror has later ones; such a
    directory has no mirror yet. unclaimed_lsn: the LSN after which the directory may have been
    written to since then without a claim, None if it was not.
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


def read_marker(directory: Directory) -> Marker | None:
    """Return the directory's marker, or None if it has none. Raises MirrorError and OSError."""
    if MIRROR not in directory.names():
        return None
    file = directory.open(MIRROR, "read")
    try:
        data = file.read(_BYTES_MAX, 0)
    finally:
        file.close()
    try:
        values = {"unclaimed_lsn": None, **json.loads(data)}  # earlier versions lack it
        marker = Marker(*(values[name] for name in Marker._fields))
        texts = marker.url, marker.journal_id, marker.writer, marker.next_writer
        lsns = marker.restored_lsn or 0, marker.unclaimed_lsn or 0
        numbers = marker.epoch, marker.mirrored_lsn, *lsns
        if not all(type(text) is str for text in texts):
            raise ValueError("a text is missing")
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("a number is missing")
    except (ValueError, KeyError, TypeError) as error:
        if not is_raised_by_call(error, "journal", "json"):
            raise
        raise MirrorError(
            f"{directory.path}/{MIRROR}",
            f"the marker of the mirror can't be read: {error!r:.200}; if the directory is the one "
            "that was last written, remove this file and open it with takeover=True",
            reason=MirrorReason.DAMAGED,
        ) from error
    return marker


def write_marker(directory: Directory, marker: Marker) -> None:
    """Replace the marker, atomically and durably. Raises OSError."""
    unfinished = MIRROR + TMP
    remove_if_exists(directory, unfinished)
    file = directory.open(unfinished, "create")
    try:
        write_all(file, json.dumps(marker._asdict()).encode() + b"\n", 0)
        file.sync()
    finally:
        file.close()
    directory.rename(unfinished, MIRROR)
    directory.sync()


def note_unclaimed(directory: Directory, marker: Marker, lsn: int) -> Marker:
    """Note, durably, that the log goes on after `lsn` without a claim, unless it did so before.
    Return the new marker. Raises OSError."""
    if marker.unclaimed_lsn is not None or marker.restored_lsn is not None:
        return marker
    noted = marker._replace(unclaimed_lsn=lsn)
    try:
        write_marker(directory, noted)
    except OSError as error:
        # An open needs no space. The mirror is compared without this later.
        if error.errno not in NO_SPACE or not is_disk_error(error, directory):
            raise
        return marker
    return noted


def note_followed(directory: Directory, epoch: int) -> None:
    """Note, durably, that the directory follows the writer of a claim of this epoch. Raises
    MirrorError and OSError."""
    marker = read_marker(directory)
    if marker is not None and marker.epoch < epoch:
        write_marker(directory, marker._replace(epoch=epoch))
