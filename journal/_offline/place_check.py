"""Place check: checks of what an open refuses beside the log: a directory that others can write to,
LOCK, MIRROR and segments that are not regular files, and a damaged file MIRROR."""

from __future__ import annotations

from journal._disk.disk import Directory, file_size
from journal._format.marker import MARKER_ERRORS, load_marker
from journal._format.segment import Segment, SegmentName
from journal._mutex import is_raised_by_call
from journal._names import LOCK, MIRROR
from journal._offline.findings import Finding
from journal.errors import CorruptionError, DamageReason, UnsafePathError


def check_place(directory: Directory) -> None:
    """Raise UnsafePathError if an open refuses the directory, or LOCK or MIRROR in it, whatever
    the log contains."""
    directory.check_unshared()
    for name in {LOCK, MIRROR}.intersection(directory.names()):
        try:
            directory.open(name, "read").close()
        except UnsafePathError:
            raise
        except (FileNotFoundError, PermissionError):
            pass  # a writer removed it meanwhile, or it is somebody else's, which is no harm


def check_marker(directory: Directory) -> Finding | None:
    """Return the problem of the file MIRROR, for which an open refuses, or None if it has none."""
    try:
        load_marker(directory)
    except MARKER_ERRORS as error:
        if not is_raised_by_call(error, "journal", "json"):
            raise
        what = f"the marker of the mirror can't be read: {error!r:.200}"
        path, size = f"{directory.path}/{MIRROR}", file_size(directory, MIRROR)
        return Finding("corruption", path, 0, 0, size, what, DamageReason.MIRROR_DAMAGED)
    except FileNotFoundError:  # it was removed meanwhile
        pass
    return None


def open_segment(directory: Directory, name: SegmentName) -> Segment:
    """Return the segment. A file that is not regular is damaged, and an open that needs it refuses;
    but it must not hide what else is damaged."""
    try:
        return Segment(directory, name)
    except UnsafePathError as error:
        place = f"{directory.path}/{name}", 0, name.first_lsn
        raise CorruptionError(*place, error.what, reason=DamageReason.UNSAFE_FILE) from error
