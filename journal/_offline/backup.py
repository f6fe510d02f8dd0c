"""Backup: a consistent copy of a journal, live or not, which is verified before it counts."""

from __future__ import annotations

from dataclasses import dataclass

from journal._disk.disk import TMP, Directory, Disk, StrPath, write_all
from journal._disk.posix import PosixDisk, disk_or_default, path_of
from journal._format import frame
from journal._format.checkpoint import CHECKPOINTS_KEPT_MIN, checkpoint_name, floor_lsn
from journal._format.layout import MARK
from journal._format.segment import read_header, segment_names, segments_after
from journal._names import LOCK
from journal._offline.new_directory import NewDirectory, fill_directory
from journal._offline.reader import JournalReader, read_batches, readable
from journal._public import public
from journal._recovery.checkpoints import find_checkpoints
from journal._recovery.walk import ReplayBatch
from journal.errors import CompactedError, CorruptionError, DamageReason

_COPY_BYTES = 1 << 20
_ATTEMPTS = 5


@public
@dataclass(frozen=True, slots=True)
class BackupReport:
    """A finished copy of a journal."""

    path: str
    """The directory of the copy."""

    lsn: int
    """The LSN up to which the copy holds every record."""

    segments: int
    """The number of its segments."""

    checkpoints: int
    """The number of its checkpoints."""

    size_bytes: int
    """The size of all its files, in bytes."""


@public
def backup(path: StrPath, dest: StrPath, *, disk: Disk | None = None) -> BackupReport:
    """Copy the journal at `path`, live or not, into the new directory `dest`, and verify it.

    The copy holds the two newest checkpoints, and the log from the older one on, as far as a reader
    can read it: of a live journal, the records that a durable LSN in the log covers. If the call
    raises anything, it removes what it has made in `dest`. If the process is killed, no open takes
    a part of the journal for the whole, and another backup to `dest` begins anew.

    Raises FileExistsError if `dest` exists and is neither empty nor an incomplete copy, LockedError
    if a writer or another copy begins there, NotAJournalError if there is no journal at `path`, and
    CorruptionError.
    """
    disk = disk_or_default(disk)
    JournalReader.open(path, disk=disk).close()  # raises NotAJournalError
    directory = disk.open_directory(path, write=False)
    try:
        return backup_directory(directory, disk, dest, None)
    finally:
        directory.close(unlock=False)


def backup_directory(
    directory: Directory, disk: Disk, dest: StrPath, limit_lsn: int | None
) -> BackupReport:
    """Back up a journal as `backup` does, up to `limit_lsn` (None: as far as a reader can read)."""
    if isinstance(disk, PosixDisk):
        dest = path_of(dest, "dest")

    def fill(target: NewDirectory) -> BackupReport:
        _copy_or_restart(directory, target, limit_lsn)
        return _verified(target, limit_lsn)

    try:
        return fill_directory(disk, dest, fill)
    except CorruptionError:
        _blame_source(directory)
        raise


def _copy_or_restart(directory: Directory, target: NewDirectory, limit_lsn: int | None) -> None:
    for _ in range(_ATTEMPTS):
        try:
            _copy_all(directory, target, limit_lsn)
            return
        except (FileNotFoundError, CompactedError):
            target.clear()  # compaction removed a file before it was copied: start again
    problem = f"compaction removed files before they were copied, {_ATTEMPTS} times in a row"
    raise CompactedError(f"{directory.path}: {problem}; try again", 0)


def _blame_source(directory: Directory) -> None:
    """Raise CorruptionError that names the source, if the copy is damaged because the source is."""
    for finding in JournalReader(directory).verify():
        if finding.kind == "corruption":
            raise finding.as_error()


def _copy_all(directory: Directory, target: NewDirectory, limit_lsn: int | None) -> None:
    names = directory.names()
    checkpoints = find_checkpoints(directory, names, CHECKPOINTS_KEPT_MIN)
    if limit_lsn is not None:  # a checkpoint that was made meanwhile needs the log up to its LSN
        limit_lsn = max(limit_lsn, checkpoints.base_lsn)
    try:
        begin_lsn = floor_lsn(checkpoints.verified_lsns)
        needed = segments_after(segment_names(names), begin_lsn)
        after_lsn = needed[0].first_lsn - 1 if needed else begin_lsn
        ends: dict[str, int] = {}
        last: ReplayBatch | None = None
        batches = (
            readable(directory, after_lsn)
            if limit_lsn is None
            else read_batches(directory, after_lsn, limit_lsn)
        )
        for batch in batches:
            ends[batch.path.rpartition("/")[2]] = batch.run.end
            last = batch
        last_lsn = last.last_lsn if last else 0
        if last_lsn < checkpoints.base_lsn:
            lsn = checkpoints.base_lsn
            raise CompactedError(f"LSN {lsn} is no longer kept", last_lsn + 1, lsn=lsn)
        for name, end in ends.items():
            # Nothing follows the last frame of a copy, so a mark states that it was durable.
            is_last = last is not None and last.path.endswith(f"/{name}")
            copy_file(directory, target, name, end, last if is_last else None)
        for checkpoint in reversed(checkpoints.good):
            copy_file(directory, target, checkpoint_name(checkpoint.lsn), None)
        target.open(LOCK, "create").close()  # without it, the copy of an empty journal is none
        target.sync()
    finally:
        checkpoints.close()


def copy_file(
    source: Directory,
    target: Directory,
    name: str,
    size: int | None,
    last: ReplayBatch | None = None,
) -> None:
    """Copy the first `size` bytes of a file (None: all). The copy gets its name once it is synced.

    `last`: the last batch of the segment; a mark is written after it. The mark has the time of the
    last frame, so that two copies are equal.
    """
    file = source.open(name, "read")
    try:
        copy = target.open(name + TMP, "create")
        try:
            size = file.size() if size is None else size
            for offset in range(0, size, _COPY_BYTES):
                write_all(copy, file.read(min(_COPY_BYTES, size - offset), offset), offset)
            if last is not None:
                write_all(copy, _mark(last, read_header(file, last.first_lsn).seed), size)
            copy.sync()
        finally:
            copy.close()
    finally:
        file.close()
    target.rename(name + TMP, name)


def _mark(last: ReplayBatch, seed: int) -> bytes:
    lsn, now_ns = last.last_lsn, last.written_at_ns
    return frame.encode(MARK, b"", 0, lsn=lsn + 1, durable_lsn=lsn, now_ns=now_ns, seed=seed)


def _verified(target: NewDirectory, limit_lsn: int | None) -> BackupReport:
    reader, path = JournalReader(target), target.path
    for finding in reader.verify():
        raise finding.as_error()
    segments, checkpoints = reader.segments(), reader.checkpoints()
    for checkpoint in checkpoints:
        checkpoint.close()
    lsn = max([0, *(s.last_lsn for s in segments), *(c.lsn for c in checkpoints)])
    if limit_lsn is not None and lsn < limit_lsn:
        problem = f"the copy ends at LSN {lsn}, not at LSN {limit_lsn}"
        raise CorruptionError(path, 0, lsn + 1, problem, reason=DamageReason.COPY_INCOMPLETE)
    size = sum(s.size_bytes for s in segments) + sum(c.size_bytes for c in checkpoints)
    return BackupReport(path, lsn, len(segments), len(checkpoints), size)
