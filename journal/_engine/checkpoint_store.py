"""CheckpointStore: writes and verifies a journal's checkpoints, and removes what they cover."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from weakref import WeakSet

from journal._disk.disk import Directory, Disk, clock_ns, file_size
from journal._format.checkpoint import (
    JSON,
    Checkpoint,
    checkpoint_lsns,
    checkpoint_name,
    read_checkpoint,
    write_checkpoint,
)
from journal._format.segment import SegmentName, segment_names, segments_after
from journal._recovery.recovery import Holding, drop_covered
from journal.errors import JournalError
from journal.options import Options

_WORTHWHILE = 1 / 4  # of a segment: less space is not worth a second checkpoint


def check_stateless(path: str, items: int, application: str, options: Options) -> None:
    """Raise JournalError if the newest checkpoint at `path` holds a state, or may be that of
    another application.

    `items`: the number of its items; `application`: the one that it names.
    """
    if items:
        raise JournalError(
            f"{path}: can't be trimmed, because its newest checkpoint holds a state of {items} "
            "items, which a trim would forget; compact it instead"
        )
    if application != options.application:
        raise JournalError(
            f"{path}: can't be trimmed, because it belongs to application {application!r}; if that "
            f"keeps no state, open it with Options(application={application!r})"
        )


class CheckpointStore:
    """The checkpoints of one journal. A compaction calls `write`, `verify` and `drop_covered`, in
    this order, under the compactor's lock; `close` may be called at any time."""

    def __init__(
        self,
        directory: Directory,
        disk: Disk,
        options: Options,
        *,
        journal_id: str,
        epoch: int,
        verified_lsns: list[int],
        newest: Checkpoint | None,
        unreadable_lsn: int = 0,
    ) -> None:
        """Make a store. `verified_lsns`: the LSNs of the checkpoints that verified at open, in
        ascending order. `newest`: the newest of these. `unreadable_lsn`: the last LSN that damage
        made unreadable (0: none)."""
        self.path = directory.path
        self._directory = directory
        self._disk = disk
        self._options = options
        self._journal_id = journal_id
        self._epoch = epoch
        self._verified_lsns = verified_lsns
        self._unreadable_lsn = unreadable_lsn
        self._newest_count = newest.count if newest else 0
        self._newest_application = newest.application if newest else options.application
        self._open_checkpoints: WeakSet[Checkpoint] = WeakSet()
        self.holding: Holding | None = None  # see drop_covered

    def write(self, lsn: int, items: Iterable[JSON], pace: Callable[[int], int]) -> None:
        """Write the state as of `lsn`, atomically and durably. `pace`: see write_checkpoint."""
        write_checkpoint(
            self._directory,
            items,
            journal_id=self._journal_id,
            epoch=self._epoch,
            lsn=lsn,
            now_ns=clock_ns(self._disk),
            application=self._options.application,
            pace=pace,
        )

    def verify(self, lsn: int, progress: Callable[[int], object] = id) -> Checkpoint:
        """Read the checkpoint back and count it among those that cover the log. `progress`: see
        read_checkpoint."""
        checkpoint = read_checkpoint(self._directory, lsn, progress)
        self._open_checkpoints.add(checkpoint)
        self._verified_lsns = sorted({*self._verified_lsns, lsn})
        if lsn == self._verified_lsns[-1]:
            self._newest_count, self._newest_application = checkpoint.count, checkpoint.application
        return checkpoint

    @property
    def is_exposed(self) -> bool:
        """True while fewer checkpoints than are kept lie after damage that the open passed over.

        If the newest one were damaged, too, an open could not fall back on one before that.
        """
        after = [lsn for lsn in self._verified_lsns if lsn >= self._unreadable_lsn]
        return bool(self._unreadable_lsn) and len(after) < self._options.checkpoints_kept

    def needs_filler(self, newest: Checkpoint) -> bool:
        """Return whether a filler in a segment of its own, and one more checkpoint like `newest`
        after it, would free at least a quarter of a segment."""
        keep = self._options.checkpoints_kept
        if len(self._verified_lsns) + 1 < keep:
            return False
        floor_lsn = [*self._verified_lsns, newest.lsn + 1][-keep]
        names = self._directory.names()
        segments = segment_names(names)
        following = SegmentName(newest.lsn + 1, self._epoch)
        kept = segments_after([*segments, following], floor_lsn)
        gone = [str(name) for name in segments if name not in kept]
        gone += [checkpoint_name(lsn) for lsn in checkpoint_lsns(names) if lsn < floor_lsn]
        freed_bytes = sum(file_size(self._directory, name) for name in gone)
        segment_bytes = self._options.segment_bytes
        return freed_bytes - newest.size_bytes - segment_bytes >= _WORTHWHILE * segment_bytes

    def check_stateless(self) -> None:
        """Raise JournalError if the newest checkpoint holds a state, which a trim would forget."""
        check_stateless(self.path, self._newest_count, self._newest_application, self._options)

    def lsns_to_trim(self, before_lsn: int) -> list[int]:
        """Return the LSNs at which to write checkpoints, ascending, so that segments before
        `before_lsn` can be removed. Return none if no segment could be."""
        from journal._engine.trimming import checkpoints_to_trim  # few journals are trimmed

        lsns = checkpoints_to_trim(self._directory, before_lsn, self._options.checkpoints_kept)
        newest_lsn = max(self._verified_lsns, default=-1)
        return [lsn for lsn in lsns if lsn > newest_lsn]

    @property
    def last_segment_lsn(self) -> int:
        """The first LSN of the last segment, or 0 if there is none."""
        segments = segment_names(self._directory.names())
        return segments[-1].first_lsn if segments else 0

    def drop_covered(self) -> None:
        """Remove the segments and checkpoints that none of the newest checkpoints needs."""
        keep = self._options.checkpoints_kept
        drop_covered(self._directory, self._verified_lsns, keep, self.holding)
        self._verified_lsns = self._verified_lsns[-keep:]

    def close(self) -> None:
        """Close the files of the checkpoints that `verify` returned."""
        for checkpoint in list(self._open_checkpoints):
            checkpoint.close()
