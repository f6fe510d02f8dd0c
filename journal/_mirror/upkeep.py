"""Upkeep: roll-ups, checkpoints and bases of a writer's mirror, and removals.

Nothing here is needed for a commit to be in the mirror. It bounds the number of objects, and the
time of a restore.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from threading import TIMEOUT_MAX, Thread

from journal import _time as time
from journal._commit.writer import SyncedEnd
from journal._disk.disk import Directory
from journal._format.segment import segment_names
from journal._log import post
from journal._mirror.basing import find_base
from journal._mirror.checkpointing import Checkpoints
from journal._mirror.claiming import Appender
from journal._mirror.entry import MirrorEntry, segment_name
from journal._mirror.holding import Holding
from journal._mirror.rolling_up import RollUp, RollUps
from journal._mirror.store import RefusedError, Store, StoreError, UnreachableError
from journal._mirror.unshipped import Cursor, Unshipped

_RETRY_S = 1.0

Answered = Callable[[Callable[[], object], Callable[[], object]], None]
"""A function that makes a request, and then makes the second one until the outcome is known."""


class Upkeep:
    """The upkeep of one writer's mirror. The shipper's thread uses it.

    Blobs may be large, so another thread puts them, one at a time, while entries are appended.
    """

    def __init__(
        self,
        store: Store,
        appender: Appender,
        directory: Directory,
        unshipped: Unshipped,
        holding: Holding,
        *,
        keep_s: float,
        now_ms: Callable[[], int],
    ) -> None:
        """Begin where shipping goes on."""
        self._appender = appender
        self._directory = directory
        self._unshipped = unshipped
        self._holding = holding
        self._roll_ups = RollUps(appender)
        cursor = unshipped.cursor
        self._checkpoints = Checkpoints(
            store, appender, directory, cursor, keep_s=keep_s, now_ms=now_ms
        )
        self._job: _Job | None = None
        self._next_at = 0.0  # no job begins before that
        self._is_reported = False
        self._hold(cursor)

    def add(self, entry: MirrorEntry) -> None:
        """Note an entry that was appended. Its bytes are before the cursor now."""
        self._roll_ups.add(entry)
        self._checkpoints.add(entry)
        self._hold(self._unshipped.cursor)

    def run(self, mirrored_lsn: int, *, wait_s: float = 0.0) -> None:
        """Begin what is due, after something was shipped, and wait at most `wait_s` seconds for it.

        Raises what made an earlier job fail: LostError, the store's other errors except
        UnreachableError and RefusedError, and those of the disk.
        """
        until_s = time.monotonic() + wait_s
        self.finish(wait_s)
        is_due = self._roll_ups.is_due
        is_early = time.monotonic() < self._next_at and not wait_s
        if self._job is not None or is_early or not (is_due or self._holding.is_compacted):
            return
        self._holding.is_compacted = False
        roll_up = self._roll_ups.take() if is_due else None
        job = _Job(self._appender, self._directory, roll_up, self._checkpoints, mirrored_lsn)
        try:
            job.thread.start()
        except RuntimeError:  # too many threads, or the interpreter is exiting
            self._put_off(job)
            return
        self._job = job
        self.finish(until_s - time.monotonic())

    def finish(self, wait_s: float) -> None:
        """Wait at most `wait_s` seconds for the job under way. Raises what made it fail."""
        job = self._job
        if job is None:
            return
        if wait_s > 0:
            job.thread.join(min(wait_s, TIMEOUT_MAX))
        if job.thread.is_alive():
            return
        self._job, error = None, job.error
        if error is None:
            self._is_reported = False
        elif isinstance(error, (UnreachableError, RefusedError)):
            self._put_off(job)
            self._report(error)
        else:
            raise error
        if job.is_early:
            self._holding.is_compacted = True
        self._hold(self._unshipped.cursor)

    def _put_off(self, job: _Job) -> None:
        if job.roll_up is not None and not job.is_rolled_up:
            self._roll_ups.give_back(job.roll_up)
        self._holding.is_compacted = True
        self._next_at = time.monotonic() + _RETRY_S

    def _report(self, error: StoreError) -> None:
        if not self._is_reported:
            self._is_reported = True
            text = "%s: the mirror grows, because its old objects can't be removed: %s"
            post(logging.WARNING, text, self._directory.path, error)

    def start_again(
        self,
        end: SyncedEnd | None,
        lsn: int,
        mirrored_lsn: int,
        answered: Answered,
        *,
        is_closed: bool,
    ) -> bool:
        """Continue after bytes at the cursor are gone. Return False if that can't be done.

        `end`: the end of what is synced, with LSN `lsn`. `mirrored_lsn`: the LSN up to which the
        mirror has every record. Raises what `answered` raises, and FileNotFoundError if files were
        removed meanwhile.
        """
        self.finish(TIMEOUT_MAX)
        if self._skip(mirrored_lsn):
            return True
        epoch = self._unshipped.epoch
        base = find_base(self._directory, epoch, end, lsn, is_closed=is_closed)
        if base is None:
            return False
        with ExitStack() as opened:
            for checkpoint in base.checkpoints:
                opened.enter_context(closing(checkpoint))
            self._holding.first = base.ranges[0][0]
            entry = self._appender.next_base(base.lsn, lsn)
            made_ms = base.checkpoints[0].created_at_ms

            def put() -> None:
                self._appender.put_base(entry, made_ms, base.pieces(self._directory))

            answered(put, put)
        answered(lambda: self._appender.send(entry), self._appender.retry)
        text = "%s: the mirror starts again from a checkpoint: the records from LSN %d to %d %s"
        gone = mirrored_lsn + 1, base.lsn - 1, "were removed or damaged before they were shipped"
        if mirrored_lsn and base.lsn > mirrored_lsn + 1:
            post(logging.WARNING, text, self._directory.path, *gone)
        self._unshipped.cursor = base.cursor
        self._roll_ups.begin()
        self._checkpoints.begin(base.cursor)
        self._hold(base.cursor)
        return True

    def _skip(self, mirrored_lsn: int) -> bool:
        """Go on with the next segment if the mirror has every record before it."""
        at = self._unshipped.cursor.segment
        names = segment_names(self._directory.names())
        later = [name for name in names if at is not None and name > at]
        if at is None or at in names or not later or later[0].first_lsn > mirrored_lsn + 1:
            return False
        self._unshipped.cursor = Cursor(later[0], 0)
        self._hold(self._unshipped.cursor)
        return True

    def _hold(self, cursor: Cursor) -> None:
        """Hold the segments from the first one that shipping and roll-ups need."""
        files = [self._roll_ups.first_file]
        if self._job is not None and self._job.roll_up is not None:
            files.append(self._job.roll_up.ranges[0].name)
        needed = [segment_name(name) for name in files if name]
        self._holding.first = min([*needed, cursor.segment]) if cursor.segment else None


class _Job:
    """A roll-up, and the checkpoints after it, in a thread of their own."""

    def __init__(
        self,
        appender: Appender,
        directory: Directory,
        roll_up: RollUp | None,
        checkpoints: Checkpoints,
        mirrored_lsn: int,
    ) -> None:
        self._appender = appender
        self._directory = directory
        self._checkpoints = checkpoints
        self._mirrored_lsn = mirrored_lsn
        self.roll_up = roll_up
        self.thread = Thread(target=self._run, name="journal-mirror-upkeep", daemon=True)
        self.error: BaseException | None = None
        self.is_rolled_up = False
        self.is_early = False  # whether the checkpoints have to be looked at again

    def _run(self) -> None:
        try:
            if self.roll_up is not None:
                # If a segment is gone, the entries stay as they are.
                with suppress(FileNotFoundError):
                    self.roll_up.put(self._appender, self._directory)
                self.is_rolled_up = True
            self.is_early = self._checkpoints.run(self._mirrored_lsn)
        except BaseException as error:
            self.error = error
