"""Restore: the function for users that makes a directory from a mirror."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from math import inf

from journal._disk.disk import Directory, StrPath
from journal._format.layout import LSN_MAX
from journal._mirror.marker import Marker, write_marker
from journal._mirror.public_errors import as_public
from journal._mirror.restoring import RestoreReport, Target, restore_into
from journal._mirror.store import StoreError
from journal._mirror.urls import open_store, shown_url
from journal._mutex import is_raised_by_call
from journal._public import public

_UNIX_S_MAX = 1e12  # later than any datetime
_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"-(?=\d)(?:\d+(?:\.\d+)?(?:min|[smhdw]))+")
_PART = re.compile(r"([\d.]+)(min|[smhdw])")


@public
def restore(
    url: str,
    path: StrPath,
    lsn: int | None = None,
    at: datetime | float | str | None = None,
    *,
    progress: Callable[[int], object] | None = None,
) -> RestoreReport:
    """Restore the journal that is mirrored at `url` into the new directory `path`, and verify it.

    `lsn`: the last LSN to restore. The restore goes on to the end of the commit that holds it, and
    the report states the LSN that was reached. `at`: a time instead, as a datetime (without a zone,
    it is local), as Unix seconds, as ISO 8601 text, or as text such as "-1h30m" or "now"; then all
    that was written by that time is restored, up to the first commit with a later time, also if the
    writer's clock was set back after that. Without either, everything is.

    A directory that was restored to an earlier LSN than the mirror has can't continue the same
    mirror: give it a new one. `progress` is called with the number of bytes that were written since
    its last call.

    Raises FileExistsError if `path` exists and is neither empty nor an incomplete copy, LockedError
    if a writer or another restore begins there, FileNotFoundError if there is no journal at `url`,
    CompactedError if the mirror does not have that LSN or time, MirrorError for a mirror that is
    damaged or can't be read, CorruptionError if the restored journal does not verify, ValueError
    for another address, LSN or time, and OSError. Nothing that it has made is left in the directory
    then. If the process is killed, no open takes a part of the journal for the whole, and another
    restore to `path` begins anew. Source: journal/docs/RELIABILITY.md, "Mirrors".
    """
    target = target_of(lsn, at)
    shown = shown_url(url)

    def mark(directory: Directory, restored_lsn: int) -> None:
        write_marker(directory, Marker(shown, restored_lsn=restored_lsn))

    try:
        store = open_store(url, is_reader=True)
        try:
            return restore_into(store, path, target, mark=mark, progress=progress or _ignore)
        finally:
            store.close()
    except StoreError as error:
        raise as_public(error, shown, str(path)) from error


def target_of(lsn: int | None, at: datetime | float | str | None) -> Target:
    """Return the target that a caller gave. Raises ValueError and TypeError."""
    if lsn is not None and at is not None:
        raise ValueError("give lsn or at, not both")
    if lsn is not None and (type(lsn) is not int or not 0 <= lsn <= LSN_MAX):
        raise ValueError(f"lsn must be an LSN, or 0, not {lsn!r:.80}")
    if at is None:
        return Target(lsn)
    moment = _parsed(at) if isinstance(at, str) else at
    if isinstance(moment, bool) or not isinstance(moment, (datetime, int, float)):
        raise ValueError(f"at must be a datetime, Unix seconds or text, not {at!r:.80}")
    try:
        unix_s = moment.timestamp() if isinstance(moment, datetime) else moment
    except (ValueError, OverflowError, OSError) as error:  # the calendar does not have it
        if not is_raised_by_call(error):
            raise
        unix_s = inf
    if not abs(unix_s) < _UNIX_S_MAX:
        raise ValueError(f"at={at!r:.80} is out of range")
    return Target(unix_ns=round(unix_s * 1_000_000) * 1000)


def _parsed(text: str) -> datetime | float:
    if text == "now":
        return time.time()
    if _AGO.fullmatch(text):
        parts = _PART.findall(text)
        return time.time() - sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        if not is_raised_by_call(error):
            raise
        forms = "2026-01-31T23:59:59, -1h30m, or now"
        raise ValueError(f"at={text!r:.80} is not a time; give one such as {forms}") from None


def _ignore(size_bytes: int) -> None:
    pass
