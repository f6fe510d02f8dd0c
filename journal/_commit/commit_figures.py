"""CommitFigures: the figures of commits that `Journal.stats` returns."""

from __future__ import annotations

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

    def add(self, records: int, size_bytes: int, sync_ns: int) -> None:
        """Count a commit and its sync. Without `records`, only the sync counts; a `sync_ns` of 0
        means that there was none."""
        if sync_ns:
            self.syncs += 1
            self.sync_ns.add(sync_ns)
        if not records:
            return
        self.commits += 1
        self.records += records
        self.commit_records.add(records)
        self.commit_bytes.add(size_bytes)
        if not self.commits % _FOLD_EVERY:
            for recorder in (self.commit_records, self.commit_bytes, self.sync_ns, self.wait_ns):
                recorder.fold_if_free()
