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

from journal._commit.writer import NO_SPACE
from journal._disk.disk import TMP, Directory, is_disk_error, remove_if_exists, write_all
from journal._format.marker import MARKER_ERRORS, load_marker
from journal._format.marker import Marker as Marker  # the modules that compare import it from here
from journal._mirror.errors import MirrorError, MirrorReason
from journal._mutex import is_raised_by_call
from journal._names import MIRROR


def read_marker(directory: Directory) -> Marker | None:
    """Return the directory's marker, or None if it has none. Raises MirrorError and OSError."""
    try:
        return load_marker(directory)
    except MARKER_ERRORS as error:
        if not is_raised_by_call(error, "journal", "json"):
            raise
        raise MirrorError(
            f"{directory.path}/{MIRROR}",
            f"the marker of the mirror can't be read: {error!r:.200}; if the directory is the one "
            "that was last written, remove this file and open it with takeover=True",
            reason=MirrorReason.DAMAGED,
        ) from error


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
        write_marker(directory, follows(marker, epoch))


def follows(marker: Marker, epoch: int) -> Marker:
    """Return the marker of a directory that follows the writer of a claim of this epoch. If that is
    a later one, the directory is no longer that of the last writer."""
    return marker._replace(epoch=epoch, writer="") if marker.epoch < epoch else marker
