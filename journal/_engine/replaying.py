"""Replaying: the entries of an open journal, read while others may append."""

from __future__ import annotations

from collections.abc import Iterator

from journal._commit.lifecycle import Lifecycle
from journal._disk.disk import Directory
from journal._format.record import Entry
from journal._offline.reader import read_batches
from journal._recovery.walk import ReplayBatch
from journal.errors import FailedError, JournalError


def entries_of(
    directory: Directory, lifecycle: Lifecycle, after: int, limit_lsn: int
) -> Iterator[Entry]:
    """Yield the entries after LSN `after` up to `limit_lsn`. See Journal.replay."""
    batches = read_batches(directory, after, limit_lsn)
    while batch := _next(batches, directory, lifecycle):
        epoch, filler_lsn = batch.epoch, batch.filler_lsn
        for _, at_ns, first_lsn, records in batch.frames():
            is_filler = first_lsn == filler_lsn  # it has its own frame
            for lsn, record in enumerate(records, first_lsn):
                yield Entry(lsn, epoch, at_ns, record, None, None, is_filler)
        del batch, records  # before the next batch is read: each may be one large frame


def _next(
    batches: Iterator[ReplayBatch], directory: Directory, lifecycle: Lifecycle
) -> ReplayBatch | None:
    try:
        return next(batches, None)
    except JournalError:
        raise
    except OSError as error:
        lifecycle.check()  # raises ClosedError if it was closed meanwhile
        raise FailedError(f"{directory.path}: can't be read: {error}") from error
