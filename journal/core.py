"""Core: what an open journal is made of, wired, from recovery to the last thread's end.

write:  record -> log buffer -> frame -> segment -> disk => durable LSN => waiter
read:   disk -> segment -> frame -> record
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import TypeVar

from journal import process
from journal.buffer import LogBuffer
from journal.checkpoint import Checkpoint
from journal.commit_turn import CommitTurn
from journal.committer import Committer
from journal.compactor import Compactor, Freeze
from journal.errors import (
    ClosedError,
    FailedError,
    InterruptedCallError,
    JournalError,
    UnsafePathError,
)
from journal.lease import DirectoryLease
from journal.log import report
from journal.mutex import Alarm, HandlerSafeLock
from journal.options import Options
from journal.posix import PosixDisk
from journal.recovery import Recovered, recover
from journal.room import Room
from journal.standing import Standing
from journal.storage import Directory, Disk, StrPath, is_of_disk
from journal.walk import Batch, is_journal
from journal.writer import Writer

T = TypeVar("T")

_EXIT_TIMEOUT_S = 10.0


class Core:
    """All that is open. Knows no Journal, so one that is dropped can be collected."""

    def __init__(
        self, directory: Directory, disk: Disk, options: Options, recovered: Recovered
    ) -> None:
        self.directory = directory
        self.disk = disk
        self.journal_id = recovered.journal_id or disk.new_id().hex()
        self.epoch = recovered.epoch
        self.checkpoint = recovered.checkpoint
        lock, alarm = HandlerSafeLock(), Alarm()
        self.standing, room = Standing(), Room(options.buffer_bytes)
        self.buffer = LogBuffer(
            recovered.last_lsn,
            options,
            lock=lock,
            alarm=alarm,
            standing=self.standing,
            room=room,
        )
        self.turn = CommitTurn(
            self.buffer, options, lock=lock, alarm=alarm, standing=self.standing, room=room
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
            self.buffer, self.turn, writer, options, alarm=alarm, standing=self.standing
        )
        self.compactor = Compactor(
            directory,
            disk,
            options,
            self.committer,
            journal_id=self.journal_id,
            epoch=self.epoch,
            sync_log=self.sync_log,
        )
        self.compactor.recovered(recovered.verified_lsns, recovered.checkpoint, recovered.log_bytes)
        self._lease = DirectoryLease(directory)
        # Threads that wait for ours to end. Changed by single atomic operations only.
        self._closers: dict[int, None] = {}

    def start(self) -> None:
        self._lease.add(self.committer)
        self.committer.start(self._flusher_ended)
        process.own(self)  # only now: at exit nobody can wait for a thread that never started

    def start_compaction(self, freeze: Freeze) -> None:
        thread = object()
        self._lease.add(thread)
        try:
            self.compactor.start(freeze, partial(self._lease.leave, thread))
        except BaseException:
            self._lease.withdraw(thread)
            raise

    def compact(self, freeze: Freeze) -> Checkpoint:
        # The compactor's thread may be waiting for that lock, or for that commit.
        if self.buffer.is_locked_here() or self.turn.is_committing_here:
            raise InterruptedCallError
        try:
            return self.compactor.compact(freeze)
        except ClosedError:
            self.standing.check()  # given up because the log had failed?
            raise

    def sync_log(self) -> None:
        """Wait until all appended so far is on stable storage, whatever the durability."""
        last_lsn = self.buffer.last_lsn
        if self.committer.synced_lsn < last_lsn:
            self.turn.sync_gate().wait()
            if self.committer.synced_lsn < last_lsn:
                raise self.standing.error()

    def begin_close(self) -> None:
        """Take no more records, and stop compaction.

        Raises InterruptedCallError where `finish_close` would wait for its own thread.
        """
        is_closing_here = get_ident() in self._closers
        if is_closing_here or self.turn.is_committing_here or self.compactor.is_compacting_here:
            raise InterruptedCallError
        self.buffer.close()
        self.compactor.stop()

    def finish_close(self, timeout_s: float | None) -> bool:
        """Return whether all is done and the directory given back, within `timeout_s` seconds."""
        here = get_ident()
        self._closers[here] = None  # noted and removed without a call: an interrupt comes after one
        try:
            return self._finish_close(timeout_s)
        finally:
            del self._closers[here]

    def _finish_close(self, timeout_s: float | None) -> bool:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in (self.committer, self.compactor):
            left = None if until is None else max(0.0, until - time.monotonic())
            if not thread.join(left):
                return False
        self._lease.release()
        if self.checkpoint:
            self.checkpoint.close()
        self.compactor.close()
        process.disown(self)
        return True

    def drop(self) -> None:
        """The owner is collected: close without waiting, and without taking a lock."""
        self._lease.disown()
        self.buffer.close_soon()
        if not self.committer.has_begun:  # an interrupt came before
            self._lease.withdraw(self.committer)
        self._lease.release_if_unused()

    def _flusher_ended(self) -> None:
        self.compactor.stop()  # after a failure too: there is no log left that it could sync
        self._lease.leave(self.committer)

    def abandon(self) -> None:
        lock = HandlerSafeLock()
        self.buffer.abandon(lock)
        self.turn.abandon(lock)
        self.committer.abandon()
        self.directory.close(unlock=False)

    def finish(self) -> None:
        self.begin_close()
        if not self.finish_close(_EXIT_TIMEOUT_S):
            report(
                logging.ERROR,
                "%s: %d bytes could not be written before exit, and are lost",
                self.directory.path,
                self.buffer.used_bytes,
            )


def open_core(
    path: StrPath,
    options: Options,
    disk: Disk | None,
    accepts: tuple[str, ...],
    begin: Callable[[Checkpoint | None], None],
    receive: Callable[[Batch], None],
    own: Callable[[Core], T],
) -> T:
    """Recover, handing over the checkpoint and each batch after it, start the flusher, and find
    an owner who will close it.

    `accepts`: the applications whose checkpoint may be there; none: any.
    """
    process.check_interpreter(path)
    disk, core = disk or PosixDisk(), None
    directory = disk.open_directory(path, write=True)
    try:
        directory.lock()
        names = directory.names()
        if names and not is_journal(names):
            raise UnsafePathError(
                f"{directory.path}: holds files and no journal, such as {names[0]!r}; "
                "give an empty or a new directory"
            )
        try:
            recovered = recover(
                directory,
                kept=options.checkpoints_kept,
                accepts=accepts,
                begin=begin,
                receive=receive,
            )
        except JournalError:
            raise
        except OSError as error:
            if not is_of_disk(error):
                raise
            raise FailedError(f"{directory.path}: can't be recovered: {error}") from error
        process.sign(directory, recovered.epoch)
        core = Core(directory, disk, options, recovered)
        core.start()
        return own(core)
    except BaseException:
        if core:
            core.drop()
        else:
            directory.close(unlock=True)
        raise
