"""Restoring: a journal's directory, made anew from its mirror, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from journal._disk.disk import Directory, Disk, StrPath
from journal._disk.posix import disk_or_default
from journal._mirror.blobs import CheckpointName
from journal._mirror.claiming import last_entry
from journal._mirror.copying import Copy, first_written_at_ns
from journal._mirror.entry import BASE, MirrorDamageError, MirrorEntry
from journal._mirror.reading import has_beginning, read_log, start_from, true_checkpoints
from journal._mirror.store import Store
from journal._names import LOCK
from journal._offline.new_directory import NewDirectory, fill_directory
from journal._offline.reader import JournalReader
from journal._public import public
from journal.errors import CompactedError, utc_text

_ATTEMPTS = 5


@public
@dataclass(frozen=True, slots=True)
class RestoreReport:
    """A finished restore of a mirror."""

    path: str
    """The directory that was restored."""

    lsn: int
    """The LSN of its last record."""

    mirrored_lsn: int
    """The LSN up to which the mirror had every record. It is greater than `lsn` after a restore to
    an earlier LSN, and then the directory needs a new mirror."""

    segments: int
    """The number of its segments."""

    checkpoints: int
    """The number of its checkpoints."""

    size_bytes: int
    """The size of its files, in bytes."""

    number: int
    """The number of the last entry of the mirror that was read."""


@dataclass(frozen=True, slots=True)
class Target:
    """The end of a restore: an LSN, or a time in Unix nanoseconds, or the end of the mirror."""

    lsn: int | None = None
    unix_ns: int | None = None

    def admits(self, checkpoint: CheckpointName) -> bool:
        """Return whether the checkpoint is of the target or of a moment before it."""
        if self.unix_ns is not None:
            # The checkpoint was made at any moment of that millisecond.
            return (checkpoint.made_ms + 1) * 1_000_000 <= self.unix_ns
        return self.lsn is None or checkpoint.lsn <= self.lsn

    @property
    def is_end(self) -> bool:
        return self.lsn is None and self.unix_ns is None


def restore_into(
    store: Store,
    path: StrPath,
    target: Target | None = None,
    disk: Disk | None = None,
    *,
    mark: Callable[[Directory, int], object] = lambda *_: None,
    progress: Callable[[int], object] = lambda _: None,
) -> RestoreReport:
    """Restore the journal that is mirrored in `store` into the new directory `path`, and verify it.

    `target`: where to end (None: at the mirror's end). `mark` is called with the directory and the
    LSN of its end if the mirror has later records. `progress` is called with the number of bytes
    that were written since its last call.

    Raises FileExistsError if `path` exists and is neither empty nor an incomplete copy,
    LockedError, MirrorDamageError, FileNotFoundError if the store has no journal, CompactedError if
    the mirror does not have the target, CorruptionError if the restored journal does not verify,
    and what the store and the disk raise. Nothing that it has made is left in the directory then.
    """

    target = target or Target()
    mirrored_lsn = _mirrored_lsn(store, target)  # before the directory is made

    def fill(directory: NewDirectory) -> RestoreReport:
        restore = _Restore(store, directory, target, mirrored_lsn, progress)
        lsn = restore.run()
        if not restore.reaches_end(lsn):
            mark(directory, lsn)
        restore.finish()
        return _verified(directory, restore)

    return fill_directory(disk_or_default(disk), path, fill)


def _mirrored_lsn(store: Store, target: Target) -> int:
    """Return the LSN at which the mirror ends. Raises FileNotFoundError if the store has no
    journal, CompactedError if the target is after that LSN, and what the store raises."""
    last = last_entry(store)
    if last is None:
        raise FileNotFoundError(f"{store.url}: there is no mirror of a journal here")
    if (target.lsn or 0) > last.last_lsn:
        raise CompactedError(
            f"{store.url}: LSN {target.lsn} is not in the mirror; it ends at LSN {last.last_lsn}",
            last.last_lsn,
            lsn=target.lsn,
        )
    return last.last_lsn


class _Restore:
    """A restore in progress."""

    def __init__(
        self,
        store: Store,
        directory: NewDirectory,
        target: Target,
        mirrored_lsn: int,
        progress: Callable[[int], object],
    ) -> None:
        self._store = store
        self._directory = directory
        self._target = target
        self._progress = progress
        self._copy = Copy(directory)
        self._last_lsn = 0  # the LSN up to which what was read has every record
        self._begin_lsn = 0  # the first LSN as of which it can be restored
        self._past_ns: int | None = None  # the time of the first entry past the target
        self.number = 0
        self.mirrored_lsn = mirrored_lsn
        self.end_lsn = 0

    def run(self) -> int:
        """Copy the mirror up to the target, and cut it there. Return the LSN of the end."""
        for attempt in range(_ATTEMPTS):
            start = self._start()
            try:
                self._read(start)
                break
            except MirrorDamageError:
                # The writer may have removed the blobs of the start meanwhile.
                if self._start() == start or attempt == _ATTEMPTS - 1:
                    raise
                self._copy.close()
                self._directory.clear()
        self.end_lsn = self._cut()
        return self.end_lsn

    def reaches_end(self, lsn: int) -> bool:
        """Return whether a restore up to `lsn` has everything that the mirror has."""
        return self._target.is_end or lsn >= self.mirrored_lsn

    def finish(self) -> None:
        self._copy.finish()
        self._directory.open(LOCK, "create").close()  # without it, an empty journal is none
        self._directory.sync()

    def _start(self) -> list[CheckpointName]:
        """Return the blobs from which to begin."""
        checkpoints = true_checkpoints(self._store, self._store.blob_names())
        start = start_from([name for name in checkpoints if self._target.admits(name)])
        if not start and checkpoints and not has_beginning(self._store, checkpoints):
            first = min(checkpoints, key=lambda name: name.lsn)
            kept = f"the first LSN that is kept is {first.lsn}"
            if self._target.unix_ns is not None:
                kept += f", from {utc_text(first.made_ms / 1000)}"
            raise self._not_kept(kept, first.lsn)
        return start

    def _read(self, start: Sequence[CheckpointName]) -> None:
        self._begin_lsn = start[0].lsn if start else 0
        self._last_lsn = 0
        with closing(read_log(self._store, start=start)) as log:
            for entry in log:
                if self._is_past(entry, start):
                    break
                for piece in entry.pieces:
                    self._copy.write(piece, entry.number)
                    self._progress(len(piece.data))
                if not entry.more:
                    self.number, self._last_lsn = entry.number, entry.last_lsn
                    is_reached = entry.last_lsn >= (self._target.lsn or 0)
                    if self._target.lsn is not None and is_reached and self._copy.has_segment:
                        break
        self._copy.close()

    def _is_past(self, entry: MirrorEntry, start: Sequence[CheckpointName]) -> bool:
        """Return whether the target was reached before this entry."""
        is_start = bool(start) and entry.number <= start[-1].number
        if entry.kind == BASE and not is_start and not self._target.is_end:
            gap = f"the mirror lacks the records from LSN {self._last_lsn + 1} to "
            gap += f"{entry.from_lsn - 1}, which were removed before they were shipped"
            raise self._not_kept(gap, entry.from_lsn)
        if self._target.unix_ns is None or is_start:
            return False
        times = [first_written_at_ns(piece) for piece in entry.pieces if not piece.is_checkpoint]
        if not times or min(times) <= self._target.unix_ns:
            return False
        self._past_ns = min(times)
        return True

    def _cut(self) -> int:
        if self._target.is_end:
            return self._last_lsn
        lsn = self._target.lsn
        if lsn is None:
            assert self._target.unix_ns is not None
            lsn = self._copy.lsn_at(self._target.unix_ns)
            if lsn < max(self._begin_lsn, 1):
                if not self._begin_lsn:
                    raise self._not_kept(self._first_written(), 1)
                lsn = self._begin_lsn
        return self._copy.cut(lsn)

    def _first_written(self) -> str:
        """Describe when the first record was written, which was after the target."""
        at_ns = self._copy.begun_at_ns or self._past_ns
        if at_ns is None:
            return "the mirror has no record"
        return f"the first record was written later, at {utc_text(at_ns / 1e9)}"

    def _not_kept(self, problem: str, first_lsn: int) -> CompactedError:
        lsn, unix_ns = self._target.lsn, self._target.unix_ns
        what = f"LSN {lsn}" if unix_ns is None else utc_text(unix_ns / 1e9)
        return CompactedError(
            f"{self._store.url}: {what} can't be restored: {problem}", first_lsn, lsn=lsn
        )


def _verified(directory: NewDirectory, restore: _Restore) -> RestoreReport:
    reader = JournalReader(directory)
    for finding in reader.verify():
        if finding.kind in ("corruption", "bad_checkpoint"):  # a torn tail is the journal's own
            raise finding.as_error()
    segments, checkpoints = reader.segments(), reader.checkpoints()
    for checkpoint in checkpoints:
        checkpoint.close()
    lsns = [*(s.last_lsn for s in segments), *(c.lsn for c in checkpoints)]
    lsn, promised = max(lsns, default=0), restore.end_lsn
    if lsn < promised:
        problem = f"the mirror promises LSN {promised}, but its bytes end at LSN {lsn}"
        raise MirrorDamageError(restore.number, problem)
    sizes = [*(s.size_bytes for s in segments), *(c.size_bytes for c in checkpoints)]
    return RestoreReport(
        path=directory.path,
        lsn=lsn,
        mirrored_lsn=max(restore.mirrored_lsn, lsn),
        segments=len(segments),
        checkpoints=len(checkpoints),
        size_bytes=sum(sizes),
        number=restore.number,
    )
