"""CommitFigures: the figures of commits that `Journal.stats` returns."""

from __future__ import annotations

from journal._commit.batch import CommitBatch
from journal._recorder import Recorder

_FOLD_EVERY = 1024  # commits


class CommitFigures:
    """Sums and histograms of the commits since open.

    The thread that has the turn to commit writes them, except `wait_ns`, which each waiter writes.
    A reader may see only a part of the last commit.
    """

    def __init__(self) -> None:
        self.commits = self.records = self.syncs = 0
        self.stalls = 0  # commits that found no space on the disk
        self.commit_records = Recorder()
        self.commit_bytes = Recorder()
        self.sync_ns = Recorder()
        self.wait_ns = Recorder()

    def add_stall(self) -> None:
        """Count a commit that found no space on the disk."""
        self.stalls += 1

    def add(self, batch: CommitBatch) -> None:
        """Count the commit of `batch` and its sync, unless they are counted. Of a batch without
        records, only the sync counts."""
        records, size_bytes, sync_ns = len(batch.records), batch.size_bytes, batch.sync_ns
        if batch.is_counted:
            return
        # No interrupt can strike between these lines, because they call nothing.
        batch.is_counted = True
        if sync_ns:
            self.syncs += 1
            self.sync_ns.pending += (sync_ns,)
        if not records:
            return
        self.commits += 1
        self.records += records
        self.commit_records.pending += (records,)
        self.commit_bytes.pending += (size_bytes,)
        if not self.commits % _FOLD_EVERY:
            for recorder in (self.commit_records, self.commit_bytes, self.sync_ns, self.wait_ns):
                recorder.fold_if_free()
