"""Core: connects the parts of an open journal, and closes it when the last thread has ended.

write:  record -> log buffer -> frame -> segment -> disk => durable LSN => waiter
read:   disk -> segment -> frame -> record
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import TIMEOUT_MAX, get_ident
from typing import TYPE_CHECKING

from journal import _time as time
from journal._commit.backpressure import Backpressure
from journal._commit.buffer import LogBuffer
from journal._commit.commit_turn import CommitTurn
from journal._commit.committer import Committer
from journal._commit.lifecycle import Lifecycle
from journal._commit.writer import Writer
from journal._disk import process
from journal._disk.disk import Directory, Disk
from journal._engine.checkpoint_store import CheckpointStore
from journal._engine.compaction_schedule import CompactionSchedule
from journal._engine.compactor import Compactor, Fill, Freeze
from journal._engine.directory_use import DirectoryUse
from journal._format.checkpoint import Checkpoint
from journal._format.segment import segment_names
from journal._log import report
from journal._mutex import Alarm, HandlerSafeLock
from journal._recovery.recovery import Recovered
from journal.errors import (
    ClosedError,
    InterruptedCallError,
)
from journal.options import Options

if TYPE_CHECKING:  # imported at first use: few journals have a mirror
    from journal._engine.mirroring import Link, Mirroring

_EXIT_TIMEOUT_S = 10.0


class Core:
    """The parts of an open journal. They do not refer to the Journal, so it can be collected."""

    def __init__(
        self,
        directory: Directory,
        disk: Disk,
        options: Options,
        recovered: Recovered,
        turn_kind: type[CommitTurn] = CommitTurn,
    ) -> None:
        self.directory = directory
        self.disk = disk
        self._options = options
        self.frame_bytes_max = options.frame_bytes_max
        self.journal_id = recovered.journal_id or disk.new_id().hex()
        self.epoch = recovered.epoch
        self.checkpoint = recovered.checkpoint
        self.unreadable_records = sum(hole.records for hole in recovered.holes)
        lock, alarm = HandlerSafeLock(), Alarm()
        self.lifecycle, backpressure = Lifecycle(), Backpressure(options.buffer_bytes)
        self.buffer = LogBuffer(
            recovered.last_lsn,
            options,
            lock=lock,
            alarm=alarm,
            lifecycle=self.lifecycle,
            backpressure=backpressure,
        )
        self.turn = turn_kind(
            self.buffer,
            options,
            lock=lock,
            alarm=alarm,
            lifecycle=self.lifecycle,
            backpressure=backpressure,
        )
        writer = Writer(
            directory,
            disk,
            options,
            journal_id=self.journal_id,
            epoch=self.epoch,
            last_lsn=recovered.last_lsn,
        )
        self.committer = Committer(
            self.buffer, self.turn, writer, options, alarm=alarm, lifecycle=self.lifecycle
        )
        self.compactor = self._make_compactor(disk, options, recovered)
        self.mirroring: Mirroring | None = None
        self._use = DirectoryUse(directory)
        # The threads that are inside `finish_close`. Changed only by single atomic operations.
        self._closers: dict[int, None] = {}

    def _make_compactor(self, disk: Disk, options: Options, recovered: Recovered) -> Compactor:
        return Compactor(
            self.committer,
            CheckpointStore(
                self.directory,
                disk,
                options,
                journal_id=self.journal_id,
                epoch=self.epoch,
                verified_lsns=recovered.verified_lsns,
                newest=self.checkpoint,
                unreadable_lsn=max((hole.last_lsn for hole in recovered.holes), default=0),
            ),
            CompactionSchedule(
                options,
                checkpoint_bytes=self.checkpoint.size_bytes if self.checkpoint else 0,
                log_bytes=recovered.log_bytes,
            ),
        )

    def mirror_with(self, link: Link) -> None:
        """Ship everything to the mirror, from `start` on."""
        self.compactor.hold_back(link.holding)
        last_lsn = self.buffer.last_lsn
        self.mirroring = link.mirroring(
            self.committer, self.turn, epoch=self.epoch, recovered_lsn=last_lsn
        )

    def start(self) -> None:
        self._use.enter(self.committer)
        self.committer.start(self._flusher_ended)
        if self.mirroring is not None:
            self._use.enter(self.mirroring)
            self.mirroring.start(partial(self._use.leave, self.mirroring))
        process.own(self)  # last: the exit hook can't wait for a thread that never started

    def start_compaction(self, freeze: Freeze | None) -> None:
        """Start the compactor's thread. Without `freeze`, it applies the retention."""
        thread = object()
        try:
            self._use.enter(thread)
            retention = None
            if freeze is None:
                from journal._engine.trimming import Retention

                retention = Retention(self.directory, self.disk, self.committer, self._options)
            self.compactor.start(freeze, partial(self._use.leave, thread), retention=retention)
        except BaseException:
            self._use.leave(thread)
            raise

    def compact(self, freeze: Freeze | None, fill: Fill | None = None) -> Checkpoint:
        if self._options.has_retention:
            raise ValueError(
                "compact() of a journal with retain_s or retain_bytes: its checkpoints can't hold "
                "a state; call trim, or open it without retention"
            )
        freeze = freeze or self.compactor.freeze
        if freeze is None:
            raise ValueError(
                "compact() needs a freeze function, or start_compaction first; to forget old "
                "records of a journal without a state, call trim"
            )
        with self._compacting():
            return self.compactor.compact(freeze, fill)

    def trim(self, before_lsn: int) -> None:
        next_lsn = self.buffer.last_lsn + 1
        if not 1 <= before_lsn <= next_lsn:
            raise ValueError(
                f"before_lsn must be from 1 to {next_lsn}, the next LSN, not {before_lsn}"
            )
        with self._compacting():
            self.compactor.trim(before_lsn)

    @contextmanager
    def _compacting(self) -> Iterator[None]:
        # A compaction under way, for which this waits, may wait for that lock or that commit.
        if self.buffer.is_locked_here() or self.turn.is_committing_here:
            raise InterruptedCallError
        try:
            yield
        except ClosedError:
            self.lifecycle.check()  # given up because the log had failed?
            raise

    @property
    def first_lsn(self) -> int:
        """See Journal.first_lsn."""
        next_lsn = self.turn.durable_lsn + 1  # first: a segment begun meanwhile begins there
        segments = segment_names(self.directory.names())
        return segments[0].first_lsn if segments else next_lsn

    @property
    def safe_lsn(self) -> int:
        """The LSN up to which a closed journal has lost no record.

        With durability "os", a failed sync may have lost records that counted as durable.
        """
        synced_lsn, mirroring = self.committer.synced_lsn, self.mirroring
        if mirroring is None or self.lifecycle.failure is None:
            return synced_lsn
        return min(synced_lsn, mirroring.mirrored_lsn)

    @property
    def is_making_room_here(self) -> bool:
        """True if this thread is inside a compaction, or is the compactor's or the mirror's."""
        is_mirror_here = self.mirroring is not None and self.mirroring.is_here
        return is_mirror_here or self.compactor.is_compacting_here

    def begin_close(self) -> None:
        """Take no more records, and stop compaction.

        Raises InterruptedCallError where `finish_close` would wait for its own thread.
        """
        is_closing_here = get_ident() in self._closers
        if is_closing_here or self.turn.is_committing_here or self.is_making_room_here:
            raise InterruptedCallError
        self.buffer.close()
        self.compactor.stop()

    def finish_close(self, timeout_s: float | None) -> bool:
        """Wait at most `timeout_s` seconds for the threads to end, then release the directory.
        Return whether that is done."""
        thread_id = get_ident()
        self._closers[thread_id] = None  # neither this nor the `del` can be interrupted
        try:
            return self._finish_close(timeout_s)
        finally:
            del self._closers[thread_id]

    def _finish_close(self, timeout_s: float | None) -> bool:
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in (self.committer, self.compactor):
            if not thread.join(_remaining_s(until_s)):
                return False
        if self.mirroring is not None and not self.mirroring.finish(_remaining_s(until_s)):
            return False
        self._use.release()
        if self.checkpoint:
            self.checkpoint.close()
        self.compactor.close()
        process.disown(self)
        return True

    def drop(self) -> None:
        """Close without waiting and without a lock, because the owner is garbage-collected."""
        self._use.drop_owner()
        self.buffer.close_soon()
        if not self.committer.has_begun:  # an interrupt struck before it started
            self._use.leave(self.committer)
        mirroring = self.mirroring
        if mirroring is not None:
            mirroring.drop()
            if not mirroring.has_begun:
                self._use.leave(mirroring)
        self._use.release_if_unused()

    def _flusher_ended(self) -> None:
        self.compactor.stop()  # after a failure, too: a compaction could no longer sync the log
        if self.mirroring is not None:
            self.mirroring.log_ended(is_closed=self.lifecycle.failure is None)
        self._use.leave(self.committer)

    def abandon(self) -> None:
        lock = HandlerSafeLock()
        self.buffer.abandon(lock)
        self.compactor.stop()  # one that was forked inside `freeze` gives up
        self.turn.abandon(lock)
        self.committer.abandon()
        if self.mirroring is not None:
            self.mirroring.abandon()
        self.directory.close(unlock=False)

    def finish(self) -> None:
        self.begin_close()
        if not self.finish_close(_EXIT_TIMEOUT_S):
            report(
                logging.ERROR,
                "%s: %d bytes could not be written before the exit and are lost",
                self.directory.path,
                self.buffer.used_bytes,
            )


def _remaining_s(until_s: float | None) -> float | None:
    """Return the seconds until a moment, as a thread may wait for them. None: no limit."""
    remaining_s = None if until_s is None else max(0.0, until_s - time.monotonic())
    return None if remaining_s is not None and remaining_s > TIMEOUT_MAX else remaining_s
