"""Stats: collects the figures of an open, failed or closed journal."""

from __future__ import annotations

import errno

from journal._disk.disk import file_size, is_disk_error
from journal._engine.core import Core
from journal._format.segment import segment_names
from journal._names import COMPANIONS
from journal.metrics import Stats


def stats_of(core: Core, *, is_closed: bool) -> Stats:
    """Return the journal's figures since open. See Journal.stats."""
    buffer, turn, committer = core.buffer, core.turn, core.committer
    figures, compaction = committer.figures, core.compactor.stats
    names = [] if is_closed else [each for each in _names(core) if each not in COMPANIONS]
    durable_lsn, last_lsn = turn.durable_lsn, buffer.last_lsn  # this order: no negative
    mirror = core.mirroring.figures()._asdict() if core.mirroring else {}
    return Stats(
        commits=figures.commits,
        records=figures.records,
        bytes=committer.log_bytes,
        syncs=figures.syncs,
        commit_records=figures.commit_records.histogram(),
        commit_bytes=figures.commit_bytes.histogram(),
        sync_ns=figures.sync_ns.histogram(),
        wait_ns=figures.wait_ns.histogram(),
        buffered_bytes=buffer.used_bytes,
        backlog_records=last_lsn - durable_lsn,
        durable_lsn=durable_lsn,
        synced_lsn=committer.synced_lsn,
        last_lsn=last_lsn,
        segments=len(segment_names(names)),
        disk_bytes=sum(file_size(core.directory, name) for name in names),
        compactions=compaction.compactions,
        compaction_failures=compaction.failures,
        last_compaction_error=compaction.last_error,
        compaction_ns=compaction.compaction_ns,
        checkpoint_bytes=compaction.checkpoint_bytes,
        stalls=figures.stalls + buffer.stalls,
        unreadable_records=core.unreadable_records,
        **mirror,
    )


def _names(core: Core) -> list[str]:
    try:
        return core.directory.names()
    except OSError as error:
        if error.errno != errno.EBADF or not is_disk_error(error, core.directory):
            raise
        return []  # a signal handler or another thread has just closed the journal
